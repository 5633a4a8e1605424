"""Files of finished runs, caches, maps and bundles that are cut short or have a byte changed.

Whatever reads them says so in one line that names the file, or gives what it gives of whole files.
"""

import hashlib
import os
import random
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, say

from pneumo import runs
from pneumo.data import cache, dicom
from pneumo.errors import PneumoError
from pneumo.evaluation import blend
from pneumo.inference import bundle, maps
from pneumo.settings import Machine
from pneumo.training import record
from pneumo.training.weights import read_card, read_checkpoint, read_weights

pytestmark = pytest.mark.slow

RUN = "run=runs/exp5/*/*"
# what is done with the files of one folder, one after the other, each by its own words
COMMANDS = {
    "train": ("train", "+experiment=exp5", *TINY),
    "predict": ("predict", RUN, "on=val"),
    "evaluate": ("evaluate", RUN, "resamples=20"),
    "export": ("export", RUN, "out=model2", "resamples=20", "licence=CC0"),
    "submission": ("submission", RUN, "on=val", "out=submission.csv"),
    "report": ("report", "resamples=5"),
    "list": ("list",),
    "apply": ("predict", "model=model", "input=film.dcm", "out=found"),
    "apply by torch": ("predict", "model=model", "input=film.dcm", "out=found", "engine=torch"),
}


