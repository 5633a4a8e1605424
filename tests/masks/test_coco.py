"""COCO's run lengths and polygons, by hand-made examples; its order and its strings."""

import numpy as np
import pytest

from pneumo.masks import coco, rle

#  . X .   COCO counts down the columns: one zero, two ones, two zeros, one one
#  X . .   (rows, columns) = (3, 2) below, so that rows and columns cannot be taken for each other
MASK = np.array([[0, 0], [1, 0], [1, 1]], np.uint8)
COUNTS = [1, 2, 2, 1]


def test_counts_go_down_the_columns_and_begin_with_zeros():
    assert coco.from_counts(COUNTS, (3, 2)) == "1 2 2 1"
    assert np.array_equal(rle.decode(coco.from_counts(COUNTS, (3, 2)), (3, 2)), MASK)
    assert coco.to_counts(MASK) == COUNTS
    assert coco.from_counts([0, 6], (3, 2)) == "0 6"
    assert coco.to_counts(np.ones((3, 2), np.uint8)) == [0, 6]
    assert coco.from_counts([6], (3, 2)) == rle.EMPTY
    assert coco.to_counts(np.zeros((3, 2), np.uint8)) == [6]


def test_strings_of_counts_are_groups_of_five_bits():
    # 1 → '1', 2 → '2', 2 → '2', and 1 as its difference to 2, -1 → 31 → 'O'
    assert coco.from_counts("122O", (3, 2)) == "1 2 2 1"
    assert coco.compressed(COUNTS) == "122O"
    # 100 = 00011 00100: 4 + 32 → 'T', 3 → '3'
    assert coco.compressed([100]) == "T3"
    # 16 has the bit of the sign, so that a second group must follow: 16 + 32 → '`', '0'
    assert coco.compressed([16]) == "`0"
    assert coco.from_counts("`0", (4, 4)) == rle.EMPTY


@pytest.mark.parametrize(("text", "shape"), [("PVWX6", (2320, 2828)), ("nefl3", (2022, 2021))])
def test_empty_masks_of_the_published_sample_of_chexlocalize(text, shape):
    assert coco.from_counts(text, shape) == rle.EMPTY
    assert coco.compressed([shape[0] * shape[1]]) == text


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_every_mask_comes_back(share):
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = (rng.random((37, 23)) < share).astype(np.uint8)
        numbers = coco.to_counts(mask)
        for counts in (numbers, coco.compressed(numbers), coco.compressed(numbers).encode()):
            assert np.array_equal(rle.decode(coco.from_counts(counts, mask.shape), (37, 23)), mask)


def test_runs_of_no_length_join_their_neighbours():
    assert coco.from_counts([1, 1, 0, 1, 3], (3, 2)) == "1 2"
    assert coco.from_counts([1, 0, 1, 2, 2], (3, 2)) == "2 2"
    assert coco.from_counts([4, 0, 2], (3, 2)) == rle.EMPTY
    assert coco.from_counts([4, 0, 2, 0], (3, 2)) == rle.EMPTY


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "count 3 pixels, but 3 rows of 2 columns have 6"),
        ([1, -2, 7], "length -2"),
        ([1.5, 4.5], "whole numbers or a string"),
        (None, "whole numbers or a string"),
        ("12\u20ac", "character"),
        ("12T", "middle of a number"),
    ],
)
def test_counts_that_do_not_fit_their_image_are_refused(counts, message):
    with pytest.raises(rle.RLEError, match=message):
        coco.from_counts(counts, (3, 2))


def test_polygons_are_filled_with_their_outlines():
    mask = coco.filled([[(1, 1), (4, 1), (4, 2), (1, 2)]], (5, 8))
    assert mask.shape == (5, 8)
    assert mask.sum() == 8
    assert mask[1:3, 1:5].all()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0], [8, 5], [3, 6]], r"reaches \(3, 6\), outside the film of 8 × 5 pixels"),
        ([[0, 0], [9, 5], [3, 2]], r"reaches \(9, 5\)"),
        ([[0, 0], [float("nan"), 5], [3, 2]], "outside"),
        ([[0, 0], [1, 1]], "three or more points"),
        ([[0, 0, 1], [1, 1, 1], [2, 2, 2]], "three or more points"),
        ("abc", "three or more points"),
    ],
)
def test_polygons_outside_their_film_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        coco.polygon(points, (5, 8))
    assert len(coco.polygon([[0, 0], [8, 5], [3, 5]], (5, 8))) == 3
