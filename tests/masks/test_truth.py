"""What is known of films: masks, boxes, labels."""

import numpy as np
import pytest

from pneumo.masks import rle, truth
from pneumo.masks.resize import shrink_mask
from pneumo.masks.truth import Truth


def test_of_several_films_the_least_is_known():
    assert truth.least([Truth.masks, Truth.labels, Truth.boxes]) is Truth.labels
    assert truth.least([Truth.masks, Truth.boxes]) is Truth.boxes
    assert truth.least([]) is Truth.masks


def test_a_label_stands_for_the_whole_film_at_any_size():
    whole = rle.union(truth.WHOLE, truth.WHOLE_SHAPE)
    assert shrink_mask(whole, 32).all()


def test_a_box_holds_every_pixel_that_it_touches():
    mask = rle.decode(truth.of_box((2.5, 1, 3, 2.2), (8, 10)), (8, 10))
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 3, 2, 5)
    assert mask.sum() == 3 * 4


@pytest.mark.parametrize(
    "box", [(-1, 0, 2, 2), (0, 0, 11, 2), (0, 7, 1, 2), (1, 1, 0, 2), (1, float("nan"), 1, 1)]
)
def test_a_box_outside_its_film_is_refused(box):
    with pytest.raises(ValueError, match="not inside the film of 10 × 8 pixels"):
        truth.of_box(box, (8, 10))


def box(top, left, height, width):
    mask = np.zeros((20, 20), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def test_boxes_are_compared_with_the_boxes_of_components():
    predicted = box(0, 0, 4, 4) | box(10, 10, 5, 5)
    predicted[1:3, 1:3] = 0  # a ring has the box of what it rings
    boxes = [box(0, 0, 4, 4), box(10, 10, 5, 10), box(0, 16, 2, 2)]
    assert truth.overlap_of_boxes(boxes, predicted) == pytest.approx([1, 0.5, 0])
    assert truth.overlap_of_boxes(boxes, np.zeros((20, 20), np.uint8)).tolist() == [0, 0, 0]
    assert len(truth.overlap_of_boxes([], predicted)) == 0
