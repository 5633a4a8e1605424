"""The graph in processes: order, failures, how many at a time, Ctrl-C."""

import logging
import sys
import threading
import time

import pytest
from cluster import stand_ins

from pneumo.cluster import local
from pneumo.cluster.job import Job
from pneumo.cluster.settings import Local
from pneumo.training import lineage


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make the family, some of which fail; returns what began and ended, and the rows."""

    def make(failing="", jobs=2):
        order = tmp_path / "order"
        monkeypatch.setattr(
            local, "start", lambda folder: stand_ins.command(folder, order, failing)
        )
        monkeypatch.setattr(lineage, "row", lambda one, trained, seconds: {"name": one.experiment})
        family = stand_ins.family(tmp_path)
        rows = local.make(family, Local(jobs=jobs))
        return order.read_text().split(), [row["name"] for row in rows], family

    return make


def test_children_begin_once_their_parent_is_finished(made):
    order, rows, family = made()
    assert sorted(rows) == ["alone", "first", "grandchild", "parent", "second"]
    for parent, child in [("parent", "first"), ("parent", "second"), ("first", "grandchild")]:
        assert order.index(f"-{parent}") < order.index(f"+{child}")
    assert len(order) == 2 * 5
    assert family.left == []


def test_no_more_run_at_a_time_than_are_asked_for(made):
    order, _, _ = made(jobs=1)
    assert all(one[1:] == other[1:] for one, other in zip(order[::2], order[1::2], strict=True))


def test_a_fit_that_fails_takes_its_descendants_and_nothing_else(made, caplog):
    with caplog.at_level(logging.INFO, "pneumo"):
        order, rows, family = made(failing="first")
    assert sorted(rows) == ["alone", "parent", "second"]
    assert "+grandchild" not in order
    assert [fit.config.experiment for fit in family.left] == ["first", "grandchild"]
    assert "first is broken" in caplog.text


def test_a_twin_that_fails_does_not_keep_a_fit_from_being_made(tmp_path, monkeypatch):
    order = tmp_path / "order"
    monkeypatch.setattr(local, "start", lambda folder: stand_ins.command(folder, order, "twin"))
    monkeypatch.setattr(lineage, "row", lambda one, trained, seconds: {"name": one.experiment})
    twin = stand_ins.fit(tmp_path, "twin")
    taker = stand_ins.fit(tmp_path, "taker", twins=[twin])
    rows = local.make(stand_ins.Graph([twin, taker]), stand_ins.LOCAL)
    assert [row["name"] for row in rows] == ["taker"]
    assert order.read_text().split() == ["+twin", "-twin", "+taker", "-taker"]
    assert Job.read(taker.path).twins == [str(twin.path)]


def test_ctrl_c_has_the_fits_stop_and_waits_for_them(tmp_path, monkeypatch):
    told = tmp_path / "told"
    script = (
        "import pathlib, signal, sys, time\n"
        f"told = pathlib.Path({str(told)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: (told.write_text('stopped'), sys.exit(75)))\n"
        "told.write_text('running')\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(local, "start", lambda folder: [sys.executable, "-S", "-c", script])
    real = local.wait

    def interrupted(*arguments, **options):
        while not told.is_file() or not told.read_text():
            time.sleep(0.01)
        monkeypatch.setattr(local, "wait", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "wait", interrupted)
    graph = stand_ins.Graph([stand_ins.fit(tmp_path, "alone")])
    with pytest.raises(KeyboardInterrupt):
        local.make(graph, stand_ins.LOCAL)
    assert told.read_text() == "stopped"
    assert threading.active_count() == 1 or not graph.done


def test_as_many_fits_at_a_time_as_cores_and_memory_allow(tmp_path, monkeypatch):
    fits = stand_ins.family(tmp_path).left
    monkeypatch.setattr(local.pool, "cores", lambda: 4)
    assert len(local.devices(Local(memory=1e-6), fits)) == 4  # each of one thread
    assert len(local.devices(Local(memory=1e6), fits)) == 1
    fits[0].config.machine.devices = 2  # processes
    assert len(local.devices(Local(memory=1e-6), fits)) == 2
    fits[0].config.machine.devices = 1
    assert len(local.devices(Local(memory=1e6, jobs=3), fits)) == 3
    assert len(local.devices(Local(memory=1e-6, jobs=9), fits)) == len(fits)


@pytest.mark.parametrize(
    ("visible", "jobs", "places"),
    [(None, 0, ["0", "1"]), ("3,5", 0, ["3", "5"]), (None, 3, ["0", "1", "0"])],
)
def test_each_gpu_has_a_fit(tmp_path, monkeypatch, visible, jobs, places):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(local, "uses_cuda", lambda machine: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert local.devices(Local(jobs=jobs), stand_ins.family(tmp_path).left) == places
