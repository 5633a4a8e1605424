"""A fit goes on only with what it began with, and its checkpoints are whole."""

import os
import shutil

import pytest
import torch
from conftest import one

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.training import fit, record


@pytest.fixture
def interrupted(finished, tmp_path, monkeypatch):
    """A run that has its checkpoint, but no scores yet."""
    unneeded = shutil.ignore_patterns("predictions", "metrics.json", "weights.safetensors")
    shutil.copytree(finished[0] / "runs", tmp_path / "runs", ignore=unneeded)
    monkeypatch.chdir(tmp_path)
    return one(tmp_path, "exp5_stage1")


@pytest.mark.parametrize("kind", ["films", "parts"])
def test_an_interrupted_fit_does_not_go_on_with_other_data(interrupted, kind):
    about = record.read(interrupted)
    setattr(about.data, kind, "another")
    about.write(interrupted)
    before = (interrupted / "last.ckpt").read_bytes()
    with pytest.raises(PneumoError, match="its data changed since this run was interrupted"):
        fit.fit(about.config, interrupted)
    assert (interrupted / "last.ckpt").read_bytes() == before


def test_a_finished_run_says_what_it_took(finished):
    cost = runs.read_metrics(one(finished[0], "exp5"))
    assert cost["train_seconds"] > 0
    assert cost["device"] == "cpu" or torch.cuda.is_available()
    about = runs.scores(one(finished[0], "exp5"))
    assert "dice" in about
    assert "train_seconds" not in about


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    path, disk = tmp_path / "last.ckpt", fit.WholeCheckpointIO()
    disk.save_checkpoint({"epoch": 1}, path)

    def full(number):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        disk.save_checkpoint({"epoch": 2}, path)
    assert disk.load_checkpoint(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
