import csv
import gzip

import cv2
import numpy as np
import pytest

from pneumo.masks import rle
from pneumo.masks.resize import enlarge, shrink, shrink_mask


def rectangle(top, left, rows, columns):
    mask = np.zeros((1024, 1024), np.uint8)
    mask[top : top + rows, left : left + columns] = 1
    return mask


def centre(mask):
    """Centroid as a share of the film's side."""
    return (np.mean(np.nonzero(mask), axis=1) + 0.5) / len(mask)


def test_what_is_aligned_shrinks_to_itself():
    assert np.array_equal(shrink_mask(rectangle(256, 512, 64, 128), 64), rectangle_of_64())
    assert shrink_mask(rectangle(0, 0, 1024, 1024), 64).all()
    assert not shrink_mask(np.zeros((1024, 1024), np.uint8), 64).any()


def rectangle_of_64():
    mask = np.zeros((64, 64), np.uint8)
    mask[16:20, 32:40] = 1
    return mask


def test_a_mask_of_the_size_that_is_asked_for_is_copied_as_it_is():
    mask = (np.random.default_rng(0).random((64, 64)) < 0.3).astype(np.uint8)
    same = shrink_mask(mask, 64)
    assert np.array_equal(same, mask)
    assert not np.shares_memory(same, mask)


@pytest.mark.parametrize("shape", [(64, 64), (96, 48), (50, 64), (16, 16), (9, 130)])
def test_looking_at_the_box_around_a_mask_alone_changes_nothing(shape):
    """The most covered pixels of the whole film, whatever lies in a corner or at an edge."""
    rng = np.random.default_rng(0)
    for place in range(12):
        mask = np.zeros(shape, np.uint8)
        top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        mask[top : top + 11, left : left + 7] = (
            rng.random(mask[top : top + 11, left : left + 7].shape) < 0.7
        )
        mask[0, 0] = place % 2
        mask[-1, -1] = place % 3 == 0
        covered = cv2.resize(mask.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA)
        small = shrink_mask(mask, 16)
        assert small.sum() == (max(1, round(float(covered.sum()))) if covered.any() else 0)
        if small.any():
            assert covered[small == 1].min() >= covered[small == 0].max(initial=0)


def test_no_positive_film_becomes_empty():
    assert shrink_mask(rectangle(500, 500, 3, 2), 64).sum() == 1


@pytest.mark.parametrize("size", [256, 512])
def test_half_covered_pixels_move_neither_edges_nor_places(size):
    step = 1024 // size
    half = step // 2
    for top, left in ((half, 0), (0, half), (half, half)):
        mask = rectangle(200 + top, 300 + left, 320, 240)
        small = shrink_mask(mask, size)
        assert small.sum() * step**2 == pytest.approx(mask.sum(), abs=step**2 / 2)
        assert centre(small) == pytest.approx(centre(mask), abs=0.05 / size)


@pytest.mark.parametrize("size", [256, 512])
def test_lesions_of_the_challenge_keep_area_and_place(real_data, size):
    with gzip.open(real_data / "siim" / "stage_2_train.csv.gz", "rt") as file:
        rows = [row[1] for row in csv.reader(file) if row[1].strip()[:1].isdigit()]
    masks = [rle.union([row], (1024, 1024)) for row in rows[::40]]
    small = [shrink_mask(mask, size) for mask in masks]
    areas = [a.sum() * (1024 / size) ** 2 / b.sum() for a, b in zip(small, masks, strict=True)]
    apart = [centre(a) - centre(b) for a, b in zip(small, masks, strict=True)]
    assert len(masks) > 80
    assert np.mean(areas) == pytest.approx(1, abs=0.001)
    assert np.abs(np.mean(apart, axis=0)).max() * size < 0.05


def test_a_film_shrinks_to_means_and_a_map_grows_to_any_shape():
    film = np.array([[10, 20, 0, 0], [30, 40, 0, 200], [7, 7, 9, 9], [7, 7, 9, 9]], np.uint8)
    assert shrink(film, 2).tolist() == [[25, 50], [7, 9]]
    levels = np.full((4, 4), 90, np.uint8)
    assert np.array_equal(enlarge(levels, (6, 10)), np.full((6, 10), 90))
    same = enlarge(levels, (4, 4))
    same[:] = 0
    assert levels.min() == 90  # a copy, also at the same size
