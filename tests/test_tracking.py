"""Weights & Biases is told what it should be, and stops nothing."""

import sys
from types import SimpleNamespace

import pytest

from pneumo import tracking
from pneumo.settings import Tracking, Wandb


class Run:
    """Stands in for a run of its client."""

    def __init__(self):
        self.summary, self.logged, self.finished = {}, [], False
        self.log = self.logged.append

    def finish(self):
        self.finished = True


@pytest.fixture
def run(monkeypatch):
    """The run that is started, with the client's tables as plain pairs."""
    made = Run()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Table=lambda *pair: pair))
    monkeypatch.setattr(tracking, "start", lambda *args, **about: made)
    return made


def test_it_is_asked_for_nothing_where_it_is_disabled(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)  # to import it would fail
    assert tracking.start(Tracking(), tmp_path) is None  # by the variable, see conftest.py
    monkeypatch.delenv("WANDB_MODE")
    assert tracking.start(Tracking(wandb=Wandb.disabled), tmp_path) is None
    assert caplog.messages == []
    assert tracking.start(Tracking(wandb=Wandb.offline), tmp_path) is None
    (said,) = caplog.messages
    assert said.startswith("Weights & Biases is not available and is left out")


def test_numbers_tables_and_figures_arrive(run, tmp_path):
    tables = {"scores": (("name", "value"), [("dice", 0.5)])}
    tracking.record(Tracking(), tmp_path, {"dice": 0.5}, tables, {"plot": "a figure"})
    assert run.summary == {"dice": 0.5}
    assert run.logged == [{"scores": (["name", "value"], [["dice", 0.5]]), "plot": "a figure"}]
    assert run.finished


def test_its_failures_are_one_line(run, tmp_path, caplog):
    def fail(values):
        raise RuntimeError("no\nconnection")

    run.log = fail
    tracking.record(Tracking(), tmp_path, {"dice": 0.5})
    assert caplog.messages == ["Weights & Biases failed and is left out (no connection)"]
