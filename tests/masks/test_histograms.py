"""Pixels by level of probability: enough to score every threshold."""

import numpy as np

from pneumo.masks.histograms import Histograms, histogram

LEVELS = np.array([[0, 128], [255, 255]], np.uint8)
TRUTH = np.array([[0, 1], [1, 0]], np.uint8)


def counted(*films):
    tables = [histogram(levels, truth) for levels, truth in films]
    return Histograms(*(np.stack(column) for column in zip(*tables, strict=True)))


def test_pixels_above_thresholds_are_counted_in_all_and_in_the_true_mask():
    found = counted((LEVELS, TRUTH), (LEVELS, 0 * TRUTH))
    assert found.truth.tolist() == [2, 0]
    # 128 stands for .502, so it exceeds .5 and not .51
    assert found.predicted([0.5, 0.51, 0.99]).tolist() == [[3, 2, 2]] * 2
    assert found.overlap([0.5, 0.51, 0.99]).tolist() == [[2, 1, 1], [0, 0, 0]]
    assert found[np.array([1])].truth.tolist() == [0]


def test_a_film_scores_the_highest_probability_that_enough_pixels_reach():
    found = counted((LEVELS, TRUTH))
    areas = {0: 1.0, 2: 1.0, 3: 128 / 255, 4: 0.0}
    assert {area: found.score(area).item() for area in areas} == areas
