"""How far fits are, as the folders and the engine say."""

import filelock
import pytest
from cluster import stand_ins

from pneumo.cluster import state
from pneumo.cluster.job import Job
from pneumo.cluster.state import Standing, State


@pytest.fixture
def family(tmp_path):
    return stand_ins.family(tmp_path)


def told(graph, engines=None):
    found = state.standings(graph, engines or {})
    return {graph.fits[path].config.experiment: str(one) for path, one in found.items()}


def by_name(graph, name):
    (fit,) = [one for one in graph.fits.values() if one.config.experiment == name]
    return fit


def test_before_anything_is_submitted_each_fit_names_its_parent(family):
    assert told(family)["alone"] == "to be made"
    assert told(family)["first"].startswith("to be made: after ")
    assert told(family)["first"].endswith("runs/parent/phantom-full/fold0-seed0")


def test_a_failed_fit_has_its_line_and_what_starts_from_it_cannot_be_made(family):
    parent, first = by_name(family, "parent"), by_name(family, "first")
    family.done.add(parent.path)
    first.path.mkdir(parents=True)
    (first.path / "failed.txt").write_text("the disk is full\n")
    said = told(family)
    assert said["parent"] == "finished"
    assert said["first"] == "failed: the disk is full"
    assert said["grandchild"] == f"cannot be made: its parent {first.path} failed"
    assert said["second"] == "to be made"
    (line,) = state.failures(family, state.standings(family, {}))
    assert line == (
        f"failed: {first.path}: the disk is full\n  python -m pneumo.train +experiment=first"
    )
    counts = state.told(state.standings(family, {}))
    assert counts == "5 fits: 1 finished, 1 failed, 1 cannot be made, 2 to be made"


def test_a_fit_in_whose_folder_a_process_works_is_running(family):
    alone = by_name(family, "alone")
    alone.path.mkdir(parents=True)
    (alone.path / "metrics.csv").write_text("epoch\n0\n1\n")
    with filelock.FileLock(alone.path / ".lock"):
        assert told(family)["alone"] == "running: 2 of 4 epochs"
    assert told(family)["alone"] == "to be made"


def test_the_engine_tells_of_what_it_has_in_hand(family):
    parent, first = by_name(family, "parent"), by_name(family, "first")
    queued = Standing(State.queued, "Resources")
    said = told(family, {parent.path: queued, first.path: Standing(State.queued, "Dependency")})
    assert said["parent"] == "queued: Resources"
    assert said["first"] == f"waiting: for {parent.path}"


def test_a_job_that_is_gone_without_a_word_is_stopped(family):
    alone = by_name(family, "alone")
    job = Job.of(alone, "slurm")
    job.id, job.output = "12", "runs/cluster/slurm/12_0_log.out"
    job.write(alone.path)
    said = "stopped: ended without a word; see runs/cluster/slurm/12_0_log.out"
    assert told(family)["alone"] == said
