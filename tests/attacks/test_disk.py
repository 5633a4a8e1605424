"""A full disk, a folder that may not be written to, a file that is gone meanwhile.

One line says so; nothing half-written stays; and the same command goes on once there is room.
"""

import contextlib
import gc
import re
import resource
import shutil
import subprocess

import pytest
from conftest import TINY, say
from starter import VARYING

from pneumo.data import cache
from pneumo.evaluation import blend, members
from pneumo.inference import bundle
from pneumo.training import fit

pytestmark = pytest.mark.slow

RUN = "run=runs/exp5/*/*"
# a command, and what it makes anew if that is not there
COMMANDS = {
    "train": (["train", "+experiment=exp5", *TINY], ["runs/exp5", "runs/cache"]),
    "predict": (["predict", RUN, "on=val"], ["runs/exp5/*/*/predictions"]),
    "evaluate": (["evaluate", RUN, "resamples=20"], ["runs/exp5/*/*/predictions/val/evaluations"]),
    "export": (["export", RUN, "out=model2", "resamples=20", "licence=CC0"], ["model2"]),
    "submission": (["submission", RUN, "on=val", "out=table.csv"], ["table.csv"]),
    "report": (["report", "resamples=5"], ["runs/report"]),
    "apply": (["predict", "model=model", "input=film.dcm", "out=found"], ["found"]),
}


@pytest.fixture(scope="module")
def whole(whole):
    """The same with the maps of a run, and without what is large and not needed."""
    for path in (*whole.rglob("*.ckpt"), *whole.rglob("*.onnx")):
        path.unlink()
    card = bundle.read_card(whole / "model")
    for member in card["members"]:
        del member["onnx"]
    bundle.seals.write_json(whole / "model" / "card.json", card)
    with pytest.MonkeyPatch.context() as patch:
        assert said("predict", whole, patch)[0] == 0
    return whole


def said(command, place, patch):
    """What a command says in a folder, without the times it took."""
    blend._gathered.clear()  # of the same names in a process before
    (module, *arguments), _ = COMMANDS[command]
    status, out, errors = say(module, arguments, place, patch)
    return status, re.sub(r"\d+(\.\d+)? m?s\b", "", out), errors


def without(place, command):
    """Remove what a command makes."""
    for pattern in COMMANDS[command][1]:
        for path in place.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def fresh(whole, place, command):
    """A copy of the folder in which a command has its work still to do."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place)
    without(place, command)
    return place


def files_below(place):
    """Their names, without locks, and without what varies in those of caches."""
    names = {str(path.relative_to(place)) for path in place.rglob("*") if path.name != ".lock"}
    return {VARYING.sub("", name) for name in names}


def one_line(errors, *words):
    """Errors must be one line that holds some words."""
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("error: "), errors
    for word in words:
        assert word in errors, errors


@contextlib.contextmanager
def mounted(place, *options):
    """A file system of its own, where this process may mount one."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"may not mount: {done.stderr}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def full(place, left):
    """A disk with so many bytes left."""
    blend._gathered.clear()  # files that are gone fill the disk as long as they are mapped
    gc.collect()
    ballast = place / "ballast"
    free = shutil.disk_usage(place).free
    with open(ballast, "wb") as file:
        for begin in range(0, max(free - left, 0), 1 << 20):
            file.write(bytes(min(1 << 20, free - left - begin)))
    try:
        yield
    finally:
        ballast.unlink()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_said_and_the_work_goes_on_when_there_is_room(
    whole, command, tmp_path, monkeypatch
):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=160m", "tmpfs") as disk:
        place = fresh(whole, disk / "work", command)
        status, expected, errors = said(command, place, monkeypatch)
        assert status == 0, errors
        there = files_below(place)
        stopped = 0
        lefts = (0, 8_000, 40_000, 200_000, 1_000_000)
        if command == "train":  # its checkpoint has 37 MB
            lefts = (0, 1_000_000, 20_000_000)
        for left in lefts:
            place = fresh(whole, disk / "work", command)
            with full(disk, left):
                status, out, errors = said(command, place, monkeypatch)
            assert [path for path in place.rglob(".*.partial") if path.is_file()] == []
            if status:
                stopped += 1
                one_line(errors, "the disk is full")
                status, out, errors = said(command, place, monkeypatch)
            assert status == 0, (left, errors)
            assert files_below(place) == there, left
            if command != "train":  # which says where it goes on
                assert out == expected
        assert stopped
        print(f"ATTACKS full disk, {command}: {stopped} of {len(lefts)} stopped and went on")


@pytest.mark.parametrize("limit", [0, 500, 5_000, 100_000, 5_000_000])
@pytest.mark.parametrize("command", ["predict", "evaluate", "export", "report", "apply"])
def test_a_file_that_may_not_grow_is_a_full_disk(whole, command, limit, tmp_path, monkeypatch):
    """As quotas have it; it needs no file system of its own."""
    place = fresh(whole, tmp_path / "work", command)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        status, _, errors = said(command, place, monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if status:
        one_line(errors, "the disk is full")
    assert [path for path in place.rglob(".*.partial") if path.is_file()] == []
    status, _, errors = said(command, place, monkeypatch)
    assert status == 0, errors


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_may_not_be_written_to_is_named(whole, command, tmp_path, monkeypatch):
    place = fresh(whole, tmp_path / "work", command)
    with mounted(place, "--bind", str(place)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        before = files_below(place)
        status, _, errors = said(command, place, monkeypatch)
        assert status == 1
        one_line(errors, str(place.name) if str(place) in errors else "ead-only file system")
        assert files_below(place) == before


def test_what_only_reads_needs_no_folder_to_write_to(whole, tmp_path, monkeypatch):
    """A finished run, its maps and a bundle may lie in an archive."""
    place = tmp_path / "work"
    shutil.copytree(whole, place)
    with mounted(place, "--bind", str(place)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        monkeypatch.chdir(place)
        status, _, errors = say("list", [], place, monkeypatch)
        assert status == 0, errors
        status, _, errors = say(
            "predict",
            ["model=model", "input=film.dcm", f"out={tmp_path / 'found'}"],
            place,
            monkeypatch,
        )
        assert status == 0, errors


def gone(path):
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


# what vanishes, before which function is called, in which command
VANISHING = {
    "a film before it is read": ("train", "runs/phantom/**/*.dcm", cache.pool, "each"),
    "the parent's weights": ("train", "runs/exp5_stage1/*/*/*.safetensors", fit, "load_weights"),
    "the run's weights": ("predict", "runs/exp5/*/*/*.safetensors", members.record, "read"),
    "maps": ("evaluate", "runs/exp5/*/*/predictions/val/flip.npy", members.record, "read"),
    "a bundle's weights": ("apply", "model/*.safetensors", bundle, "torch_engine"),
    "a bundle's film list": ("apply", "model/training.json", bundle, "_trained"),
    "the film": ("apply", "film.dcm", bundle, "torch_engine"),
}


@pytest.mark.parametrize("what", VANISHING)
def test_a_file_that_is_gone_meanwhile_is_named(whole, what, tmp_path, monkeypatch):
    command, pattern, module, name = VANISHING[what]
    place = fresh(whole, tmp_path / "work", command)
    path = sorted(place.glob(pattern))[0]
    original = getattr(module, name)

    def after_it_is_gone(*args, **options):
        if path.exists():
            gone(path)
        return original(*args, **options)

    monkeypatch.setattr(module, name, after_it_is_gone)
    status, _, errors = said(command, place, monkeypatch)
    assert not path.exists() or status == 0
    if status:
        one_line(errors, path.name)
    assert status == 1 or what == "maps"  # which are made anew
