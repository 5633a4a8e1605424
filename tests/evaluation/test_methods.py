"""Methods are compared over their fits: what a network's luck gives is not a method's."""

import numpy as np
import pytest

from pneumo.errors import PneumoError
from pneumo.evaluation import methods, scores
from pneumo.evaluation.scores import Outcomes


def fit(rng, films, level, spread=0.03, first=0):
    """Outcomes of one training: its own luck, and every film's difficulty and noise.

    All films are positive; masks have 1,000 pixels, so that Dice is the overlap in thousandths.
    """
    luck = rng.normal(0, spread)
    dice = np.clip(level + luck + films + rng.normal(0, 0.02, len(films)), 0, 1)
    names = [str(first + i) for i in range(len(films))]
    full = np.full(len(films), 1000)
    overlap = (1000 * dice).round().astype(int)
    patients = [f"p{(first + i) // 2}" for i in range(len(films))]
    return Outcomes(names, full, full, overlap, dice, patients, [None] * len(films))


def shuffled(one, seed=0):
    return one[np.random.default_rng(seed).permutation(len(one))]


def test_the_difference_is_that_of_the_means_over_fits_whatever_the_films_order():
    rng = np.random.default_rng(0)
    films = rng.normal(0, 0.1, 40)
    ours = [fit(rng, films, 0.6) for _ in range(3)]
    theirs = [shuffled(fit(rng, films, 0.5)) for _ in range(2)]
    found = methods.compare(ours, theirs, 200, 0)
    expected = np.mean([o.dice.mean() for o in ours]) - np.mean([t.dice.mean() for t in theirs])
    assert found["dice"].mean == pytest.approx(expected)
    assert found["dice"].low < expected < found["dice"].high
    iou = np.mean([o.iou.mean() for o in ours]) - np.mean([t.iou.mean() for t in theirs])
    assert found["iou"].mean == pytest.approx(iou)


def test_folds_count_by_their_films():
    rng = np.random.default_rng(1)
    sides = [
        [fit(rng, np.zeros(n), level, 0, first) for n, first in ((10, 0), (30, 100))]
        for level in (0.7, 0.4)
    ]
    found = methods.compare(*sides, 100, 0)["dice"]
    gaps = [ours.dice - theirs.dice for ours, theirs in zip(*sides, strict=True)]
    assert found.mean == pytest.approx(np.concatenate(gaps).mean())
    assert found.low == pytest.approx(0.3, abs=0.03)


def test_intervals_of_methods_hold_the_difference_that_networks_miss():
    """Two equal methods, 150 times: how often 0 lies in the interval of 95 %."""
    held = {"methods": 0, "networks": 0}
    for draw in range(150):
        rng = np.random.default_rng(draw)
        films = rng.normal(0, 0.1, 60)
        ours, theirs = ([fit(rng, films, 0.6) for _ in range(5)] for _ in range(2))
        gap = methods.compare(ours, theirs, 200, draw)["dice"]
        held["methods"] += gap.low <= 0 <= gap.high
        gap = scores.paired(ours[0], theirs[0], 200, draw)["dice"]
        held["networks"] += gap.low <= 0 <= gap.high
    assert held["methods"] / 150 > 0.85
    assert held["networks"] / 150 < 0.4


def test_methods_without_common_films_or_with_one_fit_are_not_compared():
    rng = np.random.default_rng(0)
    one, other = fit(rng, np.zeros(8), 0.5), fit(rng, np.zeros(8), 0.5, first=50)
    with pytest.raises(PneumoError, match="same folds or divisions"):
        methods.compare([one, one], [other, other], 10, 0)
    with pytest.raises(PneumoError, match="but one"):
        methods.compare([one], [one, one], 10, 0)
