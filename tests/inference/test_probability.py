"""The curve from a film's score to its probability, against scikit-learn's logistic regression."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pneumo.inference.probability import LEAST, Platt, fit


def test_the_curve_is_that_of_a_logistic_regression_with_platts_targets():
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.3
    score = np.clip(rng.normal(0.6 + 0.2 * positive, 0.2), 0, 1)
    inside = np.clip(score, LEAST, 1 - LEAST)
    x = np.log(inside / (1 - inside))[:, None]
    high, low = (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2)
    target = np.where(positive, high, low)
    # each film twice: as a positive with the weight of its target, as a negative with the rest
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(
        np.r_[x, x], np.r_[np.ones(300), np.zeros(300)], sample_weight=np.r_[target, 1 - target]
    )
    found = fit(score, positive)
    assert found.slope == pytest.approx(model.coef_[0, 0], abs=1e-4)
    assert found.intercept == pytest.approx(model.intercept_[0], abs=1e-4)
    assert found(score) == pytest.approx(model.predict_proba(x)[:, 1], abs=1e-5)


def test_by_default_a_probability_is_the_score_itself():
    score = np.array([0.0, 0.3, 1.0])
    assert Platt()(score) is score


def test_the_curve_never_turns_the_ranking_round():
    score = np.linspace(0, 1, 100)
    up, down = fit(score, score > 0.7), fit(score, score < 0.3)
    assert (np.diff(up(score)) >= 0).all()
    assert down.slope == 0
    assert down(score) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    "score", [np.r_[np.zeros(10), np.ones(10)], np.ones(20)], ids=["told", "same"]
)
def test_scores_that_tell_all_or_nothing_have_a_curve_too(score):
    found = fit(score, np.arange(20) >= 10)
    assert np.isfinite([found.slope, found.intercept]).all()
    assert ((found(score) > 0) & (found(score) < 1)).all()


def test_one_class_has_no_curve():
    assert fit(np.array([0.1, 0.9]), np.array([True, True])) is None
