"""A classifier of what several networks say of a film."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pneumo.errors import PneumoError
from pneumo.inference import stack
from pneumo.inference.stack import Stack
from pneumo.masks.histograms import Histograms

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)) * [1, 10, 0.1] + [0, 5, 2]
POSITIVE = X[:, 0] + RNG.normal(size=60) > 0


def test_it_gives_what_scikit_learn_gives_and_comes_back_from_json():
    made = stack.fit("abc", X, POSITIVE)
    scaled = (X - X.mean(0)) / X.std(0)
    expected = LogisticRegression().fit(scaled, POSITIVE).predict_proba(scaled)[:, 1]
    assert made(X) == pytest.approx(expected, abs=1e-6)
    again = Stack.from_dict(json.loads(json.dumps(made.to_dict())))
    assert np.array_equal(again(X), made(X))
    assert (made.films, made.positives) == (60, POSITIVE.sum())


def test_a_feature_that_is_the_same_for_all_films_says_nothing():
    same = np.column_stack([X, np.full(60, 7.0)])
    made = stack.fit("abcd", same, POSITIVE)
    assert made(same) == pytest.approx(stack.fit("abc", X, POSITIVE)(X), abs=1e-6)
    assert Stack.from_dict(made.to_dict()) == made


def test_each_group_is_judged_by_the_classifier_of_the_others():
    group = np.arange(60) % 3
    told, fitted = stack.out_of_group("abc", X, POSITIVE, group)
    for number in range(3):
        others = stack.fit("abc", X[group != number], POSITIVE[group != number])
        assert np.array_equal(told[group == number], others(X[group == number]))
        assert fitted[number].films == 40


def test_features_count_pixels_and_take_the_score():
    totals = np.zeros((2, 256), np.int64)
    totals[0, 0] = 100
    totals[1, [0, 30, 200, 255]] = [70, 10, 15, 5]
    said = Histograms(totals, np.zeros_like(totals))
    names, x = stack.features(said, np.array([0.5, 0.75], np.float32))
    assert names[1:] == [
        *("log pixels above 0.1", "log pixels above 0.5", "log pixels above 0.9"),
        "presence",
    ]
    assert x[0, 1:4].tolist() == [0, 0, 0]
    assert x[1, 1:4] == pytest.approx(np.log1p([30, 20, 5]))
    assert x[:, 4] == pytest.approx([0, np.log(3)])
    assert x[:, 0] == pytest.approx([-np.log(509), np.log(509)])
    assert len(stack.features(said, None)[0]) == 4


def test_films_of_one_kind_and_numbers_that_do_not_fit_are_refused():
    with pytest.raises(PneumoError, match=r"with and without pneumothorax; of 60 films 0"):
        stack.fit("abc", X, np.zeros(60, bool))
    made = stack.fit("abc", X, POSITIVE).to_dict()
    with pytest.raises(ValueError, match="do not fit"):
        Stack.from_dict({**made, "mean": [0.0]})
