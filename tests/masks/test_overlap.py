"""Dice and IoU by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pneumo.masks.overlap import dice, iou

# overlap, predicted, truth: both empty, false positive, false negative, perfect, half
OVERLAP, PREDICTED, TRUTH = np.array([[0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 2], [1, 2, 2]]).T


def test_dice_and_iou_in_all_five_cases():
    assert dice(OVERLAP, PREDICTED, TRUTH).tolist() == [1, 0, 0, 1, 0.5]
    assert iou(OVERLAP, PREDICTED, TRUTH).tolist() == [1, 0, 0, 1, 1 / 3]


pairs = arrays(np.uint8, (2, 4, 5), elements=st.integers(0, 1))


@given(pairs)
def test_dice_and_iou_of_any_two_masks_are_those_of_their_sets_of_pixels(masks):
    predicted, truth = (set(np.flatnonzero(mask).tolist()) for mask in masks)
    counts = [np.array([len(one)]) for one in (predicted & truth, predicted, truth)]
    either = predicted | truth
    expected = len(predicted & truth) / len(either) if either else 1
    assert iou(*counts).item() == pytest.approx(expected)
    assert dice(*counts).item() == pytest.approx(2 * expected / (1 + expected))
    assert dice(counts[0], counts[2], counts[1]) == dice(*counts)