def damages(path, seed, flips):
    """Damage a file in place, one way after the other: cut short, or a byte changed at random.

    Yields what was done; afterwards the file is whole again.
    """
    content = path.read_bytes()
    for length in (0, len(content) // 2, len(content) - 1):
        os.truncate(path, length)
        yield f"{length} of {len(content)} bytes"
        patch(path, length, content[length:])
    chance = random.Random(seed)
    for _ in range(flips):
        place, bits = chance.randrange(len(content)), chance.randrange(1, 256)
        patch(path, place, bytes([content[place] ^ bits]))
        yield f"byte {place} ^ {bits}"
        patch(path, place, content[place : place + 1])
    assert path.read_bytes() == content


def patch(path, place, content):
    """Write some bytes into a file."""
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(content)


@pytest.fixture(scope="module")
def whole(whole):
    """The same with the maps of a run, its scores and a report."""
    with pytest.MonkeyPatch.context() as patch:
        for command in ("predict", "evaluate", "report"):
            status, _, errors = said(command, whole, patch)
            assert status == 0, errors
    return whole


def said(command, place, patch):
    """What a command says in a folder, without the times it took."""
    blend._gathered.clear()  # of the same names in a process before
    module, *arguments = COMMANDS[command]
    status, out, errors = say(module, arguments, place, patch)
    return status, re.sub(r"\d+(\.\d+)? m?s\b", "", out), errors


def content_of(value):
    """A digest of arrays and tensors in lists and dictionaries."""
    whole = hashlib.sha256()

    def add(one):
        if isinstance(one, dict):
            for key in sorted(one, key=str):
                whole.update(str(key).encode())
                add(one[key])
        elif isinstance(one, list | tuple):
            for each in one:
                add(each)
        elif isinstance(one, torch.Tensor):
            whole.update(one.contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(one, np.ndarray):
            whole.update(np.ascontiguousarray(one))
        else:
            whole.update(repr(one).encode())

    add(value)
    return whole.hexdigest()


def the_maps(folder):
    found = maps.load(folder)
    each = [found.map(row, tta, 64) for row in range(len(found)) for tta in (False, True)]
    counted = [found.histograms(tta) for tta in (False, True)]
    contents = {key: found.contents[key] for key in ("key", "size", "on", "weights", "left_out")}
    return [found.cases, each, [list(one) for one in counted], contents]


def the_cache(folder):
    found = cache._open(folder)
    for row in range(len(found.ids)):
        found.verify(row)
    return [found.ids, np.array(found.images), np.array(found.masks), found.left_aside]


def the_bundle(folder, engine):
    found = bundle.load(folder, Machine(threads=1), engine)
    levels, presence = found.says(dicom.read(folder.parent / "film.dcm").pixels)
    trained = found.trained.to_dict()
    told = [found.rule, found.curve, found.roles, found.card["scores"], found.card["limits"]]
    return [levels, presence, trained, told]


# by what a file is, or its folder: how its readers read it, and how often a byte of it is changed
READERS = {
    "config.yaml": (lambda path: vars(record.read(path.parent)), 60),
    "metrics.json": (lambda path: runs.read_metrics(path.parent), 60),
    "metrics.csv": (lambda path: runs.history(path.parent), 20),
    "parts.json": (lambda path: record.parts_of(path.parent), 40),
    "weights.safetensors": (lambda path: [read_card(path), read_weights(path, "run")], 40),
    "last.ckpt": (read_checkpoint, 8),
    "predictions/val/*": (lambda path: the_maps(path.parent), 30),
    "cache/*/*": (lambda path: the_cache(path.parent), 30),
    "model/card.json": (lambda path: the_bundle(path.parent, "torch"), 40),
    "model/training.json": (lambda path: the_bundle(path.parent, "torch"), 20),
    "model/*.safetensors": (lambda path: the_bundle(path.parent, "torch"), 20),
    "model/*.onnx": (lambda path: the_bundle(path.parent, "onnx"), 20),
}


@pytest.mark.parametrize("kind", READERS)
def test_no_reader_takes_a_damaged_file_for_a_whole_one(whole, kind):
    read, flips = READERS[kind]
    paths = [path for path in sorted(whole.rglob(kind)) if path.is_file() and path.name != ".lock"]
    assert paths
    noticed = equal = 0
    for path in paths:
        expected = content_of(read(path))
        for how in damages(path, path.name, flips):
            try:
                found = content_of(read(path))
            except PneumoError as error:
                noticed += 1
                text = str(error)
            else:
                equal += 1
                assert found == expected, (path, how)
                continue
            assert path.name in text or str(path.parent) in text, (how, text)
            assert "\n" not in text, (how, text)
    print(f"ATTACKS {kind}: {len(paths)} files, {noticed} noticed, {equal} with the same result")


# which commands read a file, or do work that rests on it
TOUCHED = {
    "exp5/*/*/config.yaml": ("train", "evaluate", "report", "list"),
    "exp5/*/*/weights.safetensors": ("train", "evaluate", "export"),
    "exp5/*/*/metrics.json": ("train", "report", "list"),
    "exp5/*/*/metrics.csv": ("report", "list"),
    "exp5/*/*/parts.json": ("train", "evaluate", "export"),
    "exp5/*/*/predictions/val/plain.npy": ("evaluate",),
    "exp5/*/*/predictions/val/flip.npy": ("evaluate", "export", "submission"),
    "exp5/*/*/predictions/val/contents.json": ("evaluate", "export", "submission"),
    "exp5/*/*/predictions/val/histograms.npz": ("evaluate", "report"),
    "exp5/*/*/predictions/val/evaluations/*.json": ("evaluate",),
    "exp5_stage1/*/*/config.yaml": ("evaluate", "report"),
    "exp5_stage1/*/*/metrics.csv": ("report",),
    "exp5_stage1/*/*/parts.json": ("export",),
    "model/card.json": ("apply",),
    "model/training.json": ("apply",),
    "model/*.safetensors": ("apply by torch",),
    "model/*.onnx": ("apply",),
}
# work that is not finished yet: what is removed beforehand, and what it then reads
UNFINISHED = {
    "exp5/*/*/last.ckpt": ("train", "exp5/*/*/metrics.json"),
    "exp5/*/*/config.yaml": ("train", "exp5/*/*/metrics.json"),
    "exp5/*/*/parts.json": ("train", "exp5/*/*/metrics.json"),
    "exp5/*/*/metrics.csv": ("train", "exp5/*/*/metrics.json"),
    "exp5_stage1/*/*/weights.safetensors": ("train", "exp5/*/*/metrics.json"),
    "cache/64px-*/images.npy": ("predict", "exp5/*/*/predictions"),
    "cache/64px-*/masks.npy": ("predict", "exp5/*/*/predictions"),
    "cache/64px-*/contents.json": ("predict", "exp5/*/*/predictions"),
    "exp5/*/*/weights.safetensors": ("predict", "exp5/*/*/predictions"),
}


MAPS = "exp5/*/*/predictions"
_expected = {}  # what commands say of whole files


def copied(whole):
    """The folder anew, its files shared with the first one's until they are replaced."""
    place = whole.with_name("work")
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place, copy_function=os.link)
    return place


def attack(whole, kind, command, monkeypatch, without=None):
    """Damage every file of a kind and let a command read it: how often it was noticed, and not."""
    below = whole if kind.startswith("model") else whole / "runs"
    paths = [path.relative_to(whole) for path in below.glob(kind)]
    if kind.startswith("cache"):
        (run,) = (whole / "runs" / "exp5").glob("*/*")
        own = record.read(run).data.films
        paths = [path for path in paths if path.parent.name == own]
    assert paths
    noticed = equal = 0

    def tried(path, damaged, *others):
        place = copied(whole)
        (place / path).unlink()
        shutil.copy(damaged, place / path)
        for pattern in filter(None, (without, *others)):
            (gone,) = (place / "runs").glob(pattern)
            if gone.is_dir():
                shutil.rmtree(gone)
            else:
                gone.unlink()
        return said(command, place, monkeypatch)

    def expected(path):
        """What it says of whole files, and where maps are missing, which are made anew."""
        key = (command, without, MAPS in kind)
        if key not in _expected:
            others = [MAPS] if MAPS in kind else []
            whole_one = whole / path
            outcomes = [tried(path, whole_one), *(tried(path, whole_one, one) for one in others)]
            _expected[key] = outcomes
        return _expected[key]

    damaged = whole.with_name("damaged")
    for path in paths:
        shutil.copy(whole / path, damaged)
        for how in damages(damaged, f"{kind} {command}", flips=2):
            status, out, errors = tried(path, damaged)
            if status == 0:
                equal += 1
                assert (status, out, errors) in expected(path), (path, how)
                continue
            noticed += 1
            assert status == 1, (path, how, errors)
            lines = errors.splitlines()
            assert len(lines) == 1, (path, how, errors)
            assert path.name in errors or str(path.parent) in errors, (path, how, errors)
    print(f"ATTACKS {command} with {kind}: {noticed} noticed, {equal} with the same result")


@pytest.mark.parametrize("kind", TOUCHED)
def test_commands_refuse_damaged_files_in_one_line(whole, kind, monkeypatch):
    for command in TOUCHED[kind]:
        attack(whole, kind, command, monkeypatch)


@pytest.mark.parametrize("kind", UNFINISHED)
def test_work_does_not_go_on_from_damaged_files(whole, kind, monkeypatch):
    command, without = UNFINISHED[kind]
    attack(whole, kind, command, monkeypatch, without)
