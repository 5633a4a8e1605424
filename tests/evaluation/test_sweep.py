"""What ends a sweep of evaluations."""

import csv

from omegaconf import OmegaConf

from pneumo.evaluation import sweep
from pneumo.masks.scores import MAIN
from pneumo.settings import Tracking

ROWS = [
    {
        "overrides": ["on=test", f"postprocess.binarization_threshold={threshold}"],
        **{**dict.fromkeys(MAIN, 0.5), "dice": dice, "weights": ["a"], "films": 9},
    }
    for threshold, dice in ((0.3, 0.75), (0.6, None))
]


def test_a_sweep_leaves_a_line_a_job_under_what_was_swept_and_its_warning(tmp_path, capsys):
    config = OmegaConf.create({"log": OmegaConf.structured(Tracking)})
    sweep.SweepTable().end(config, tmp_path, ROWS)
    with open(tmp_path / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["postprocess.binarization_threshold", *MAIN, "note"]
    told = [(row["postprocess.binarization_threshold"], row["dice"]) for row in rows]
    assert told == [("0.3", "0.75"), ("0.6", "")]
    printed = capsys.readouterr().out
    assert printed.count(sweep.SWEPT) == 1
    assert printed.splitlines()[1].split()[:2] == ["binarization_threshold", "Dice"]
    assert printed.splitlines()[2].split()[:2] == ["0.3", "0.7500"]
    assert "empty masks alone: Dice 0.500" in (tmp_path / "sweep.html").read_text()


def test_a_sweep_over_films_of_which_only_labels_are_known_tells_what_there_is(tmp_path, capsys):
    config = OmegaConf.create({"log": OmegaConf.structured(Tracking)})
    known = ("overrides", "weights", "films", "sensitivity", "specificity", "roc_auc")
    rows = [{key: row[key] for key in known} for row in ROWS]
    sweep.SweepTable().end(config, tmp_path, rows)
    with open(tmp_path / "sweep.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["dice"], first["sensitivity"]) == ("", "0.5")
    page = (tmp_path / "sweep.html").read_text()
    assert "sensitivity" in page
    assert "empty masks alone" not in page
