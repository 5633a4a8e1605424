"""A probability is right where it is the share; and who knows nothing does not look good."""

import numpy as np
import pytest
from sklearn import metrics as independent

from pneumo.evaluation import calibration
from pneumo.evaluation.scores import Outcomes
from pneumo.masks.histograms import Histograms


def pixels(level, truth):
    """Of levels (k,) and truths (k,), one film."""
    total = np.bincount(level, minlength=256)[None]
    inside = np.bincount(level[truth], minlength=256)[None]
    return calibration.of_pixels(Histograms(total.astype(np.int32), inside.astype(np.int32)))


def films(score, positive, patients=None):
    n = len(score)
    truth = np.where(positive, 100, 0)
    names = [str(i) for i in range(n)]
    return Outcomes(names, truth, truth, truth, score, patients or names, [None] * n)


def test_pixels_whose_probability_is_the_share_have_no_error():
    levels = np.repeat(np.arange(13, 256), 255)
    truth = np.concatenate([np.arange(255) < level for level in range(13, 256)])
    found = pixels(levels, truth)
    assert found.ece == pytest.approx(0, abs=1e-9)
    assert found.share == pytest.approx(found.probability)
    assert found.missed == 0


def test_a_network_that_says_nothing_everywhere_does_not_look_calibrated():
    """Of a million pixels 8,200 are pneumothorax: over all pixels its error would be .0082."""
    truth = np.arange(1_000_000) < 8_200
    found = pixels(np.zeros(len(truth), np.int64), truth)
    assert found.ece == 1
    assert (found.count, found.missed) == ([], 8_200)


def test_background_that_is_known_to_be_background_counts_nowhere():
    truth = np.arange(300) < 100
    levels = np.where(truth, 204, 0)
    alone, among = (
        pixels(np.r_[levels, np.zeros(extra, int)], np.r_[truth, np.zeros(extra, bool)])
        for extra in (0, 10**6)
    )
    assert alone == among
    assert alone.ece == pytest.approx(0.2)
    assert pixels(np.full(100, 255), np.arange(100) < 50).ece == pytest.approx(0.5)


def test_missed_and_shown_pixels_weigh_alike():
    """60 pixels at .8, all true, and 40 true ones at 0: (60 · .2 + 40 · 1) / 100."""
    found = pixels(np.r_[np.full(60, 204), np.zeros(40, int)], np.ones(100, bool))
    assert found.ece == pytest.approx(0.52)


def overconfident(n=2000, seed=0):
    """Films whose score is nearly always near 1, as that of a map's maximum."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.22
    score = 1 / (1 + np.exp(-rng.normal(3 + 2.5 * positive, 1.5)))
    return films((score * 255).round() / 255, positive)


def test_a_curve_of_other_films_makes_probabilities_of_scores():
    one = overconfident()
    groups = np.arange(len(one)) % 2
    found = calibration.of_films(one, groups, "halves", 200, 0)
    assert found.raw.ece > 0.5
    assert found.calibrated.ece < 0.04
    assert found.brier < found.share_brier < found.raw_brier
    assert found.brier_interval[0] < found.brier < found.brier_interval[1]
    assert found.raw_brier == pytest.approx(independent.brier_score_loss(one.positive, one.score))


def test_each_film_has_the_curve_of_the_others():
    one = overconfident(400)
    groups = np.arange(len(one)) % 2
    changed = films(one.score, np.where(groups == 0, ~one.positive, one.positive))
    probability = {}

    def note(kept, values, *rest):
        probability[id(kept)] = values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "under", note)
        for each in (one, changed):
            calibration.of_films(each, groups, "", 0, 0)
    before, after = probability[id(one)], probability[id(changed)]
    assert np.array_equal(before[groups == 0], after[groups == 0])
    assert not np.allclose(before[groups == 1], after[groups == 1])


def test_scores_that_tell_nothing_become_the_share_of_positives():
    positive = np.arange(400) % 4 == 0
    found = calibration.of_films(films(np.ones(400), positive), np.arange(400) // 200, "", 0, 0)
    assert found.calibrated.probability == pytest.approx([0.25], abs=0.005)
    assert found.brier == pytest.approx(found.share_brier, abs=1e-4)


def test_no_curve_is_fitted_on_one_class():
    positive = np.arange(20) < 5
    groups = (np.arange(20) < 10).astype(int)
    assert calibration.of_films(films(np.linspace(0, 1, 20), positive), groups, "", 0, 0) is None
