"""The graph as jobs of a real SLURM of one node, which the tests start and stop."""

import dataclasses
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cluster import stand_ins
from cluster.conftest import FIVE
from conftest import launch

from pneumo.cluster import slurm, state
from pneumo.cluster.graph import Graph
from pneumo.cluster.job import Job
from pneumo.cluster.settings import Slurm
from pneumo.errors import PneumoError

SETTINGS = Slurm(time="0:10:00", cpus=1, gpus=0, memory=0.1, notice=60)
SCRIPT = Path(__file__).with_name("slurm.sh")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A SLURM of one node and two CPUs; returns what its script does."""
    there = all(shutil.which(name) for name in ("slurmctld", "sbatch", "srun", "munged"))
    if not there or os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI must have a SLURM"
        pytest.skip("needs slurm-wlm and munge, as root")
    folder = tmp_path_factory.mktemp("slurm")

    def act(action):
        subprocess.run([SCRIPT, action, folder], check=True)

    before = dict(os.environ)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    act("start")
    yield act
    act("stop")
    os.environ.clear()
    os.environ.update(before)


def finished(graph):
    made = [fit for fit in graph.fits.values() if (fit.path / "metrics.json").is_file()]
    return sorted(fit.config.experiment for fit in made)


@pytest.mark.cluster
def test_children_wait_on_their_parents_and_failures_take_descendants_alone(
    scheduler, tmp_path, monkeypatch
):
    order = tmp_path / "order"
    monkeypatch.setattr(slurm, "run", stand_ins.job(order, failing="first"))
    monkeypatch.setattr(slurm, "run_last", stand_ins.job(order))
    monkeypatch.chdir(tmp_path)
    graph = stand_ins.family(tmp_path)
    subprocess.run(["scontrol", "update", "partition=main", "state=down"], check=True)
    assert slurm.submit(graph, SETTINGS, tmp_path / "runs", [str(tmp_path / "a/last/c/d")]) == 5
    ids = {fit.config.experiment: Job.read(fit.path).id for fit in graph.left}
    arrays = {name: one.partition("_")[0] for name, one in ids.items()}
    assert arrays["parent"] == arrays["alone"]  # one job array each of what waits for the same
    assert arrays["first"] == arrays["second"] != arrays["grandchild"]
    asked = ["squeue", "-h", "-r", "-o", "%i %E"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert f"{ids['first']} afterok:{ids['parent']}" in said
    assert f"{ids['grandchild']} afterok:{ids['first']}" in said
    assert f"afterok:{arrays['parent']}_*(unfulfilled)," in said.splitlines()[-1]  # the report
    found = state.standings(graph, slurm.standings(graph))
    told = {graph.fits[path].config.experiment: str(one) for path, one in found.items()}
    assert told["parent"] == f"queued: job {ids['parent']}, PartitionDown"
    assert told["second"].startswith("waiting: for ")

    # the same submitted again, by whomever: nothing is queued twice
    assert slurm.submit(stand_ins.family(tmp_path), SETTINGS, tmp_path / "runs") == 0
    scheduler("restart")
    assert len(slurm.in_hand(graph)) == 5
    subprocess.run(["scontrol", "update", "partition=main", "state=up"], check=True)
    wait_for(lambda: not slurm.in_hand(graph))
    assert finished(graph) == ["alone", "parent", "second"]
    lines = order.read_text().split()
    assert sorted(lines) == sorted(set(lines))
    assert "+grandchild" not in lines
    assert "+last" not in lines  # for not all are finished
    assert lines.index("-parent") < min(lines.index("+first"), lines.index("+second"))


def stopping(attempts):
    """A job whose first attempt works until a signal tells it to stop, as a fit would."""

    def run(folder):
        import signal
        import time
        from pathlib import Path

        from pneumo.cluster import job, slurm

        def attempt(where, place=()):
            with open(attempts, "a") as file:
                file.write(f"{where}\n")
            if Path(attempts).read_text().count(f"{where}\n") == 1:
                told = []
                for one in (signal.SIGTERM, signal.SIGUSR2):
                    signal.signal(one, lambda number, frame: told.append(number))
                Path(where, "begun").touch()
                while not told:
                    time.sleep(0.05)
                return job.STOPPED
            for made in ("weights.safetensors", "config.yaml", "metrics.json"):
                Path(where, made).write_text("{}")
            return 0

        job.run = attempt
        slurm.run(folder)

    return run


@pytest.mark.cluster
def test_a_fit_told_to_stop_is_queued_again_and_one_that_is_cancelled_is_not(
    scheduler, tmp_path, monkeypatch
):
    attempts = tmp_path / "attempts"
    monkeypatch.setattr(slurm, "run", stopping(str(attempts)))
    monkeypatch.chdir(tmp_path)
    fits = [stand_ins.fit(tmp_path, name) for name in ("stopped", "cancelled")]
    graph = stand_ins.Graph(fits)
    slurm.submit(graph, SETTINGS, tmp_path / "runs")
    stopped, cancelled = (Job.read(fit.path).id for fit in fits)
    wait_for(lambda: all((fit.path / "begun").is_file() for fit in fits))
    subprocess.run(["scancel", "--signal=USR2", stopped], check=True)
    subprocess.run(["scancel", cancelled], check=True)
    wait_for(lambda: "PENDING" in state_of(stopped))
    told = state.standings(graph, slurm.standings(graph))[fits[0].path]
    assert str(told).startswith(f"queued: job {stopped}, ")
    subprocess.run(["scontrol", "update", f"jobid={stopped}", "starttime=now"], check=True)
    wait_for(lambda: not slurm.in_hand(graph))
    assert finished(graph) == ["stopped"]
    assert sorted(Path(line).parts[-3] for line in attempts.read_text().split()) == [
        "cancelled",
        "stopped",
        "stopped",
    ]
    found = state.standings(graph, slurm.standings(graph))[fits[1].path]
    assert str(found).startswith("stopped: ended without a word; see ")


@pytest.mark.cluster
def test_five_experiments_by_slurm_have_the_bits_of_a_sweep(scheduler, same_bits, tmp_path):
    """One of them is queued again half-way, and the controller is restarted in between."""
    place = ("cluster=slurm", "cluster.gpus=0", "cluster.cpus=1", "cluster.memory=1.5")
    handed = launch(tmp_path, *FIVE, *place, module="pneumo.submit")
    assert handed.returncode == 0, handed.stderr
    assert "7 fits handed to SLURM" in handed.stdout
    (history,) = wait_for(lambda: list(tmp_path.glob("runs/exp2/*/*/metrics.csv")))
    parent = history.parent
    job = Job.read(parent).id
    subprocess.run(["scontrol", "requeue", job], check=True)
    assert not (parent / "metrics.json").exists()
    scheduler("restart")
    again = launch(tmp_path, *FIVE, *place, module="pneumo.submit")
    assert "0 fits handed to SLURM" in again.stdout, again.stderr
    wait_for(lambda: "RUNNING" not in state_of(job))
    subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False)
    wait_for(lambda: not state_of())
    same_bits(tmp_path, twice=parent)
    done = launch(tmp_path, *FIVE, *place, "status", module="pneumo.submit")
    assert "5 fits: 5 finished" in done.stdout  # what led to them is not needed again


def wait_for(what):
    """What a function returns once that is something."""
    for _ in range(3000):
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(state_of())


def state_of(*jobs):
    """What SLURM has in its queue, of some jobs or of all."""
    asked = ["squeue", "-h", "-r", "-o", "%i %T %r", *(f"--jobs={job}" for job in jobs)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout


@pytest.mark.cluster
def test_a_fit_whose_node_vanished_is_made_elsewhere_or_later(scheduler, tmp_path, monkeypatch):
    attempts = tmp_path / "attempts"
    monkeypatch.setattr(slurm, "run", stopping(str(attempts)))
    graph = stand_ins.Graph([stand_ins.fit(tmp_path, "bereft")])
    slurm.submit(graph, SETTINGS, tmp_path / "runs")
    (fit,) = graph.left
    wait_for(lambda: (fit.path / "begun").is_file())
    scheduler("vanish")
    job = Job.read(fit.path).id
    wait_for(lambda: "PENDING" in state_of(job))
    told = state.standings(graph, slurm.standings(graph))[fit.path]
    assert str(told).startswith(f"queued: job {job}, ")
    assert slurm.submit(graph, SETTINGS, tmp_path / "runs") == 0  # SLURM still has it
    scheduler("return")
    subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=False)
    wait_for(lambda: not slurm.in_hand(graph))
    assert finished(graph) == ["bereft"]
    assert attempts.read_text().split() == [str(fit.path)] * 2


@pytest.mark.cluster
def test_a_full_queue_takes_what_it_can_and_the_rest_is_handed_over_later(
    scheduler, tmp_path, monkeypatch
):
    order = tmp_path / "order"
    monkeypatch.setattr(slurm, "run", stand_ins.job(order))
    monkeypatch.chdir(tmp_path)
    scheduler("crowd")
    subprocess.run(["scontrol", "update", "partition=main", "state=down"], check=True)
    graph = stand_ins.family(tmp_path)
    with pytest.raises(PneumoError, match=r"SLURM refused a job: .*; 2 of 5 fits handed over"):
        slurm.submit(graph, SETTINGS, tmp_path / "runs")
    assert len(slurm.in_hand(graph)) == 2
    subprocess.run(["scontrol", "update", "partition=main", "state=up"], check=True)
    wait_for(lambda: not slurm.in_hand(graph))
    scheduler("restart")
    graph.done |= {fit.path for fit in graph.left if (fit.path / "metrics.json").is_file()}
    assert slurm.submit(graph, SETTINGS, tmp_path / "runs") == 3
    wait_for(lambda: not slurm.in_hand(graph))
    assert finished(graph) == ["alone", "first", "grandchild", "parent", "second"]


@pytest.mark.cluster
def test_what_slurm_refuses_is_one_line(scheduler, tmp_path):
    graph = stand_ins.family(tmp_path)
    with pytest.raises(PneumoError, match=r"cluster\.partition=none: SLURM has main$"):
        slurm.submit(graph, Slurm(partition="none"), tmp_path / "runs")
    own = Slurm(gpus=0, memory=0.1, options=["constraint=none"])
    with pytest.raises(PneumoError, match=r"SLURM refused a job: .*feature.*; 0 of 5 fits handed"):
        slurm.submit(graph, own, tmp_path / "runs")
    assert slurm.in_hand(graph) == {}


@pytest.fixture
def handed_over(tmp_path, monkeypatch):
    """The folder in which scripts in SLURM's place keep what each job asks for."""
    jobs, programs = tmp_path / "jobs", tmp_path / "programs"
    jobs.mkdir(), programs.mkdir()
    number = f'number=$(ls {jobs} | wc -l); cp "$1" {jobs}/$number'
    said = {"sbatch": f"{number}; echo Submitted batch job $number", "sinfo": "echo main"}
    for name in ("sbatch", "sinfo", "squeue", "srun"):
        (programs / name).write_text(f"#!/bin/sh\n{said.get(name, '')}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return jobs


def test_what_jobs_ask_for(tmp_path, handed_over):
    """SLURM or not, so that a setting that submitit does not know is noticed everywhere."""
    parent = stand_ins.fit(tmp_path, "parent")
    child, wide = stand_ins.fit(tmp_path, "child", parent), stand_ins.fit(tmp_path, "wide")
    wide.config.machine.nodes = 2
    settings = dataclasses.replace(SETTINGS, gpus=4, options=["constraint=large"])
    assert slurm.submit(Graph([parent, child, wide]), settings, tmp_path / "runs", ["a.b"]) == 3
    texts = [path.read_text() for path in sorted(handed_over.iterdir())]
    asked = [set(re.findall("^#SBATCH --(.*)$", text, re.MULTILINE)) for text in texts]
    every = {"cpus-per-task=1", "mem=100MB", "gpus-per-node=4", "ntasks-per-node=1", "requeue"}
    assert all(one >= every | {"time=0:10:00", "constraint=large"} for one in asked)
    nodes = [text for one in asked for text in one if text.startswith("nodes=")]
    assert nodes == ["nodes=1", "nodes=2", "nodes=1", "nodes=1"]
    waits = [text for one in asked for text in one if text.startswith("dependency=")]
    assert waits == ["dependency=afterok:0", "dependency=afterok:0:1:2"]


def test_the_nodes_of_a_job_meet_at_its_first(monkeypatch):
    assert slurm._meeting() == []
    job = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node[3-4]", "SLURM_JOB_ID": "12345"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    asked = []
    monkeypatch.setattr(slurm, "_ask", lambda *words: asked.append(words) or "node3\nnode4\n")
    assert slurm._meeting() == [
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=node3:22345",
        "--rdzv-id=12345",
    ]
    assert asked == [("scontrol", "show", "hostnames", "node[3-4]")]


def test_without_slurm_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PneumoError, match="no SLURM here"):
        slurm.submit(stand_ins.family(tmp_path), SETTINGS, tmp_path / "runs")
