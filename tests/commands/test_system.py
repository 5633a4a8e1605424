"""A system is trained, judged, handed on and used like one experiment."""

import json
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY, complaint, launch, one


@pytest.mark.slow
def test_a_system_of_two_experiments_from_training_to_masks(tmp_path, film):
    typed = ("+system=exp4_exp5", *TINY)
    done = launch(tmp_path, *typed)
    assert done.returncode == 0, done.stderr
    for name in ("exp4_stage1", "exp4", "exp5_stage1", "exp5"):
        assert (one(tmp_path, name) / "metrics.json").is_file()
    assert "Next" in done.stdout
    assert "pneumo.evaluate +system=exp4_exp5" in done.stdout
    again = launch(tmp_path, *typed)
    assert again.returncode == 0, again.stderr
    assert "epoch 1" not in again.stdout

    judged = launch(tmp_path, "+system=exp4_exp5", "resamples=20", module="pneumo.evaluate")
    assert judged.returncode == 0, judged.stderr
    assert "mean of runs/exp4/" in judged.stdout
    made = launch(
        tmp_path, "+system=exp4_exp5", "out=model", "resamples=20", module="pneumo.export"
    )
    assert made.returncode == 0, made.stderr
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert (card["name"], len(card["members"])) == ("exp4_exp5", 2)
    used = launch(tmp_path, "model=model", f"input={film}", module="pneumo.predict")
    assert used.returncode == 0, used.stderr
    assert len(list((tmp_path / "masks").glob("*-mask.png"))) == 1
    sent = launch(tmp_path, "+system=exp4_exp5", "on=val", module="pneumo.submission")
    assert sent.returncode == 0, sent.stderr
    assert "decoded again" in sent.stdout
    maps = launch(tmp_path, "+system=exp4_exp5", "on=val", module="pneumo.predict")
    assert maps.returncode == 0, maps.stderr


def test_a_system_that_is_not_trained_says_how(tmp_path):
    done = launch(tmp_path, "+system=exp4_exp5", module="pneumo.evaluate")
    assert "python -m pneumo.train +system=exp4_exp5" in complaint(done)
    both = launch(tmp_path, "+system=exp4_exp5", "+experiment=exp5")
    assert "Multiple values for experiment" in complaint(both)
    assert "amirassov, exp4_exp5, exp5_folds" in complaint(
        launch(tmp_path, "+system=exp9", module="pneumo.evaluate")
    )


OF_OTHERS = (
    *("data=phantom", "data.images=60", "data.seed=3", "scale=mini", "scale.positive_rate=0.34"),
    *("scale.side=64", "scale.least_epochs=1", "scale.epochs=0.001", "log.pictures=0"),
    *("machine.threads=1", "model.encoder=tu-test_resnet", "log.wandb=disabled"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "networks"), [("x5", 16), ("amirassov", 2)])
def test_a_system_of_others_from_training_to_masks(tmp_path, film, name, networks):
    """On two folds; an epoch has but one set of weights to keep."""
    trained = launch(tmp_path, f"+system={name}", *OF_OTHERS)
    assert trained.returncode == 0, trained.stderr
    judged = launch(
        tmp_path, f"+system={name}", "resamples=20", "log.wandb=disabled", module="pneumo.evaluate"
    )
    assert judged.returncode == 0, judged.stderr
    assert "presence at least" in judged.stdout
    told = launch(tmp_path, "resamples=0", "gallery=0", module="pneumo.report")
    assert told.returncode == 0, told.stderr
    (table,) = (tmp_path / "runs" / "report").glob("*/table_6.csv")
    rows = {line.split(",")[0]: line for line in table.read_text().splitlines()}
    assert "no run on these films" not in rows[name]
    assert "no run on these films" in rows["sneddy"]
    made = launch(tmp_path, f"+system={name}", "out=model", "resamples=0", module="pneumo.export")
    assert made.returncode == 0, made.stderr
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert len(card["members"]) == networks
    assert (card["stack"] is not None) == (name == "x5")
    used = launch(tmp_path, "model=model", f"input={film}", module="pneumo.predict")
    assert used.returncode == 0, used.stderr


@pytest.mark.slow
def test_sneddys_system_goes_on_after_it_was_killed(tmp_path):
    command = [sys.executable, "-m", "pneumo.train", "+system=sneddy", *OF_OTHERS]
    begun = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    runs = tmp_path / "runs"
    while not list(runs.glob("sneddy_albunet_public_part1/*/*/metrics.csv")):
        assert begun.poll() is None
        time.sleep(0.1)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/*/*/metrics.json")}
    done = launch(tmp_path, "+system=sneddy", *OF_OTHERS)
    assert done.returncode == 0, done.stderr
    assert before
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert len(list(runs.glob("sneddy_*/*/*/metrics.json"))) == 4 * 4 * 2
    judged = launch(
        tmp_path, "+system=sneddy", "resamples=20", "log.wandb=disabled", module="pneumo.evaluate"
    )
    assert judged.returncode == 0, judged.stderr
    assert "counted above 0.75" in judged.stdout


@pytest.mark.slow
def test_a_system_of_ones_own_is_judged_too(tmp_path):
    for group, name, text in (
        ("experiment", "wide", "defaults: [exp2]\nexperiment: wide\n"),
        (
            "system",
            "both",
            "defaults:\n  - /experiment: exp2\nsystem:\n  name: both\n  experiments: [exp2, wide]\n"
            "  folds: [0, 1]\n  blend: mean_folds\n  overrides: [split=kfold5]\n",
        ),
    ):
        (tmp_path / "mine" / group).mkdir(parents=True)
        path = tmp_path / "mine" / group / f"{name}.yaml"
        path.write_text(f"# @package _global_\n{text}")
    own = ("--config-dir", "mine", "+system=both")
    done = launch(tmp_path, *own, *OF_OTHERS)
    assert done.returncode == 0, done.stderr
    judged = launch(tmp_path, *own, "resamples=20", "log.wandb=disabled", module="pneumo.evaluate")
    assert judged.returncode == 0, judged.stderr
