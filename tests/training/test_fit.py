"""A fit goes on only with what it began with, and its checkpoints are whole."""

import csv
import dataclasses
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, launch, one, slow_but, write_film
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file

from pneumo import files, runs
from pneumo.errors import PneumoError
from pneumo.masks.truth import Truth
from pneumo.settings import CONF, Machine
from pneumo.training import fit, record
from pneumo.training.loader import FilmData
from pneumo.training.record import Origin, Parent, Record
from pneumo.training.settings import load_config
from pneumo.training.weights import read_card


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


@pytest.fixture
def begun(tmp_path):
    """A fit of twelve small films that was interrupted; it began from given weights, or none."""

    def made(weights=None):
        table = ["ImageId,EncodedPixels"]
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
            (tmp_path / "films").mkdir(exist_ok=True)
            write_film(tmp_path / "films" / f"{number}.dcm", pixels)
            table.append(f"{number},{'3 5' if number % 3 == 0 else -1}")
        (tmp_path / "table.csv").write_text("\n".join(table))
        data = [
            "data=siim",
            f"data.root={tmp_path}/films",
            f"data.annotations={tmp_path}/table.csv",
        ]
        own = ["resolution.size=32", "split.validation=0.25", f"runs_dir={tmp_path}/runs"]
        parent = None
        if weights:
            own.append(f"init_from={weights}")
            parent = Parent(str(weights), files.sha256(weights))
        with initialize_config_dir(CONF, version_base="1.3"):
            config = load_config(compose("train", ["+experiment=exp2", *data, *own]))
        films = FilmData(config)
        films.prepare()
        Record(config, Origin(), films.facts(), parent).write(config.path)
        files.write_json(config.path / runs.PARTS, films.parts_by_id())
        (config.path / runs.CHECKPOINT).touch()
        return config

    return made


class WentOn(Exception):
    pass


def goes_on(config, monkeypatch):
    """Resume a fit as far as its network."""

    def build(*_, **__):
        raise WentOn

    monkeypatch.setattr(fit, "build_network", build)
    fit.fit(config, config.path)


def test_a_fit_on_several_nodes_saves_its_record_and_says_what_to_type_there(begun):
    config = begun()
    folder = config.path
    for name in (runs.CHECKPOINT, runs.RECORD, runs.PARTS):
        (folder / name).unlink()
    (folder / runs.PLAN).touch()  # of what was handed over before
    nodes = Machine(accelerator="cpu", nodes=2)
    with pytest.raises(PneumoError, match=r"config\.yaml is saved; .*: torchrun --nnodes=2 "):
        fit.fit(dataclasses.replace(config, machine=nodes), folder)
    saved = record.read(folder)
    assert saved.config.machine == nodes
    assert saved.differs_from_one_device[2:] == [
        "an epoch that is shorter than a batch lacks up to 1 film"
    ]
    assert sorted(path.name for path in folder.iterdir()) == [runs.RECORD, runs.PARTS]


def test_a_fit_that_goes_on_on_several_devices_says_so_in_its_record(begun, monkeypatch):
    config = begun()
    several = dataclasses.replace(config, machine=Machine(accelerator="cpu", devices=2))
    with pytest.raises(WentOn):
        goes_on(several, monkeypatch)
    assert "dropout" in record.read(config.path).differs_from_one_device[0]


@pytest.mark.parametrize("change", slow_but(["parts", "parent"], ["", "masks", "parts", "parent"]))
def test_a_resumed_fit_goes_on_with_the_films_parts_and_parent_it_began_with(
    begun, tmp_path, monkeypatch, change
):
    weights = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    config = begun(weights)
    if change == "masks":
        table = tmp_path / "table.csv"
        table.write_text(table.read_text().replace("3,3 5", "3,3 6"))
    elif change == "parts":
        parts = record.parts_of(config.path)
        held, trained = (next(iter(parts[name])) for name in ("validation", "training"))
        parts["validation"][trained] = parts["training"].pop(trained)
        parts["training"][held] = parts["validation"].pop(held)
        files.write_json(config.path / runs.PARTS, parts)
    elif change == "parent":
        save_file({"a": torch.ones(1)}, weights)
    if not change:
        with pytest.raises(WentOn):
            goes_on(config, monkeypatch)
        return
    what = "parent" if change == "parent" else "data"
    with pytest.raises(PneumoError, match=f"its {what} changed since this run was interrupted"):
        goes_on(config, monkeypatch)


