"""The graph as tasks of a real Ray on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import stand_ins
from cluster.conftest import FIVE

from pneumo.cluster import ray as engine
from pneumo.cluster.settings import Ray
from pneumo.errors import PneumoError
from pneumo.training import lineage

SETTINGS = Ray(memory=0.1)


@pytest.fixture
def quiet(monkeypatch):
    """Ray of two workers, on this machine."""
    ray = pytest.importorskip("ray")
    start = ray.init
    monkeypatch.setattr(
        ray, "init", lambda **said: start(**{**said, "num_cpus": 2, "object_store_memory": 1e8})
    )
    monkeypatch.setattr(lineage, "row", lambda one, trained, seconds: {"name": one.experiment})
    return ray


@pytest.fixture
def made(tmp_path, monkeypatch, quiet):
    """Make the family, some of which fail; what began and ended, the rows, and the graph."""

    def make(failing="", run=None):
        order = tmp_path / "order"
        monkeypatch.setattr(engine, "run", run or stand_ins.task(order, failing))
        family = stand_ins.family(tmp_path)
        rows = engine.make(family, SETTINGS)
        return order.read_text().split(), sorted(row["name"] for row in rows), family

    return make


@pytest.mark.cluster
@pytest.mark.filterwarnings("default")
def test_children_wait_on_their_parents_and_failures_take_descendants_alone(made):
    lines, rows, family = made(failing="first")
    assert rows == ["alone", "parent", "second"]
    assert "+grandchild" not in lines
    assert lines.index("-parent") < min(lines.index("+first"), lines.index("+second"))
    assert [fit.config.experiment for fit in family.left] == ["first", "grandchild"]


@pytest.mark.cluster
@pytest.mark.filterwarnings("default")
def test_a_worker_that_is_killed_half_way_has_its_fit_made_again(made, tmp_path):
    """And every fit is finished once."""
    killed = tmp_path / "killed"

    def kill(folder):
        if "second" in folder and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    lines, rows, _ = made(run=stand_ins.task(tmp_path / "order", "", kill))
    assert killed.exists()
    assert rows == ["alone", "first", "grandchild", "parent", "second"]
    assert sorted(lines) == sorted(set(lines))


@pytest.mark.cluster
@pytest.mark.filterwarnings("default")
def test_a_fit_that_no_node_has_room_for_is_refused(quiet, tmp_path):
    graph = stand_ins.family(tmp_path)
    with pytest.raises(
        PneumoError, match=r"no node of Ray has cluster\.cpus=99, .* at most 2 cores"
    ):
        engine.make(graph, Ray(cpus=99))
    assert not list(tmp_path.iterdir())


@pytest.mark.cluster
def test_five_experiments_by_ray_have_the_bits_of_a_sweep(quiet, same_bits, tmp_path):
    """The worker of one of them is killed half-way."""
    place = ("cluster=ray", "cluster.memory=0.5")
    typed = [sys.executable, "-m", "pneumo.submit", *FIVE, *place]
    with open(tmp_path / "said", "w") as said:
        submitted = subprocess.Popen(typed, cwd=tmp_path, stdout=said, stderr=said)
    while not (found := list(tmp_path.glob("runs/exp2/*/*/metrics.csv"))):
        assert submitted.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.1)
    run = found[0].parent
    (fit,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"pneumo.cluster.job\0{run.relative_to(tmp_path)}" in path.read_text()
    )
    worker = int(Path(f"/proc/{fit}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    assert not (run / "metrics.json").exists()
    assert submitted.wait() == 0, (tmp_path / "said").read_text()
    assert "7 fits: 7 finished" in (tmp_path / "said").read_text()
    same_bits(tmp_path, twice=run)


def test_a_fit_whose_parent_failed_is_not_begun(tmp_path):
    assert engine.run(str(tmp_path / "run"), str(tmp_path), 1) == engine.BLOCKED
    assert not list(tmp_path.iterdir())


def test_a_task_ends_with_the_status_of_its_process(tmp_path, monkeypatch):
    typed = [sys.executable, "-S", "-c", "print('hello'); import sys; sys.exit(3)"]
    monkeypatch.setattr(engine, "start", lambda folder: typed)
    (tmp_path / "run").mkdir()
    assert engine.run("run", str(tmp_path), 0, 1) == 3
    assert (tmp_path / "run" / "job.log").read_text() == "hello\n"


def test_without_ray_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PneumoError, match="cluster=ray needs Ray"):
        engine.make(stand_ins.family(tmp_path), SETTINGS)
