"""Fits that are finished are used as they are."""

import pytest
from conftest import TINY, one

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.training import lineage
from pneumo.training.settings import System

SYSTEM = System(name="alone", experiments=["exp5"], overrides=list(TINY[:3]))


def test_a_system_of_finished_fits_trains_nothing_and_has_their_scores(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    run = one(finished[0], "exp5")
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    (row,) = lineage.train_system(SYSTEM, ["+system=alone", *TINY[3:]])
    assert (row["experiment"], row["trained"]) == ("exp5", False)
    assert row["dice"] == runs.read_metrics(run)["dice"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_folder_that_holds_another_fit_is_named_with_what_differs(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    with pytest.raises(PneumoError, match=r"data\.max_megapixels: 100 → 50\); keep both with tag="):
        lineage.train_system(SYSTEM, [*TINY[3:], "data.max_megapixels=50"])
