"""Counts are those of the real fits; hours, memory and disk follow from what was measured."""

import json
import shutil

import pytest
from conftest import TINY, one

from pneumo import runs, seals
from pneumo.cluster import costs, graph
from pneumo.cluster.graph import Graph
from pneumo.errors import PneumoError
from pneumo.training import lineage, record
from pneumo.training.measuring import Measured

MEASURED = Measured(batch=2.0, validation=0.5, memory=3 * 10**9, films=4)


@pytest.fixture
def measured(monkeypatch):
    """The kinds of step that were measured, by a stand-in."""
    asked = []

    def measure(config, seconds, steps):
        asked.append((config.experiment, seconds))
        return MEASURED

    monkeypatch.setattr(costs, "measure", measure)
    return asked


def fit_of(*typed):
    return lineage.scaled(lineage.declared(list(typed)), typed)


def test_what_is_counted_is_what_a_finished_run_had(finished):
    """Without reading a film, and without the division."""
    folder = one(finished[0], "exp5")
    known = record.read(folder)
    work = costs.work_of(known.config, costs.films_of(known.config))
    assert work.films == known.data.training + known.data.validation
    assert work.validation == known.data.validation
    steps = known.config.epochs * (known.data.training // known.config.batch_size)
    assert work.steps == steps
    assert work.judged == known.config.epochs * -(-work.validation // known.config.batch_size)


def test_films_of_phantoms_and_of_a_scale_are_counted_from_settings_alone():
    phantoms = ["+experiment=exp2", "data=phantom"]
    assert costs.films_of(fit_of(*phantoms)) == costs.Films(2000, 440)
    assert costs.films_of(fit_of(*phantoms, "scale=mini")) == costs.Films(440, 220)
    with pytest.raises(PneumoError, match=r"data\.root is not set"):
        costs.films_of(fit_of("+experiment=exp2"))


def test_shares_of_positives_give_an_epoch_fewer_films():
    share = ["+experiment=exp2", "data=phantom", "sampling=share", "sampling.share=0.8"]
    one = fit_of(*share)
    work = costs.work_of(one, costs.Films(1000, 200))
    epoch = 180 + 45  # a tenth is validation; a fifth of the epoch is negative
    assert work.steps == one.epochs * (epoch // one.batch_size)


def test_each_step_is_measured_once_and_hours_add_up(tmp_path, measured):
    typed = ["+experiment=exp5", "data=phantom", "scale=mini", f"runs_dir={tmp_path}"]
    fits = [fit for seed in (0, 1) for fit in graph.of_experiment([*typed, f"seed={seed}"])]
    planned = Graph(fits)
    kinds = costs.kinds_of(planned, seconds=60)
    assert sorted(measured) == [("exp5", 30), ("exp5_stage1", 30)]
    assert [len(kind.fits) for kind in kinds] == [2, 2]
    second = kinds[1]
    assert second.estimated == 2.0 * second.work.steps + 0.5 * second.work.judged
    rows = costs.table(kinds, planned).rows
    total = sum(kind.estimated * 2 for kind in kinds)
    hours = f"{total / 3600:.3g}"
    assert rows[-1] == ["all", "4", "4", *[""] * 5, hours, hours, "", ""]
    lines = costs.told(kinds, planned)
    cache = 2 * 440 * (64**2 + 128**2)
    assert lines[0].startswith(f"Disk: {cache / 1e6:.0f} MB for the cache")
    assert "Memory: 3.0 GB at most" in lines[1]
    assert not list(tmp_path.iterdir())


def test_finished_runs_alike_stand_beside_and_count_before_what_was_measured(
    finished, tmp_path, measured, monkeypatch
):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    planned = Graph(graph.of_experiment(["+experiment=exp5", *TINY, "seed=1"]))
    stage, last = costs.kinds_of(planned, seconds=60)
    (folder,) = (tmp_path / "runs" / "exp5").glob("*/*")
    known = json.loads((folder / runs.METRICS).read_text())[runs.TRAIN_SECONDS]
    assert last.took == [known]
    assert last.seconds == known != last.estimated
    assert len(stage.took) == 1
    assert costs.table([stage, last], planned).rows[1][7].endswith(" (1)")
    metrics = seals.read_json(folder / runs.METRICS)
    (folder / runs.METRICS).write_text(json.dumps({**metrics, runs.DEVICE: "NVIDIA H100"}))
    assert costs.kinds_of(planned, seconds=60)[1].took == []  # of another device


def test_hours_are_those_of_all_devices_on_all_nodes(tmp_path, measured):
    typed = ["+experiment=exp2", "data=phantom", f"runs_dir={tmp_path}", "machine.accelerator=cpu"]
    alone, shared = (
        costs.kinds_of(Graph(graph.of_experiment([*typed, *more])), seconds=60)
        for more in ([], ["machine.devices=2", "machine.nodes=2"])
    )
    each = [costs._sum(kinds, Graph(kinds[0].fits), everything=True) for kinds in (alone, shared)]
    assert each[1] == 4 * each[0]
