"""What a user sees of ``python -m pneumo.predict``: maps on disk that are the network's, re-used,
continued, joined.
"""

import json
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, complaint, launch, one
from PIL import Image

from pneumo import seals
from pneumo.data import csv_files, dicom
from pneumo.errors import PneumoError
from pneumo.evaluation import bundling
from pneumo.evaluation.blend import gather
from pneumo.evaluation.settings import Export
from pneumo.inference import maps
from pneumo.inference.settings import Predict
from pneumo.training import record
from pneumo.training.loader import FilmData
from pneumo.training.network import build_network
from pneumo.training.settings import Blend
from pneumo.training.weights import load_weights


def test_maps_are_those_of_the_network_with_and_without_its_mirror_image(predicted, monkeypatch):
    folder, found = predicted
    monkeypatch.chdir(folder)
    run = one(folder, "exp5")
    declared = record.read(run).config
    data = FilmData(declared)
    data.prepare()
    assert found.ids == [data.films.ids[row] for row in data.parts.validation]
    network = build_network(declared.model, pretrained=False)
    load_weights(network, run / "weights.safetensors")
    network.eval()
    for row in (0, len(found) - 1):
        film = torch.from_numpy(np.array(data.films.images[data.parts.validation[row]]))[None, None]
        with torch.inference_mode():
            plain, mirrored = (network(x).mask.sigmoid()[0, 0] for x in (film, film.flip(-1)))
        assert np.abs(found.plain[row] - plain.numpy() * 255).max() <= 0.51
        assert np.abs(found.flip[row] - (plain + mirrored.flip(-1)).numpy() * 127.5).max() <= 0.51
    assert not np.array_equal(found.plain, found.flip)


def test_a_network_may_see_films_at_another_size_than_in_training(predicted, monkeypatch):
    """The paper tests at 512² what Exp1 and Exp2 trained at 256²."""
    folder, found = predicted
    monkeypatch.chdir(folder)
    run = one(folder, "exp5")
    (larger,) = gather(Predict(run=str(run), size=96))
    assert larger.folder.resolve() == (run / "predictions" / "val-96px").resolve()
    assert (found.plain.shape[1], larger.plain.shape[1]) == (64, 96)
    assert larger.ids == found.ids
    declared = record.read(run).config
    network = build_network(declared.model, pretrained=False)
    load_weights(network, run / "weights.safetensors")
    film = cv2.resize(
        dicom.read(Path(larger.cases[0].path)).pixels, (96, 96), interpolation=cv2.INTER_AREA
    )
    with torch.inference_mode():
        plain = network.eval()(torch.from_numpy(film)[None, None]).mask.sigmoid()[0, 0]
    assert np.abs(larger.plain[0] - plain.numpy() * 255).max() <= 0.51
    assert maps.load(run / "predictions" / "val").plain.shape == found.plain.shape
    card = bundling.export(Export(run=str(run), size=96, out="model-96", resamples=0))
    assert [member["size"] for member in card["members"]] == [96]
    with pytest.raises(PneumoError, match="size=100: must be a multiple of 32"):
        gather(Predict(run=str(run), size=100))


def test_a_second_call_uses_what_is_there(predicted):
    folder, found = predicted
    before = (found.folder / "plain.npy").stat().st_mtime_ns
    done = launch(folder, "run=runs/exp5/*/*", "on=val", module="pneumo.predict")
    assert done.returncode == 0
    assert (found.folder / "plain.npy").stat().st_mtime_ns == before


