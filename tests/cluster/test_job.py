"""A planned fit as a process of its own: what it records, and how it ends."""

import sys

import pytest
from cluster import stand_ins

from pneumo.cluster import job
from pneumo.cluster.job import FAILED, STOPPED, Job
from pneumo.errors import PneumoError
from pneumo.training import lineage


@pytest.fixture
def planned(tmp_path):
    fit = stand_ins.fit(tmp_path, "alone")
    Job.of(fit, "local").write(fit.path)
    return fit


def end(monkeypatch, how):
    """Have the training end like that; returns what it was started with."""
    made = []

    def make(config):
        made.append((config, list(sys.argv)))
        if how is not None:
            raise how

    monkeypatch.setattr(sys, "argv", ["pneumo.cluster.job"])
    monkeypatch.setattr(lineage, "make", make)
    return made


def test_it_makes_the_planned_fit_under_the_command_of_a_training(planned, monkeypatch):
    made = end(monkeypatch, None)
    assert job.run(planned.path) == 0
    ((config, typed),) = made
    assert (config.path, config.epochs) == (planned.path, 4)
    assert typed == ["pneumo.train", "+experiment=alone"]


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        (PneumoError("data.root=x: no such folder"), FAILED, "data.root=x: no such folder\n"),
        (RuntimeError("CUDA out of memory"), FAILED, "not enough memory; try a smaller"),
        (KeyboardInterrupt(), STOPPED, None),
    ],
)
def test_a_mistake_is_one_line_that_stays_until_the_next_attempt(
    planned, monkeypatch, capsys, how, status, line
):
    end(monkeypatch, how)
    assert job.run(planned.path) == status
    kept = planned.path / job.FAILURE
    assert kept.is_file() == (line is not None)
    if line:
        assert kept.read_text().startswith(line)
        assert capsys.readouterr().err == f"error: {kept.read_text()}"
    end(monkeypatch, None)
    assert job.run(planned.path) == 0
    assert not kept.exists()


def test_a_mistake_of_the_code_keeps_its_traceback_and_leaves_a_line(planned, monkeypatch):
    end(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        job.run(planned.path)
    assert (planned.path / job.FAILURE).read_text() == "KeyError: 'x'\n"


def test_it_refuses_to_start_from_a_parent_that_is_not_finished(tmp_path, monkeypatch, capsys):
    parent = stand_ins.fit(tmp_path, "parent")
    child = stand_ins.fit(tmp_path, "child", parent)
    Job.of(child, "local").write(child.path)
    monkeypatch.setattr(job, "PATIENCE", 0)
    assert job.run(child.path) == FAILED
    assert f"its parent {parent.path} is not finished" in capsys.readouterr().err


def test_a_folder_without_a_plan_is_said(tmp_path):
    with pytest.raises(PneumoError, match=r"job\.json: no such file"):
        job.run(tmp_path)
    assert not list(tmp_path.iterdir())
