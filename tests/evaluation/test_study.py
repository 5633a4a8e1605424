"""A study tells real differences from luck, and corrects for how many it looks at."""

import dataclasses

import numpy as np
import pytest

from pneumo.evaluation import study
from pneumo.evaluation.scores import Outcomes
from pneumo.evaluation.settings import Arm
from pneumo.evaluation.study import ArmFound, StudyFound, Value

NAMES = ("reference", "equal", "better")


def outcomes(rng, difficulty, level, luck, first):
    """One training's films, half of them positive; masks have 1,000 pixels."""
    films = len(difficulty)
    dice = np.clip(level + luck + difficulty + rng.normal(0, 0.02, films), 0, 1)
    truth = np.where(np.arange(films) % 2, 1000, 0)
    predicted = np.where(truth > 0, 1000, 0)
    overlap = np.where(truth > 0, 1000 * dice, 0).round().astype(int)
    ids = [str(first + film) for film in range(films)]
    patients = [f"p{(first + film) // 2}" for film in range(films)]
    return Outcomes(ids, predicted, truth, overlap, dice, patients, [None] * films)


def ways(seed, levels, folds=3, seeds=2, films=40, spread=0.02):
    """The fits of arms by seed and fold; with TTA, without and tuned are the same."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 0.1, (folds, films))
    made = []
    for level in levels:
        fits = [
            outcomes(rng, difficulty[fold], level, rng.normal(0, spread), 1000 * fold)
            for _ in range(seeds)
            for fold in range(folds)
        ]
        made += [fits] * 3
    return made


def found(seed, levels, **how):
    drawn = study.draw(ways(seed, levels, **how), 2000, seed)
    fits = how.get("folds", 3) * how.get("seeds", 2)
    return study.contrasts(drawn, NAMES[: len(levels)], NAMES[0], fits)


def test_a_planted_difference_is_real_and_none_is_made_of_nothing():
    told = {(one.of, one.score): one for one in found(1, (0.5, 0.5, 0.65))}
    better = told["better", "dice_positive"]
    assert better.verdict == "real"
    assert better.difference.low < 0.15 < better.difference.high
    assert better.corrected >= better.difference.p
    assert told["equal", "dice_positive"].verdict == "not shown"
    # both without differences at all, since the maps are the same
    assert told["better, TTA", "dice"].difference.mean == 0
    assert told["better, TTA", "dice"].verdict == "not shown"
    assert len(told) == 2 * (2 + 3)


def test_of_equal_arms_few_studies_call_anything_real():
    """Of studies of three equal arms, five folds of two seeds each."""
    wrong = sum(
        any(one.verdict == "real" for one in found(seed, (0.5, 0.5, 0.5), folds=5, films=20))
        for seed in range(30)
    )
    assert wrong <= 5


def test_what_one_training_gives_to_two_arms_is_no_difference():
    """Fits are drawn in pairs: their luck, far larger than the difference, is that of both."""
    rng = np.random.default_rng(0)
    films = np.zeros(40)
    luck = rng.normal(0, 0.15, (2, 3))
    sides = [[outcomes(rng, films, level, one, 0) for one in luck.ravel()] for level in (0.5, 0.53)]
    drawn = study.draw([sides[0]] * 3 + [sides[1]] * 3, 1000, 0)
    paired = study.contrasts(drawn, ("reference", "better"), "reference", 6)[0]
    assert paired.difference.low > 0.01
    assert paired.difference.high < 0.05


def test_few_fits_only_suggest():
    better = {one.of: one for one in found(1, (0.4, 0.4, 0.8), folds=2)}["better"]
    assert better.verdict == "suggested (4 fits)"


def test_holm_by_hand():
    # Holm 1979: .01 × 4, .02 × 3, .03 × 2, and never below the one before
    assert study.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert study.holm([0.9, float("nan")]) == [1.0, 1.0]
    assert study.holm([]) == []


def test_intervals_of_a_score_end_at_0_and_1():
    drawn = {"dice": np.array([[0.9, 1.3, 1.2, -0.2]])}
    value = study._values(drawn, 0)["dice"]
    assert (value.value, value.low >= 0, value.high) == (0.9, True, 1.0)


def test_an_arm_is_described_as_it_is_typed():
    one = Arm(name="a", experiment="exp5", overrides=["averaging=none"])
    assert study.described(one) == "+experiment=exp5 averaging=none"
    assert study.described(Arm(name="a", system="exp5_folds")) == "+system=exp5_folds"


def example(seconds=(600.0, 900.0)):
    """What a study of two arms found."""
    drawn = study.draw(ways(1, (0.5, 0.65)), 1000, 0)
    arms = []
    for place, name in enumerate(("reference", "<better>")):
        values = [study._values(drawn, 3 * place + way) for way in range(3)]
        times = [seconds[place]] if seconds[place] else None
        arms.append(ArmFound(name, "+experiment=exp5", "rule", 6, 1 + place, times, *values))
    return StudyFound(
        *("two_stage", "phantom-mini", "python -m pneumo.study", None, "reference"),
        *(120, 60, 60, [0, 1, 2], [0, 1], "pixels", 1000, ["CPU"], arms),
        study.contrasts(drawn, ("reference", "<better>"), "reference", 6),
    )


def test_tables_say_n_and_what_is_real():
    arms, differences = study.tables(example())
    assert [row[0] for row in arms.rows] == ["reference", "<better>"]
    assert [row[2] for row in arms.rows] == ["10 minutes", "15 minutes"]
    assert "n = 120 films (60 positive) of 60 patients; 3 folds × 2 seeds" in arms.note
    assert "on CPU" in arms.note
    assert differences.rows[0][0] == "<better> − reference"
    assert differences.rows[0][-1] == "real"
    assert "for all 6 lines" in differences.note
    assert "none can be" not in differences.note
    few = study.tables(dataclasses.replace(example(), resamples=100))[1]
    assert "With 100 resamples none can be" in few.note


def test_what_is_not_known_is_no_number_in_json():
    told = example((None, 60.0))
    told.arms[0].tta["dice"] = Value(float("nan"), 0.1, 0.2)
    values = told.to_dict()
    assert values["arms"][0]["seconds"] is None
    assert values["arms"][0]["tta"]["dice"] == {"value": None, "low": 0.1, "high": 0.2}
    assert study.tables(told)[0].rows[0][2] == "–"
