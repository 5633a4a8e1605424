"""What is asked for becomes fits, each once, parents before children."""

from pathlib import Path

import pytest

from pneumo.cluster import graph
from pneumo.cluster.graph import Graph
from pneumo.errors import PneumoError
from pneumo.training import lineage
from pneumo.training.settings import Blend, System

MINI = ("data=phantom", "scale=mini")


def names(fits):
    return [fit.config.experiment for fit in fits]


def test_a_sweep_makes_a_shared_parent_once_with_its_own_command():
    fits = [
        fit
        for experiment in ("exp3", "exp2")
        for fit in graph.of_experiment([f"+experiment={experiment}", *MINI])
    ]
    made = Graph(fits)
    assert names(made.left) == ["exp2", "exp3"]
    exp2, exp3 = made.left
    assert (exp2.parent, exp3.parent) == (None, exp2.path)
    assert exp2.overrides == ["+experiment=exp2", *MINI]
    assert made.waits_for(exp3) == [exp2.path]
    made.done.add(exp2.path)
    assert made.waits_for(exp3) == []
    assert names(made.left) == ["exp3"]


def test_what_led_to_a_finished_fit_is_not_made_again(monkeypatch):
    monkeypatch.setattr(lineage, "is_done", lambda one, folder: one.experiment == "exp5")
    made = Graph(graph.of_experiment(["+experiment=exp5", *MINI]))
    assert names(made.fits.values()) == ["exp5"]
    assert made.left == []
    monkeypatch.undo()
    both = Graph(graph.of_experiment(["+experiment=exp5", *MINI]))
    stage1, exp5 = both.left
    assert stage1.overrides == exp5.overrides  # the command of its child makes it too
    both.check()  # its parent's weights are to come


def test_two_fits_of_one_folder_are_refused():
    fits = [
        fit
        for rate in ("0.1", "0.2")
        for fit in graph.of_experiment(["+experiment=exp2", *MINI, f"lr={rate}", "variant=one"])
    ]
    with pytest.raises(PneumoError, match=r"exp2.*asked for twice.*lr: 0\.1 → 0\.2.*variant="):
        Graph(fits)


def test_a_system_has_all_its_experiments_and_folds():
    system = System("two", ["exp1"], [0, 1], Blend.folds, overrides=["split=kfold5"])
    made = Graph(graph.of_system(system, ["+system=two", *MINI]))
    assert names(made.left) == ["exp1"] * 2
    assert [fit.config.fold for fit in made.left] == [0, 1]
    assert {fit.config.split.kind.name for fit in made.left} == {"kfold"}


def test_a_fit_that_is_bound_to_fail_is_refused_before_any_begins(tmp_path):
    own = ["+experiment=exp2", *MINI, f"init_from={tmp_path / 'none.safetensors'}"]
    with pytest.raises(PneumoError, match="no such file"):
        Graph(graph.of_experiment(own)).check()
    assert not list(Path(tmp_path).iterdir())
