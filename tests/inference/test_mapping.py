"""A run's maps: continued where they were stopped, made anew where they no longer fit."""

import shutil

import numpy as np
import pytest
import torch
from conftest import one

from pneumo import seals
from pneumo.errors import PneumoError
from pneumo.inference import mapping
from pneumo.inference.settings import Predict
from pneumo.training import record
from pneumo.training.network import build_network
from pneumo.training.weights import read_card, save_weights


def test_interrupted_work_goes_on_to_the_same_maps(predicted, tmp_path, monkeypatch):
    folder, found = predicted
    shutil.copytree(folder / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    run = one(tmp_path, "exp5")
    shutil.rmtree(run / "predictions")
    real, calls = mapping.with_flip, []

    def failing(engine, films):
        calls.append(len(films))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(engine, films)

    monkeypatch.setattr(mapping, "with_flip", failing)
    monkeypatch.setattr(mapping, "FLUSH", 1)
    settings = Predict(run=str(run), batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        mapping.predict(run, settings, 2)
    assert not (run / "predictions" / "val").exists()
    again = mapping.predict(run, settings, 2)
    assert sum(calls[3:]) == len(again) - 4
    assert np.array_equal(again.plain, found.plain)
    assert np.array_equal(again.flip, found.flip)


def test_another_network_makes_other_maps(predicted, tmp_path, monkeypatch):
    folder, found = predicted
    shutil.copytree(folder / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    run = one(tmp_path, "exp5")
    weights = run / "weights.safetensors"
    declared = record.read(run).config
    torch.manual_seed(1)
    save_weights(build_network(declared.model), weights, read_card(weights))
    again = mapping.predict(run, Predict(run=str(run)))
    assert not np.array_equal(again.plain, found.plain)


@pytest.mark.parametrize("name", ["flip.npy", "contents.json", "plain.npy"])
def test_damaged_predictions_are_made_anew(predicted, tmp_path, monkeypatch, name):
    folder, found = predicted
    shutil.copytree(folder / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("last.ckpt"))
    monkeypatch.chdir(tmp_path)
    run = one(tmp_path, "exp5")
    broken = run / "predictions" / "val" / name
    broken.write_bytes(broken.read_bytes()[:1000])
    again = mapping.predict(run, Predict(run=str(run)))
    assert np.array_equal(again.flip, found.flip)


def test_a_moved_runs_folder_keeps_its_cache_and_maps(predicted, tmp_path, monkeypatch):
    folder, found = predicted
    shutil.copytree(folder / "runs", tmp_path / "elsewhere")
    contents = seals.read_json(found.folder / "contents.json")
    moved = tmp_path / "elsewhere" / found.folder.relative_to(folder / "runs")
    monkeypatch.chdir(tmp_path)
    run = moved.parents[1]
    again = mapping.predict(run, Predict(run=str(run)))
    assert again.contents["key"] == contents["key"]


def test_annotations_that_changed_since_training_are_refused(predicted, tmp_path, monkeypatch):
    folder, _ = predicted
    shutil.copytree(
        folder / "runs",
        tmp_path / "runs",
        ignore=shutil.ignore_patterns("last.ckpt", "predictions"),
    )
    monkeypatch.chdir(tmp_path)
    (table,) = (tmp_path / "runs" / "phantom").glob("24-*/train-rle.csv")
    table.write_text(table.read_text().replace(" 1 ", " 2 ", 1))
    run = one(tmp_path, "exp5")
    with pytest.raises(
        PneumoError, match=r"annotations of .* are not those this run was trained on"
    ):
        mapping.predict(run, Predict(run=str(run)))
