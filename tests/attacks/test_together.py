"""The same command twice at once, in one folder: both end well, and leave what one alone leaves."""

import hashlib
import re
import shutil
import subprocess
import sys

import pytest
from conftest import TINY

pytestmark = pytest.mark.slow

RUN = "run=runs/exp5/*/*"
# a command, what is removed beforehand, and what both make
COMMANDS = {
    "training": (
        ["train", "+experiment=exp5", *TINY],
        ["runs/exp5", "runs/cache"],
        ["runs/exp5/*/*/weights.safetensors", "runs/exp5/*/*/metrics.csv", "runs/cache/*/*"],
    ),
    "maps": (
        ["predict", RUN, "on=val"],
        ["runs/exp5/*/*/predictions"],
        ["runs/exp5/*/*/predictions/val/*"],
    ),
    "a report": (
        ["report", "resamples=5"],
        ["runs/report", "runs/exp5/*/*/predictions"],
        ["runs/report/*/*.csv", "runs/exp5/*/*/predictions/val/*.npy"],
    ),
    "a bundle": (
        ["export", RUN, "out=model", "resamples=20", "licence=CC0"],
        ["model"],
        ["model/*"],
    ),
    "a submission": (["submission", RUN, "on=val", "out=table.csv"], ["table.csv"], ["table.csv"]),
    "masks": (
        ["predict", "model=model", "input=film.dcm", "out=found"],
        ["found"],
        ["found/**/*.png", "found/**/*.csv"],
    ),
}


def start(place, arguments):
    module, *rest = arguments
    return subprocess.Popen(
        [sys.executable, "-m", f"pneumo.{module}", *rest],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def digests(place, patterns):
    """SHA-256 of the files of some patterns."""
    paths = sorted(path for pattern in patterns for path in place.glob(pattern) if path.is_file())
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


@pytest.mark.parametrize("what", COMMANDS)
def test_two_at_once_leave_what_one_leaves(whole, what, tmp_path):
    arguments, removed, made = COMMANDS[what]
    left = []
    for count in (1, 2):
        # the same place, of which some files tell
        place = tmp_path / "work"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        for pattern in removed:
            for path in place.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        processes = [start(place, arguments) for _ in range(count)]
        for process in processes:
            out, errors = process.communicate(timeout=1500)
            assert process.returncode == 0, errors
            assert not re.search("Traceback|error:", errors), errors
            assert out
        left.append(digests(place, made))
        assert [path for path in place.rglob(".*.partial") if path.is_file()] == []
    assert left[0]
    assert left[1] == left[0]
