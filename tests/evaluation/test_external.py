"""External against internal validation."""

import numpy as np
import pytest

from pneumo.evaluation import external
from pneumo.evaluation.results import Internal, Scored


def scored(values, intervals):
    return Scored(10, values, intervals)


def test_the_interval_of_a_drop_comes_of_both_intervals():
    ours = scored({"dice": 0.7, "iou": 0.6}, {"dice": (0.6, 0.75)})
    theirs = scored({"dice": 0.85, "iou": 0.7}, {"dice": (0.82, 0.87)})
    found = external.drops(ours, Internal(theirs, ""))
    dice = found["dice"]
    assert (dice.internal, dice.external) == (0.85, 0.7)
    assert dice.difference == pytest.approx(-0.15)
    bounds = -0.15 - np.hypot(0.1, 0.02), -0.15 + np.hypot(0.05, 0.03)
    assert dice.interval == pytest.approx(bounds)
    assert found["iou"].interval is None  # one of them is not known


def test_it_is_as_wide_as_that_of_two_independent_bootstraps():
    """Means of two samples of other films: percentiles of each, and of their difference."""
    rng = np.random.default_rng(0)
    samples = rng.beta(2, 1, 300), rng.beta(4, 1, 500)
    draws = [rng.choice(values, (4000, len(values))).mean(1) for values in samples]
    bounds = [tuple(np.percentile(one, (2.5, 97.5))) for one in draws]
    means = [values.mean() for values in samples]
    found = external.drops(
        scored({"dice": means[0]}, {"dice": bounds[0]}),
        Internal(scored({"dice": means[1]}, {"dice": bounds[1]}), ""),
    )
    expected = np.percentile(draws[0] - draws[1], (2.5, 97.5))
    assert found["dice"].interval == pytest.approx(expected, abs=0.003)


def test_only_what_both_have_and_what_depends_on_the_model_is_compared():
    ours = scored({"dice": None, "roc_auc": 0.9, "all_empty_dice": 0.8, "box_iou": 0.4}, {})
    theirs = scored({"dice": 0.9, "roc_auc": 0.95, "all_empty_dice": 0.7}, {})
    assert list(external.drops(ours, Internal(theirs, ""))) == ["roc_auc"]
