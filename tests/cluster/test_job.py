"""A planned fit as a process of its own, or of several: what it records, and how it ends."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from cluster import stand_ins
from conftest import TINY, complaint, launch, one
from safetensors.torch import load_file

from pneumo import runs
from pneumo.cluster import job
from pneumo.cluster.job import FAILED, STOPPED, Job
from pneumo.errors import PneumoError
from pneumo.settings import Machine
from pneumo.training import lineage, processes, record


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


def test_a_fit_on_several_nodes_is_not_started_on_one(tmp_path):
    fit = stand_ins.fit(tmp_path, "alone")
    fit.config.machine.nodes = 2
    Job.of(fit, "local").write(fit.path)
    with pytest.raises(PneumoError, match="2 nodes; type on each of them: torchrun --nnodes=2 "):
        job.run(fit.path)


def test_a_folder_without_a_plan_is_said(tmp_path):
    with pytest.raises(PneumoError, match=r"job\.json: no such file"):
        job.run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_plan_goes_on_by_its_record(tmp_path, monkeypatch):
    fit = stand_ins.fit(tmp_path, "alone")
    origin = record.Origin(command="python -m pneumo.train +experiment=alone 'tag=a b'")
    facts = record.DataFacts("", "", None, 1, 1, 1, False, None, {})
    record.Record(fit.config, origin, facts).write(fit.path)
    made = end(monkeypatch, None)
    assert job.run(fit.path) == 0
    ((config, typed),) = made
    assert config == fit.config
    assert typed == ["pneumo.train", "+experiment=alone", "tag=a b"]
    fit.path.parents[2].rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / fit.path.relative_to(fit.path.parents[2])
    with pytest.raises(PneumoError, match="start it from the folder that the run was begun in"):
        Job.begun(moved)


@pytest.mark.parametrize(("word", "fits"), [(processes.BEGUN, 1), (processes.ENDED, 0)])
def test_all_but_the_first_process_follow_its_word(planned, monkeypatch, word, fits):
    followed = []
    torchrun = {"RANK": 1, "LOCAL_WORLD_SIZE": 2, "WORLD_SIZE": 4, "TORCHELASTIC_RUN_ID": "x"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(processes, "first_said", lambda: word)
    monkeypatch.setattr(job, "fit", lambda config, folder: followed.append(config.machine))
    made = end(monkeypatch, None)
    assert job.run(planned.path) == 0
    assert made == []
    assert followed == [Machine(accelerator="cpu", threads=1, devices=2, nodes=2)] * fits


# of 18 films to train on, batches of 4 leave 2; of 6 to validate, the last batch has 2
SHORT = [word for word in TINY if not word.startswith(("averaging", "epochs", "scale.size"))]
OWN = (
    *("+experiment=exp2", *SHORT, "epochs=3", "resolution.size=32", "scale.size=1"),
    *("averaging=none", "batch_size=4", "log.wandb=disabled", "machine.accelerator=cpu"),
    "lr=1e-5",  # Adam's first steps have the sign of gradients, even of those that are rounding
)
TWO = (*OWN, "machine.devices=2")


def curves(folder):
    """Losses and rates of every epoch."""
    with open(folder / runs.HISTORY, newline="") as file:
        return [
            [float(row[key]) for key in ("lr", "train/loss", "val/loss")]
            for row in csv.DictReader(file)
        ]


def same(ours, theirs):
    """Two fits were the same, but for the order of sums."""
    np.testing.assert_allclose(curves(ours), curves(theirs), rtol=3e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The fit of one process."""
    folder = tmp_path_factory.mktemp("alone")
    done = launch(folder, *OWN)
    assert done.returncode == 0, done.stderr
    return one(folder, "exp2")


def with_films(folder, alone):
    """A folder in which the phantoms are drawn and decoded already."""
    for name in ("phantom", "cache"):
        shutil.copytree(alone.parents[2] / name, folder / "runs" / name)
    return folder


@pytest.fixture(scope="module")
def several(tmp_path_factory, alone):
    """A sweep of two fits of two processes each, and what it said."""
    folder = with_films(tmp_path_factory.mktemp("several"), alone)
    done = launch(folder, "-m", *TWO, "seed=0,1", "cluster.jobs=1", module="pneumo.submit")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.cluster
