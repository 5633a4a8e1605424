"""What a user sees of ``python -m pneumo.study``."""

import json
import os
import signal
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import TINY, complaint, launch, say

FEW = (
    *(typed for typed in TINY if typed != "log.checkpoints=true"),
    *("log.wandb=disabled", "study.seeds=[0]", "study.resamples=100"),
    "study.arms=[{name: two stages, experiment: exp5},"
    "{name: averaged once, experiment: exp5, overrides: ['averaging=none']},"
    "{name: one stage, experiment: exp5_one_stage, compute_of: two stages}]",
)


def study(folder, *more):
    return launch(folder, "+study=two_stage", *FEW, *more, module="pneumo.study")


def test_mistakes_are_one_line(tmp_path, monkeypatch):
    def refused(*typed):
        status, _, errors = say("study", list(typed), tmp_path, monkeypatch)
        assert status == 1
        assert len(errors.splitlines()) == 1
        return errors

    assert "+study=<name>, one of systems, two_stage" in refused()
    assert "did you mean +study=two_stage?" in refused("+study=two_stag")
    assert "did you mean study.folds?" in refused("+study=two_stage", "study.fold=[0]")
    assert not list(tmp_path.iterdir())


def test_help_lists_studies_and_settings(tmp_path, monkeypatch):
    status, out, _ = say("study", ["--help"], tmp_path, monkeypatch)
    assert status == 0
    assert "+study=systems|two_stage" in out
    assert "study.resamples" in out


@pytest.mark.slow
def test_a_study_from_nothing_to_its_table_and_figure_stopped_on_the_way(tmp_path):
    plan = study(tmp_path, "study.plan=true")
    assert plan.returncode == 0, plan.stderr
    assert "0 of 8 fits finished" in plan.stdout
    assert plan.stdout.count("trained with its twin") == 2
    assert not list(tmp_path.rglob("config.yaml"))

    command = [sys.executable, "-m", "pneumo.study", "+study=two_stage", *FEW]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ), **options) as process:
        for line in process.stdout:
            if "3 of 8 fits finished" in line:
                process.send_signal(signal.SIGKILL)
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "two_stage: 3 of 8 fits finished, about" in done.stdout or "how long" in done.stdout
    assert "0 of 8" not in done.stdout
    assert "8 of 8 fits finished" in done.stdout
    assert done.stdout.count("trained as runs/") == 1  # the other is of the first fold
    assert "Which differences are real" in done.stdout
    assert not list(tmp_path.rglob("*.ckpt"))

    (folder,) = (tmp_path / "runs" / "studies" / "two_stage").iterdir()
    found = json.loads((folder / "study.json").read_text())
    assert [arm["name"] for arm in found["arms"]] == ["two stages", "averaged once", "one stage"]
    assert (found["folds"], found["seeds"], found["left_out"]) == ([0, 1], [0], [])
    assert len(found["contrasts"]) == 2 * (2 + 3)
    assert "two fits" not in (folder / "study.md").read_text()
    ElementTree.parse(folder / "study.svg")
    assert (folder / "study.html").is_file()

    again = study(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "epoch 1" not in again.stdout
    repeated = json.loads((folder / "study.json").read_text())
    assert repeated["contrasts"] == found["contrasts"]


@pytest.mark.slow
def test_a_fit_that_fails_is_listed_with_its_command_and_the_rest_is_judged(tmp_path):
    (tmp_path / "broken.py").write_text(
        "def loss(logits, masks):\n"
        "    if logits.requires_grad and len(logits) > 2:\n"
        "        raise RuntimeError('broken')\n"
        "    return logits.mean() * 0\n"
    )
    arms = (
        "study.arms=[{name: two stages, experiment: exp5},"
        "{name: broken, experiment: exp2, overrides: ['loss.own=broken.loss']}]"
    )
    done = study(tmp_path, arms)
    assert "2 fits failed" in complaint(done)
    assert "failed: runs/exp2/" in done.stdout
    assert "python -m pneumo.train +experiment=exp2" in done.stdout
    assert "loss.own=broken.loss" in done.stdout
    assert "Left out, since some of their fits failed: broken." in done.stdout
