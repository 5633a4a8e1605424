"""Fits that are finished are used as they are."""

import dataclasses
import shutil

import pytest
from conftest import TINY, one

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.training import lineage
from pneumo.training.record import DataFacts, Origin, Record
from pneumo.training.settings import Blend, System, system_of

SYSTEM = System(name="alone", experiments=["exp5"], overrides=list(TINY[:3]))


def test_a_system_of_finished_fits_trains_nothing_and_has_their_scores(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    run = one(finished[0], "exp5")
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    (row,) = lineage.train_system(SYSTEM, ["+system=alone", *TINY[3:]])
    assert (row["experiment"], row["trained"]) == ("exp5", False)
    assert row["dice"] == runs.read_metrics(run)["dice"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("kept", [True, False])
def test_a_fit_that_was_killed_once_finished_is_tidied_up(finished, tmp_path, monkeypatch, kept):
    """As it was told to when it was trained, whatever is typed now."""
    shutil.copytree(finished[0] / "runs" / "exp5", tmp_path / "runs" / "exp5")
    monkeypatch.chdir(tmp_path)
    run = one(tmp_path, "exp5")
    _, _, record = (run / "config.yaml").read_text().partition("\n")  # without its seal
    told = record.replace("checkpoints: true", f"checkpoints: {str(kept).lower()}")
    (run / "config.yaml").write_text(told)
    (run / "best").mkdir()
    for name in ("best/epoch1.ckpt", "best/1.safetensors", "best.ckpt"):
        (run / name).write_text("x")
    before = {path.name for path in run.rglob("*")}
    lineage.train_system(SYSTEM, ["+system=alone", *TINY[3:]])
    removed = before - {path.name for path in run.rglob("*")}
    assert removed == {"epoch1.ckpt", *(() if kept else ("last.ckpt", "best.ckpt"))}


def test_a_folder_that_holds_another_fit_is_named_with_what_differs(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    with pytest.raises(PneumoError, match=r"data\.max_megapixels: 100 → 50\); keep both with tag="):
        lineage.train_system(SYSTEM, [*TINY[3:], "data.max_megapixels=50"])


def test_a_folder_is_done_if_it_holds_this_very_fit_wherever_and_however_it_was_made(tmp_path):
    config = lineage.declared(["+experiment=exp2", "data=phantom"])
    facts = DataFacts("films", "parts", None, 9, 3, 1, True, 0.0, {})
    Record(config, Origin(), facts).write(tmp_path)
    assert not lineage.is_done(config, tmp_path)
    for name in (runs.WEIGHTS, runs.METRICS):
        (tmp_path / name).touch()
    machine = dataclasses.replace(config.machine, workers=3)
    assert lineage.is_done(dataclasses.replace(config, machine=machine, runs_dir="b"), tmp_path)
    with pytest.raises(PneumoError, match=r"other settings \(recorded → wanted: lr: .* → 0\.5\)"):
        lineage.is_done(dataclasses.replace(config, lr=0.5), tmp_path)


@pytest.mark.parametrize(
    ("typed", "folds"),
    [([], [0, 1, 2, 3, 4]), (["scale=mini"], [0, 1]), (["scale=mini", "scale.folds=3"], [0, 1, 2])],
)
def test_as_many_folds_of_a_system_are_trained_as_its_scale_has(monkeypatch, typed, folds):
    fitted = []
    monkeypatch.setattr(lineage, "declared", lambda overrides: None)
    monkeypatch.setattr(lineage, "train", lambda wanted, overrides: fitted.append(overrides) or [])
    lineage.train_system(system_of("exp5_folds"), ["+system=exp5_folds", *typed])
    own = ["split=kfold5", *typed, "+experiment=exp5"]
    assert fitted == [[*own, f"fold={fold}"] for fold in folds]


def test_a_systems_own_settings_may_limit_its_folds_and_what_is_typed_may_lift_that():
    system = System("few", ["exp5"], [3, 1, 2], Blend.folds, overrides=["scale.folds=2"])
    assert lineage.folds_of(system, []) == [3, 1]
    assert lineage.folds_of(system, ["scale.folds=null"]) == [3, 1, 2]