def test_a_sweep_of_fits_of_two_processes_leaves_a_run_each_with_the_curves_of_one(alone, several):
    folder, done = several
    assert "2 fits: 2 finished" in done.stdout
    ours, other = sorted(path.parent for path in (folder / "runs").rglob(runs.RECORD))
    assert (record.read(ours).config.seed, record.read(other).config.seed) == (0, 1)
    same(ours, alone)
    told = (ours / runs.LOG).read_text()
    assert told.count("epoch 1/3: loss") == 1
    assert told.count("2 processes share each batch") == 1
    known = record.read(ours)
    assert "dropout" in known.differs_from_one_device[0]
    assert known.origin.command.startswith("python -m pneumo.train +experiment=exp2")
    assert record.read(alone).differs_from_one_device == []


@pytest.mark.cluster
def test_two_nodes_that_meet_on_this_machine_make_what_one_process_makes(alone, tmp_path):
    """As the command says that is refused without torchrun; the run's record is what they share."""
    said = complaint(launch(with_films(tmp_path, alone), *OWN, "machine.nodes=2"))
    assert "config.yaml is saved; to start it, type on each node: torchrun --nnodes=2" in said
    words = said.partition("torchrun ")[2].replace("<first node>:29400", "localhost:29471").split()
    typed = [sys.executable, "-m", "torch.distributed.run", *words]
    nodes = [subprocess.Popen(typed, cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(2)]
    ended = [node.communicate(timeout=1500)[1].decode() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], ended
    same(one(tmp_path, "exp2"), alone)


def planned_for_two(folder, *own):
    """The plan of a fit of two processes, as a cluster finds it."""
    typed = [*TWO, *own]
    config = lineage.declared(typed).scaled({word.partition("=")[0] for word in typed})
    Job("local", command=typed, config=config.to_dict()).write(folder / config.path)
    return config.path


DISTURBED = """
import os, pathlib, signal, time

calls = 0


def loss(logits, masks):
    \"\"\"Nothing; but in its sixth step, once, the second process is told to stop, or killed.\"\"\"
    global calls
    calls += logits.requires_grad
    begun = pathlib.Path("begun")
    if calls == 6 and os.environ["RANK"] == "1" and not begun.exists():
        heard, before = [], signal.getsignal(signal.SIGHUP)
        signal.signal(signal.SIGHUP, lambda *what: (heard.append(what), before(*what)))
        begun.touch()
        if os.environ["HOW"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        while not heard:
            time.sleep(0.01)
    return logits.mean() * 0
"""


@pytest.mark.cluster
@pytest.mark.parametrize(("how", "status", "step"), [("told", STOPPED, 6), ("killed", FAILED, 4)])
def test_a_fit_of_two_processes_goes_on_after_an_interruption_to_the_same_weights(
    alone, several, tmp_path, monkeypatch, how, status, step
):
    """Told to stop in its second epoch of four steps, both end after the same one."""
    (tmp_path / "disturbed.py").write_text(DISTURBED)
    run = planned_for_two(with_films(tmp_path, alone), "loss.own=disturbed.loss")
    monkeypatch.setenv("HOW", how)
    typed = [sys.executable, "-m", "pneumo.cluster.job", str(run)]
    work = subprocess.Popen(typed, cwd=tmp_path)
    while not (tmp_path / "begun").exists():
        assert work.poll() is None
        time.sleep(0.02)
    if how == "told":
        work.send_signal(signal.SIGUSR2)
    assert work.wait(timeout=600) == status
    kept = torch.load(tmp_path / run / runs.CHECKPOINT, weights_only=True)
    assert kept["global_step"] == step
    done = subprocess.run(typed, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (theirs,) = (several[0] / "runs" / "exp2").glob("*/fold0-seed0*")
    ours, expected = (load_file(place / runs.WEIGHTS) for place in (tmp_path / run, theirs))
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    assert curves(tmp_path / run) == curves(theirs)


@pytest.mark.cluster
def test_a_process_that_fails_ends_the_others_with_one_line(alone, tmp_path):
    (tmp_path / "broken.py").write_text(
        "import os\n"
        "def loss(logits, masks):\n"
        "    if logits.requires_grad and os.environ.get('RANK') == '1':\n"
        "        raise OSError('broken')\n"
        "    return logits.mean() * 0\n"
    )
    run = planned_for_two(with_films(tmp_path, alone), "loss.own=broken.loss")
    typed = [sys.executable, "-m", "pneumo.cluster.job", str(run)]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        typed, cwd=tmp_path, env=env, check=False, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == FAILED
    assert (tmp_path / run / job.FAILURE).read_text() == "broken\n"
    assert done.stderr.count("error: ") == 1
