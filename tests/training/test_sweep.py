"""What ends a sweep of trainings: which fit is which, the mean of folds, and what comes next."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pneumo.settings import CONF
from pneumo.training import lineage, sweep
from pneumo.training.settings import load_config

ROW = {
    **{"experiment": "exp5", "setting": "siim-full", "seed": 0, "variant": "", "of_folds": True},
    **{"trained": True, "seconds": 3.0, "iou": 0.5, "sensitivity": 1.0, "specificity": 1.0},
    "all_empty_dice": 0.5,
}


def fits(*dice):
    return [
        {
            **{**ROW, "fold": fold, "dice": value, "dice_positive": value},
            "folder": f"runs/exp5/siim-full/fold{fold}-seed0",
        }
        for fold, value in enumerate(dice)
    ]


def test_folds_are_told_apart_and_averaged():
    lines = sweep.table(fits(0.8, 0.9)).splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        "exp5 fold 0",
        "exp5 fold 1",
        "exp5, mean of 2 folds",
    ]
    assert "0.8500" in lines[3]


def test_the_mean_of_folds_passes_over_those_without_positives():
    assert "0.8000" in sweep.table(fits(0.8, float("nan"))).splitlines()[3]


def test_other_seeds_are_other_fits_and_no_cross_validation():
    one, other = fits(0.8)[0], {**fits(0.9)[0], "seed": 1}
    lines = sweep.table([one, other]).splitlines()
    assert lines[2].startswith("exp5 seed 1 ")
    assert not any("mean of" in line for line in lines)


def test_the_end_of_a_sweep_of_folds_says_how_they_are_judged_as_one(capsys, tmp_path):
    sweep.SweepTable().end(OmegaConf.create({"runs_dir": "runs"}), tmp_path, fits(0.8, 0.9))
    told = capsys.readouterr().out
    assert "pneumo.evaluate 'run=runs/exp5/siim-full/fold*-seed0' blend=folds" in told


@pytest.mark.parametrize("more", [[], ["+sweep=folds"]])
def test_a_fold_of_a_sweep_and_the_same_fold_alone_are_one_run(more):
    typed = ["+experiment=exp5", "split=kfold5", "fold=2"]
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", typed)
    lineage.name_run(raw, [*more, *typed])
    expected = Path("runs/exp5/siim-full-split_kfold5/fold2-seed0")
    assert load_config(raw).path == expected
