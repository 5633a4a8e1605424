"""A run's maps: continued where they were stopped, made anew where they no longer fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one, write_picture

from pneumo import seals
from pneumo.data import cache
from pneumo.data.settings import OnError
from pneumo.errors import PneumoError
from pneumo.evaluation import blend
from pneumo.inference import mapping, maps
from pneumo.inference.settings import Predict
from pneumo.inference.shards import NotJoined, Shard
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


def contents_of(found):
    """What is known of maps, and the maps themselves."""
    levels = [[one[row] for row in range(len(found))] for one in (found.plain, found.flip)]
    return (found.folder / maps.CONTENTS).read_bytes(), np.array(levels)


class Counting:
    """A function that notes how many films it is given each time."""

    def __init__(self, function, place=0):
        self.function, self.place, self.counts = function, place, []

    def __call__(self, *given):
        self.counts.append(len(given[self.place]))
        return self.function(*given)


@pytest.fixture
def run(predicted, tmp_path, monkeypatch):
    """A finished run without maps, in an empty folder."""
    folder, _ = predicted
    shutil.copytree(folder / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("last.ckpt"))
    monkeypatch.chdir(tmp_path)
    place = one(tmp_path, "exp5")
    shutil.rmtree(place / "predictions")
    return place


@pytest.mark.parametrize("on", ["films", pytest.param("val", marks=pytest.mark.slow)])
def test_maps_in_shards_are_those_of_one_process_bit_for_bit(run, on, monkeypatch):
    """Of the run's own films, and of a folder of others, of which each shard decodes its own.

    One of these cannot be read. That maps are there is then known without a look at any film.
    """
    for number in range(5):
        write_picture(Path("films", f"{number:02d}.png"), (64, 64 + number))
    Path("films", "05.png").write_bytes(b"no film")
    asked = Predict(run=str(run), on=on, batch_size=2)
    asked.on_error = OnError.skip if on == "films" else None
    whole = contents_of(mapping.predict(run, asked, 2))
    shutil.rmtree(run / "predictions")
    decoding = Counting(cache.build)
    monkeypatch.setattr(mapping.cache, "build", decoding)
    for number in (3, 1):
        with pytest.raises(NotJoined):
            mapping.predict(run, asked, 2, shard=Shard(number, 3))
    with pytest.raises(NotJoined, match=rf"shard 2/3 is missing; make it: .* run={run} .*2/3"):
        blend.gather(asked)
    mapping.predict(run, asked, 2, shard=Shard(2, 3))
    if on == "films":
        assert decoding.counts == [2, 2, 2]
    decoding.counts.clear()
    (found,) = blend.gather(asked)
    assert decoding.counts == []
    assert contents_of(found)[0] == whole[0]
    assert np.array_equal(contents_of(found)[1], whole[1])
    assert sorted(path.name for path in found.folder.glob("*of3")) == ["1of3", "2of3", "3of3"]


def test_a_shard_that_is_there_is_made_again_only_for_other_weights(run, monkeypatch):
    called = Counting(mapping.with_flip, place=1)
    monkeypatch.setattr(mapping, "with_flip", called)

    def makes(number, count=2):
        """How many batches were done, and what was said."""
        called.counts.clear()
        try:
            mapping.predict(run, Predict(run=str(run)), 2, shard=Shard(number, count))
        except PneumoError as error:
            return len(called.counts), str(error)
        return len(called.counts), ""

    assert makes(1)[0] == 1
    assert makes(1)[0] == 0
    assert "holds shards of 2; go on with these" in makes(1, 3)[1]
    weights = run / "weights.safetensors"
    torch.manual_seed(1)
    save_weights(build_network(record.read(run).config.model), weights, read_card(weights))
    assert "1/2 is of other weights" in makes(2)[1]
    assert makes(1) == (1, "")
    assert makes(1) == (0, "")  # all are joined
