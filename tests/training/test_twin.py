"""A fit without averaging takes over its averaged twin's training, and ends in its own weights."""

import dataclasses
import shutil

import pytest
from conftest import TINY, one
from hydra import compose, initialize_config_dir

from pneumo import runs
from pneumo.settings import CONF
from pneumo.training import lineage, record, twin
from pneumo.training.settings import load_config

# what a parent takes over from its child
SHARED = [typed for typed in TINY if typed.partition("=")[0].partition(".")[0] in lineage.SHARED]


def loaded(*typed):
    with initialize_config_dir(CONF, version_base="1.3"):
        return load_config(compose("train", list(typed)))


@pytest.fixture(scope="module")
def configs():
    averaged = loaded("+experiment=exp5_stage1")
    return averaged, loaded("+experiment=exp5_stage1_raw")


def test_only_averaging_and_what_does_not_train_may_differ(configs):
    averaged, raw = configs
    assert twin.alike(raw, averaged)
    assert not twin.alike(averaged, raw)
    assert not twin.alike(raw, raw)
    for other in ({"epochs": 90}, {"seed": 1}, {"lr": 1e-4}, {"init_from": "weights"}):
        assert not twin.alike(raw, dataclasses.replace(averaged, **other))
    assert twin.alike(raw, dataclasses.replace(averaged, runs_dir="elsewhere"))


def test_averaging_that_changes_the_training_has_no_twin(configs):
    lightning = loaded("+experiment=exp5_stage1", "averaging=lightning")
    assert not twin.alike(configs[1], lightning)
    assert twin.alike(configs[1], loaded("+experiment=exp5_stage1", "averaging=ema"))


def test_the_best_epoch_has_a_checkpoint_of_its_own(configs):
    best = [loaded(f"+experiment={one.experiment}", "handoff.source=best") for one in configs]
    assert not twin.alike(best[1], best[0])


def test_thresholds_matter_where_scores_steer_the_training(configs):
    """And best epochs have checkpoints of their own."""
    rule = ["postprocess.binarization_threshold=0.4"]
    for typed, alike in (
        (rule, True),
        ([*rule, "stopping.patience=3", "averaging=ema"], False),
        ([*rule, "scheduler=plateau", "scheduler.watched=dice"], False),
        ([*rule, "scheduler=plateau"], True),
        (["handoff.keep=2"], False),
    ):
        steering = [one for one in typed if not one.startswith(("postprocess", "averaging"))]
        raw = loaded("+experiment=exp5_stage1_raw", *steering)
        assert twin.alike(raw, loaded("+experiment=exp5_stage1", *typed)) == alike, typed


@pytest.fixture
def stage(finished, tmp_path, monkeypatch):
    """A finished, averaged stage 1 with its checkpoint, and the fit without averaging."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    averaged = record.read(one(tmp_path, "exp5_stage1")).config
    typed = ["+experiment=exp5_stage1_raw", *SHARED]
    return averaged, lineage.chain(lineage.declared(typed), typed)[0]


def test_without_its_checkpoint_or_begun_from_other_weights_a_run_is_no_twin(stage):
    averaged, raw = stage
    checkpoint = averaged.path / runs.CHECKPOINT
    kept = checkpoint.rename(checkpoint.with_name("kept"))
    assert twin.take_over(raw, [averaged]) is None
    assert not raw.path.exists()
    kept.rename(checkpoint)
    assert twin.take_over(raw, [averaged]) == averaged.path
    assert record.read(raw.path).config == raw
    assert twin.take_over(raw, [averaged]) is None  # it has begun


@pytest.mark.slow
def test_what_is_taken_over_ends_in_the_weights_of_its_own_training(stage, capsys):
    averaged, raw = stage
    names = (runs.WEIGHTS, runs.METRICS, runs.HISTORY)
    twin.take_over(raw, [averaged])
    lineage.make(raw)
    assert "epoch 1" not in capsys.readouterr().out
    taken = [(raw.path / name).read_bytes() for name in names]
    assert taken[0] != (averaged.path / runs.WEIGHTS).read_bytes()
    shutil.rmtree(raw.path)
    lineage.make(raw)
    own = [(raw.path / name).read_bytes() for name in names]
    assert taken[0] == own[0]
    assert taken[2] == own[2]
