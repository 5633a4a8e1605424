"""Pixels by level of probability: enough to score every threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pneumo.masks.histograms import Histograms, film_score, histogram
from pneumo.masks.rule import to_mask
from pneumo.masks.settings import Postprocess, Removal

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


few_levels = arrays(np.uint8, (6, 6), elements=st.sampled_from([0, 1, 51, 127, 128, 254, 255]))
masks = arrays(np.uint8, (6, 6), elements=st.integers(0, 1))
# of two decimals, as people choose them, and those that levels stand for
thresholds = st.integers(0, 99).map(lambda i: i / 100) | st.integers(0, 254).map(lambda i: i / 255)


@given(few_levels, masks, thresholds)
def test_pixels_above_any_threshold_are_those_that_a_comparison_finds(levels, truth, threshold):
    found = counted((levels, truth))
    above = levels / 255 > threshold
    assert found.predicted([threshold]).item() == above.sum()
    assert found.overlap([threshold]).item() == (above & (truth > 0)).sum()
    assert found.truth.item() == truth.sum()
    emptied = found.emptied(np.array([True]))
    assert emptied.predicted([threshold]).item() == emptied.overlap([threshold]).item() == 0
    assert emptied.truth.item() == truth.sum()


@pytest.mark.parametrize("removal", list(Removal))
@given(levels=few_levels, area=st.integers(0, 12), threshold=st.integers(1, 99))
def test_a_film_is_marked_at_a_threshold_just_where_its_score_exceeds_it(
    removal, levels, area, threshold
):
    rule = Postprocess(threshold / 100, area, 6, removal)
    score = film_score(levels, rule)
    assert to_mask(levels, rule).any() == (score > threshold / 100)
