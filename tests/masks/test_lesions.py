"""Which lesions are found: by hand, and against scipy's components."""

import numpy as np
import pytest
from scipy import ndimage

from pneumo.masks import lesions


def films(*boxes, shape=(60, 60)):
    mask = np.zeros(shape, np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 1
    return mask


def match(predicted, truth, least=1, overlap=0.1):
    return lesions.match(predicted, truth, predicted * 200, least, overlap)


def test_a_lesion_is_found_by_a_component_that_overlaps_enough():
    truth = films((0, 0, 10, 10), (30, 30, 10, 10))
    predicted = films((0, 0, 10, 5), (30, 39, 10, 10), (50, 0, 4, 4))
    found = match(predicted, truth)
    # half of the first; a tenth of the second, IoU 10 / 190; nothing of the third
    assert (found.hits, found.false, found.missed) == (1, 2, 1)
    assert match(predicted, truth, overlap=10 / 190).hits == 2


def test_each_lesion_and_each_component_is_matched_once():
    two = films((0, 0, 10, 10), (0, 11, 10, 10))
    one = films((0, 0, 10, 21))
    for predicted, truth, false, missed in ((two, one, 1, 0), (one, two, 0, 1)):
        found = match(predicted, truth)
        assert (found.hits, found.false, found.missed) == (1, false, missed)


def test_crumbs_count_on_neither_side():
    found = match(films((0, 0, 3, 3), (20, 20, 10, 10)), films((0, 0, 3, 3), (40, 40, 5, 5)), 10)
    assert (found.count, found.hits, found.false, found.missed) == (1, 0, 1, 1)


def test_diagonal_neighbours_are_one_component():
    predicted = films((0, 0, 5, 5), (5, 5, 5, 5))
    assert match(predicted, predicted).count == 1


def test_a_component_scores_the_level_that_enough_of_its_pixels_reach():
    levels = np.zeros((20, 20), np.uint8)
    levels[2:8, 2:8] = np.arange(36).reshape(6, 6) + 100
    mask = (levels > 0).astype(np.uint8)
    found = lesions.match(mask, 0 * mask, levels, 10, 0.1)
    assert found.score == pytest.approx([126 / 255])
    assert lesions.match(mask, 0 * mask, levels, 1, 0.1).score == pytest.approx([135 / 255])


def test_nothing_predicted_and_nothing_true():
    empty, some = films(), films((0, 0, 9, 9))
    assert (match(empty, empty).count, len(match(empty, empty).hit)) == (0, 0)
    assert match(empty, some).missed == 1
    assert match(some, empty).false == 1


def test_hits_equal_those_counted_pair_by_pair_with_other_components():
    rng = np.random.default_rng(0)
    for _ in range(10):
        predicted, truth = (
            (ndimage.gaussian_filter(rng.normal(size=(80, 80)), 3) > 0.05).astype(np.uint8)
            for _ in range(2)
        )
        parts = [ndimage.label(mask, np.ones((3, 3))) for mask in (predicted, truth)]
        pairs = []
        for a in range(1, parts[0][1] + 1):
            for b in range(1, parts[1][1] + 1):
                ours, theirs = parts[0][0] == a, parts[1][0] == b
                if min(ours.sum(), theirs.sum()) >= 20:
                    pairs.append(((ours & theirs).sum() / (ours | theirs).sum(), a, b))
        hits, used = 0, set()
        for iou, a, b in sorted(pairs, reverse=True):
            if iou >= 0.1 and not {("a", a), ("b", b)} & used:
                hits, used = hits + 1, used | {("a", a), ("b", b)}
        assert match(predicted, truth, 20).hits == hits