def test_shards_end_in_the_maps_of_one_process_and_say_what_is_left(predicted, tmp_path):
    folder, found = predicted
    shutil.copytree(folder / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("last.ckpt"))
    shutil.rmtree(one(tmp_path, "exp5") / "predictions")
    asked = ("run=runs/exp5/*/*", "batch_size=2")

    def ask(*more):
        return launch(tmp_path, *asked, *more, module="pneumo.predict")

    assert complaint(ask("shard=3/2")).startswith("error: shard=3/2: must be k/n")
    assert "at most 3 shards" in complaint(ask("shard=1/4"))
    done = ask("shard=2/2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "shard 2/2 is done" in done.stdout
    assert "not joined, shard 1/2 is missing\n" in done.stdout
    for command in ("predict", "evaluate"):
        wanted = ("run=runs/exp5/*/*",)
        line = complaint(launch(tmp_path, *wanted, module=f"pneumo.{command}"))
        made = "python -m pneumo.predict 'run=runs/exp5/*/*' on=val batch_size=2 shard=1/2"
        assert f"make it: {made}; or" in line
    done = launch(tmp_path, *shlex.split(made)[3:], module="pneumo.predict")
    assert "Next: python -m pneumo.evaluate" in done.stdout
    again = maps.load(one(tmp_path, "exp5") / "predictions" / "val")
    assert [again.flip[row].tolist() for row in range(len(found))] == found.flip.tolist()


@pytest.mark.slow
def test_several_runs_on_the_same_films_are_averaged(predicted, tmp_path):
    folder, child = predicted
    both = "run=[runs/exp5/*/*,runs/exp5_stage1/*/*]"
    done = launch(folder, both, "blend=mean", "on=val", module="pneumo.predict")
    assert done.returncode == 0, done.stderr
    parent = maps.load(one(folder, "exp5_stage1") / "predictions" / "val")
    (place,) = (folder / "runs" / "ensembles").glob("*/val")
    mean = maps.load(place)
    assert mean.plain.shape[1:] == (64, 64)
    for row in range(len(mean)):
        expected = (child.map(row, True, 64).astype(float) + parent.map(row, True, 64)) / 2
        assert np.abs(mean.flip[row] - expected).max() <= 0.5


@pytest.mark.slow
def test_a_folder_of_pictures(predicted, tmp_path):
    """No table, odd sizes, names with blanks: each film gets its map under its file name."""
    folder, _ = predicted
    rng = np.random.default_rng(0)
    films = tmp_path / "some films"
    for name, shape in (("a film", (300, 200)), ("b", (64, 64)), ("nested/c", (1024, 1100))):
        (films / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(films / f"{name}.png")
    done = launch(folder, "run=runs/exp5/*/*", f"on={films}", module="pneumo.predict")
    assert done.returncode == 0, done.stderr
    made = (one(folder, "exp5") / "predictions").glob("some films-*")
    (place,) = (path for path in made if path.suffix != ".lock")
    found = maps.load(place)
    assert found.ids == ["a film", "b", "c"]
    assert not found.labelled
    line = complaint(launch(folder, "run=runs/exp5/*/*", f"on={films}", module="pneumo.evaluate"))
    assert "annotations=" in line


@pytest.mark.slow
def test_the_round_1_test_set_and_how_much_of_it_was_trained_on(real_data, tmp_path, monkeypatch):
    """Of the 71 real films, some are of the round-1 test set; a run on round 2 has trained on most
    of them.
    """
    siim_data = real_data / "siim"
    where = (f"data.root={siim_data}", f"data.annotations={siim_data}/stage_2_train.csv.gz")
    done = launch(
        tmp_path,
        "+experiment=exp2",
        "data=siim",
        "data.on_missing=skip",
        *where,
        *TINY[3:],
        "epochs=1",
        "averaging.epochs=1",
    )
    assert done.returncode == 0, done.stderr
    assert "ids=" in complaint(
        launch(tmp_path, "run=runs/exp2/*/*", "on=test", module="pneumo.predict")
    )
    ids = f"ids={siim_data}/stage_1_sample_submission.csv"
    done = launch(
        tmp_path,
        "run=runs/exp2/*/*",
        "on=test",
        ids,
        "tune=none",
        "resamples=0",
        module="pneumo.evaluate",
    )
    assert done.returncode == 0, done.stderr
    found = maps.load(one(tmp_path, "exp2") / "predictions" / "test")
    assert set(found.ids) <= set(csv_files.read_ids(siim_data / "stage_1_sample_submission.csv"))
    seen = found.contents["seen_in_training"]
    assert 0 < seen <= len(found)
    assert f"WARNING: {seen} of these films were in the training data" in done.stdout
    assert (
        f"WARNING: {1372 - len(found):,} films that belong to this set are not here" in done.stdout
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device it should not have")
def test_a_device_that_is_not_there_is_one_line(finished, tmp_path):
    shutil.copytree(
        finished[0] / "runs",
        tmp_path / "runs",
        ignore=shutil.ignore_patterns("predictions", "last.ckpt"),
    )
    wanted = ("run=runs/exp5_stage1/*/*", "machine.accelerator=cuda")
    assert "cuda" in complaint(launch(tmp_path, *wanted, module="pneumo.predict"))


def test_runs_that_are_no_folds_of_one_cross_validation_are_not_joined(
    predicted, tmp_path, monkeypatch
):
    folder, _ = predicted
    shutil.copytree(folder / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("last.ckpt"))
    monkeypatch.chdir(tmp_path)
    run = one(tmp_path, "exp5")
    other = run.with_name("other")
    shutil.copytree(run, other)
    contents = seals.read_json(other / "predictions" / "val" / "contents.json")
    for film in contents["films"]:
        film["id"] += "x"
    (other / "predictions" / "val" / "contents.json").write_text(json.dumps(contents))
    for blend, message in (("mean", "different films"), ("mean_folds", "not the folds")):
        settings = Predict(run=[str(run), str(other)], blend=Blend[blend])
        with pytest.raises(PneumoError, match=message):
            gather(settings)


def test_a_run_can_be_named_from_within_its_folder(predicted, monkeypatch):
    folder, found = predicted
    monkeypatch.chdir(one(folder, "exp5"))
    assert gather(Predict(run="."))[0].ids == found.ids


def test_new_truth_for_a_folder_is_counted_anew(predicted, tmp_path, monkeypatch):
    """In one process, too: nothing is kept of the truth before."""
    folder, _ = predicted
    monkeypatch.chdir(folder)
    films = tmp_path / "films"
    films.mkdir()
    for name in "ab":
        Image.fromarray(np.full((64, 64), 99, np.uint8)).save(films / f"{name}.png")
    run, counted = str(one(folder, "exp5_stage1")), []
    for text in ("-1", "0 65536"):
        table = tmp_path / f"{len(text)}.csv"
        table.write_text(f"ImageId,EncodedPixels\na,{text}\nb,-1\n")
        (part,) = gather(Predict(run=run, on=str(films), annotations=str(table)))
        counted.append(part.histograms(True).truth.tolist())
    assert counted == [[0, 0], [65536, 0]]
