"""Operating points against scikit-learn's curves and by hand."""

import numpy as np
import pytest
from sklearn import metrics as independent

from pneumo.evaluation import operating, scores
from pneumo.evaluation.operating import Fixed
from pneumo.evaluation.scores import Outcomes
from pneumo.evaluation.settings import Measures
from pneumo.evaluation.shapes import Candidates


def outcomes(n, patients=60):
    """Films of which every other is positive, with scores that tell a little, some of them tied."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 2 * 100
    score = np.clip(rng.normal(truth / 400 + 0.4, 0.2), 0, 1).round(2)
    names = [f"p{i}" for i in rng.integers(0, patients, n)]
    return Outcomes(names, truth, truth, truth, score, names, [None] * n)


def test_sensitivity_at_a_specificity_is_the_best_of_the_curve():
    films = outcomes(n=400)
    false, true, _ = independent.roc_curve(films.positive, films.score, drop_intermediate=False)
    for point in operating.of_films(films, [0.5, 0.8, 0.9, 0.95, 0.999], 0.05, 0, 0):
        allowed = 1 - false >= point.wanted
        assert point.scores["sensitivity"] == pytest.approx(true[allowed].max())
        called = films.score >= (np.inf if point.threshold is None else point.threshold)
        assert point.scores["sensitivity"] == pytest.approx(called[films.positive].mean())
        assert point.scores["specificity"] == pytest.approx((~called)[~films.positive].mean())


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9, 0.95, 0.999])
def test_specificity_at_a_sensitivity_is_the_best_of_the_curve(wanted):
    films = outcomes(n=400)
    false, true, _ = independent.roc_curve(films.positive, films.score, drop_intermediate=False)
    (point,) = operating.of_films(films, [wanted], 0.05, 0, 0, fixed=Fixed.sensitivity)
    assert point.scores["specificity"] == pytest.approx(1 - false[true >= wanted].min())
    called = films.score >= point.threshold
    assert point.scores["sensitivity"] == pytest.approx(called[films.positive].mean())
    assert point.scores["sensitivity"] >= wanted


def test_a_sensitive_point_by_hand():
    """Four of five positives stand above all but two of ten negatives, the fifth above none."""
    score = np.r_[0.9, 0.8, 0.7, 0.6, 0.1, 0.75, 0.75, np.full(8, 0.3)]
    truth = np.r_[np.full(5, 50), np.zeros(10)].astype(int)
    names = [str(i) for i in range(15)]
    films = Outcomes(names, truth, truth, truth, score, names, [None] * 15)
    two, four, five = operating.of_films(
        films, [0.4, 0.8, 0.9], 0.05, 100, 0, fixed=Fixed.sensitivity
    )
    # with two found no negative is called positive, though more might be
    assert (two.threshold, two.scores["specificity"]) == (0.8, 1)
    assert (four.threshold, four.scores["specificity"]) == (0.6, pytest.approx(0.8))
    assert four.scores["ppv"] == pytest.approx(0.8 * 0.05 / (0.8 * 0.05 + 0.2 * 0.95))
    assert four.intervals["specificity"][0] < 0.8 < four.intervals["specificity"][1]
    assert (five.threshold, five.scores["specificity"]) == (0.1, 0)
    negatives = films[np.arange(5, 15)]
    assert operating.of_films(negatives, [0.8], 0.05, 10, 0, fixed=Fixed.sensitivity) == []
    assert operating.of_films(films[np.arange(5)], [0.8], 0.05, 10, 0) == []


def test_ppv_and_npv_are_those_of_the_stated_prevalence():
    """Of 1,000 films with 5 % positive: 40 of 50 found and 95 of 950 called without."""
    score = np.r_[np.full(8, 0.9), np.full(2, 0.1), np.full(10, 0.9), np.full(90, 0.1)]
    truth = np.r_[np.full(10, 50), np.zeros(100)].astype(int)
    names = [str(i) for i in range(110)]
    films = Outcomes(names, truth, truth, truth, score, names, [None] * 110)
    (point,) = operating.of_films(films, [0.9], 0.05, 0, 0)
    assert point.threshold == 0.9
    assert point.scores["ppv"] == pytest.approx(40 / (40 + 95))
    assert point.scores["npv"] == pytest.approx(855 / (855 + 10))
    (strict,) = operating.of_films(films, [0.95], 0.05, 50, 0)
    assert "ppv" not in strict.intervals
    assert (strict.threshold, strict.scores["sensitivity"], strict.scores["ppv"]) == (None, 0, None)


def test_intervals_of_operating_points_come_from_resamples_of_patients():
    films = outcomes(n=200, patients=40)
    (point,) = operating.of_films(films, [0.8], 0.05, 300, 1)
    low, high = point.intervals["sensitivity"]
    assert low < point.scores["sensitivity"] < high
    alone = Outcomes(*{**vars(films), "patients": ["one"] * 200}.values())
    assert operating.of_films(alone, [0.8], 0.05, 300, 1)[0].intervals == {}


def test_froc_by_hand():
    """Four films, five lesions. From high to low: hit, false, hit, false, false, hit."""
    candidates = Candidates(
        film=np.array([0, 0, 1, 2, 3, 3]),
        score=np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
        hit=np.array([True, False, True, False, False, True]),
        lesions=np.array([2, 1, 0, 2]),
    )
    points = operating.of_lesions(candidates, ["a", "b", "c", "d"], 100, 0)
    assert [(point.wanted, point.scores["sensitivity"]) for point in points] == [
        (0.125, 1 / 5),
        (0.25, 2 / 5),
        (0.5, 2 / 5),
        (0.75, 3 / 5),
    ]
    assert points[1].threshold == 0.7
    assert points[1].intervals["sensitivity"][0] < 2 / 5


def test_froc_without_candidates_finds_nothing_and_without_lesions_is_none():
    none = Candidates(np.zeros(0, int), np.zeros(0), np.zeros(0, bool), np.array([1, 0]))
    (point,) = operating.of_lesions(none, ["a", "b"], 10, 0)
    assert (point.wanted, point.scores["sensitivity"]) == (0, 0)
    assert operating.of_lesions(Candidates(*[none.film] * 3, np.zeros(2)), ["a", "b"], 10, 0) == []


def test_a_threshold_that_is_sensitive_on_other_films_is_what_it_is_here():
    films, others = outcomes(n=200), outcomes(n=300)
    others.score = others.score * 0.5
    (own,) = operating.of_films(others, [0.9], 0.05, 0, 0, fixed=Fixed.sensitivity)
    (point,) = operating.of_films(
        films, [0.9], 0.05, 100, 0, chosen_on=others, fixed=Fixed.sensitivity
    )
    assert point.threshold == own.threshold
    called = films.score >= own.threshold
    assert point.scores["specificity"] == pytest.approx((~called)[~films.positive].mean())
    assert point.scores["sensitivity"] == pytest.approx(called[films.positive].mean())
    assert point.scores["specificity"] < own.scores["specificity"]


def test_thresholds_of_other_films_give_what_they_give():
    films, others = outcomes(n=200), outcomes(n=300)
    others.score = others.score * 0.5
    (own,) = operating.of_films(others, [0.9], 0.05, 0, 0)
    (point,) = operating.of_films(films, [0.9], 0.05, 100, 0, chosen_on=others)
    assert point.threshold == own.threshold
    called = films.score >= own.threshold
    assert point.scores["sensitivity"] == pytest.approx(called[films.positive].mean())
    assert point.scores["specificity"] == pytest.approx((~called)[~films.positive].mean())
    assert point.scores["specificity"] < 0.9
    assert set(point.intervals) == {"sensitivity", "specificity", "ppv", "npv"}


@pytest.fixture
def sized():
    """Four negatives and six positives, a patient each; what is large is scored high."""
    truth = np.array([0, 0, 0, 0, 100, 100, 500, 500, 900, 900])
    score = np.array([0.1, 0.2, 0.3, 0.6, 0.2, 0.4, 0.5, 0.7, 0.8, 0.9])
    names = [str(i) for i in range(10)]
    return Outcomes(names, np.where(score > 0.45, 50, 0), truth, truth, score, names, [None] * 10)


def test_positives_of_at_least_a_size_are_judged_against_all_negatives(sized):
    """Of 24, 16 and 8 pairs of a positive and a negative film 19.5, 15 and 8 are in order."""
    how = Measures(least_px=[100, 101, 900, 901], specificities=[0.75], sensitivities=[0.9])
    *found, none = operating.by_size(sized, how, 0, 0)
    assert [(one.least_px, one.positives, one.negatives) for one in found] == [
        (100, 6, 4),
        (101, 4, 4),
        (900, 2, 4),
    ]
    # the film of .2 is above one negative and beside another, that of .4 above three
    auc = [(1.5 + 3 + 3 + 12) / 24, 15 / 16, 1]
    assert [one.scores["roc_auc"] for one in found] == pytest.approx(auc)
    assert [one.scores["sensitivity"] for one in found] == pytest.approx([4 / 6, 1, 1])
    points = [one.at_specificities[0].scores["sensitivity"] for one in found]
    assert points == pytest.approx([5 / 6, 1, 1])
    specific = [one.at_sensitivities[0].scores["specificity"] for one in found]
    assert specific == pytest.approx([1 / 4, 3 / 4, 1])
    assert (none.positives, none.negatives, none.at_sensitivities) == (0, 4, [])
    assert none.scores == {"roc_auc": None, "sensitivity": None}


def test_detection_by_size_has_intervals_by_patient_and_thresholds_of_other_films(sized):
    others = sized[np.arange(10)]
    others.score = others.score - 0.15
    how = Measures(least_px=[500], specificities=[0.75], sensitivities=[0.9])
    (one,) = operating.by_size(sized, how, 200, 0, chosen_on=others)
    low, high = one.intervals["roc_auc"]
    assert low < one.scores["roc_auc"] < high <= 1
    (point,) = one.at_sensitivities  # all four of the others' large ones stand at .35 or above
    assert point.threshold == pytest.approx(0.35)
    assert point.scores["sensitivity"] == 1
    assert point.scores["specificity"] == pytest.approx(3 / 4)
    small = others[np.arange(6)]
    (unknown,) = operating.by_size(sized, how, 0, 0, chosen_on=small)
    assert unknown.at_sensitivities == []


def test_sizes_that_no_film_has_are_left_out(sized):
    """A folder of small pneumothorax alone leaves no film to rank from a larger size on."""
    small = sized[np.flatnonzero(sized.positive)]
    largest = int(small.truth.max())
    how = Measures(least_px=[1, largest + 1])
    assert [one.least_px for one in operating.by_size(small, how, 0, 0)] == [1]


def test_points_are_the_same_where_many_films_are_resampled_some_at_a_time(monkeypatch):
    films = outcomes(n=60, patients=20)
    rng = np.random.default_rng(0)
    candidates = Candidates(
        rng.integers(0, 60, 90), rng.random(90).round(1), rng.random(90) < 0.5, np.ones(60, int)
    )

    def points():
        named = operating.of_films(films, [0.5, 0.9], 0.05, 20, 0)
        named += operating.of_films(films, [0.5], 0.05, 20, 0, films, Fixed.sensitivity)
        found = [point.intervals for point in named]
        found += [one.intervals for one in operating.by_size(films, Measures(), 20, 0)]
        return found + [
            point.intervals for point in operating.of_lesions(candidates, films.patients, 20, 0)
        ]

    whole = points()
    monkeypatch.setattr(scores, "WEIGHTS", 7 * 60)
    for some, every in zip(points(), whole, strict=True):
        assert set(some) == set(every)
        for key, bounds in every.items():
            assert some[key] == pytest.approx(bounds, rel=1e-12)
