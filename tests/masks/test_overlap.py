"""Dice and IoU by hand."""

import numpy as np

from pneumo.masks.overlap import dice, iou

# overlap, predicted, truth: both empty, false positive, false negative, perfect, half
OVERLAP, PREDICTED, TRUTH = np.array([[0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 2], [1, 2, 2]]).T


def test_dice_and_iou_in_all_five_cases():
    assert dice(OVERLAP, PREDICTED, TRUTH).tolist() == [1, 0, 0, 1, 0.5]
    assert iou(OVERLAP, PREDICTED, TRUTH).tolist() == [1, 0, 0, 1, 1 / 3]
