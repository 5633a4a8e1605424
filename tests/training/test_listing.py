"""How far runs are, and what they need of the disk."""

import json
import shutil

import pytest
from conftest import one

from pneumo.errors import PneumoError
from pneumo.training import listing


@pytest.fixture
def found(finished, tmp_path):
    """A finished run, one that was stopped, and one whose record is damaged."""
    made = one(finished[0], "exp5")
    for seed in range(3):
        folder = tmp_path / "exp5" / "phantom-mini" / f"fold0-seed{seed}"
        folder.mkdir(parents=True)
        shutil.copy(made / "config.yaml", folder)
        (folder / "last.ckpt").write_bytes(bytes(3_000_000))
        if seed == 0:
            scores = {"dice": 0.5, "dice_positive": None, "iou": 0.25}
            (folder / "metrics.json").write_text(json.dumps(scores))
            (folder / "weights.safetensors").touch()
        if seed == 1:
            (folder / "metrics.csv").write_text("epoch,lr\n0,0.1\n1,0.1\n")
        if seed == 2:
            (folder / "config.yaml").write_text("a: [")
    return listing.find(tmp_path)


def test_runs_say_how_far_they_are(found):
    states = ["finished", "stopped after epoch 2 of 4", "not understood"]
    assert [run.state for run in found] == states
    line = listing.table(found).splitlines()[1]
    assert line.split()[1:] == ["finished", "0.5000", "–", "0.2500", "3"]


def test_only_finished_runs_lose_their_checkpoints(found):
    assert listing.remove_checkpoints(found) == 3_000_000
    assert [(run.folder / "last.ckpt").is_file() for run in found] == [False, True, True]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PneumoError, match=r"runs_dir=.*/absent: no such folder"):
        listing.find(tmp_path / "absent")