def test_a_child_has_its_parents_parts_and_is_not_judged_on_what_its_parent_was_trained_on(begun):
    parent = begun()
    weights = parent.path / runs.WEIGHTS
    child = dataclasses.replace(parent, experiment="exp3", init_from=str(weights))
    parts = json.loads((parent.path / runs.PARTS).read_text())
    assert fit._division(child, child.path) == parts
    other = dataclasses.replace(child, fold=1)
    assert fit._division(other, other.path) is None
    fit._check_apart(weights, SimpleNamespace(parts_by_id=lambda: parts))
    swapped = {"training": parts["validation"], "validation": parts["training"]}
    with pytest.raises(PneumoError, match="trained on 9 of the 9 validation films"):
        fit._check_apart(weights, SimpleNamespace(parts_by_id=lambda: swapped))


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


SHORT = [*(word for word in TINY if not word.startswith("averaging")), "averaging=none"]


@pytest.mark.slow
def test_best_epochs_stay_beside_the_weights_and_a_child_that_is_no_better_hands_them_on(
    finished, tmp_path
):
    shutil.copytree(finished[0] / "runs" / "phantom", tmp_path / "runs" / "phantom")
    own = ("handoff.source=best", "handoff.score=dice", "handoff.keep=3", "log.checkpoints=false")
    done = launch(tmp_path, "+experiment=exp2", *SHORT, *own, "scheduler=plateau_sneddy")
    assert done.returncode == 0, done.stderr
    parent = one(tmp_path, "exp2")
    with open(parent / "metrics.csv", newline="") as file:
        scores = [float(row["val/dice"]) for row in csv.DictReader(file)]
    ranked = sorted(range(4), key=lambda epoch: -scores[epoch])[:3]
    kept = runs.checkpoints(parent)
    assert [path.relative_to(parent).as_posix() for path in kept] == [
        f"best/{rank}.safetensors" for rank in (1, 2, 3)
    ]
    assert not list(parent.rglob("*.ckpt"))
    cards = [read_card(path) for path in kept]
    assert [card["epoch"] for card in cards] == ranked
    assert [card["score"]["value"] for card in cards] == pytest.approx([scores[i] for i in ranked])
    first, weights = load_file(kept[0]), load_file(parent / runs.WEIGHTS)
    assert all(torch.equal(weights[key], first[key]) for key in weights)
    about = read_card(parent / runs.WEIGHTS)
    assert about["validation"] == pytest.approx(cards[0]["validation"], abs=1e-5)
    assert about.keys() < cards[0].keys()

    still = ("lr=1e-12", "optimizer.freeze_batch_norm=true", "stopping.patience=2")
    start = (f"init_from={parent / runs.WEIGHTS}", "handoff.inherit=true")
    done = launch(tmp_path, "+experiment=exp2", *SHORT, *own, *still, *start, "variant=child")
    assert done.returncode == 0, done.stderr
    assert "stopped early: no better dice in 2 epochs" in done.stdout
    child = next((tmp_path / "runs" / "exp2").glob("*/*child"))
    said = runs.read_metrics(child)["weights"]
    assert said == "those it started from: no epoch was better by dice"
    theirs = load_file(child / runs.WEIGHTS)
    assert all(torch.equal(weights[key], theirs[key]) for key in weights)
    assert [read_card(path)["epoch"] for path in runs.checkpoints(child)] == [0, 1]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["handoff.keep=2"], r"handoff\.score=dice_positive: .* labels of whole films alone"),
        (["stopping.patience=3"], r"handoff\.score=dice_positive: a score of masks"),
        (["scheduler=plateau", "scheduler.watched=dice"], r"use scheduler\.watched=loss"),
    ],
)
def test_a_fit_does_not_go_by_scores_of_masks_where_there_are_none(typed, message):
    with initialize_config_dir(CONF, version_base="1.3"):
        config = load_config(compose("train", ["+experiment=goossen_cnn", *typed]))
    fit._check_watched(config, 5, Truth.masks)
    with pytest.raises(PneumoError, match=message):
        fit._check_watched(config, 5, Truth.labels)
    with initialize_config_dir(CONF, version_base="1.3"):
        plain = load_config(compose("train", ["+experiment=goossen_cnn", "scheduler=plateau"]))
    fit._check_watched(plain, 5, Truth.labels)


class TwoBatches:
    """Stands in for data of which nothing is read."""

    epochs_differ = False

    def batches(self, epoch):
        return 2


@pytest.fixture
def torch_as_it_comes(monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(False)


def test_a_deterministic_fit_fills_no_memory_before_it_is_written(tmp_path, torch_as_it_comes):
    """Torch's default for deterministic algorithms; it made a step a tenth slower."""
    with initialize_config_dir(CONF, version_base="1.3"):
        config = load_config(
            compose("train", ["+experiment=exp5", "data=phantom", "log.pictures=0"])
        )
    fit._trainer(config, tmp_path, TwoBatches(), [])
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
