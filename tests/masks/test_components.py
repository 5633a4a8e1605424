"""Connected components at several thresholds."""

import numpy as np

from pneumo.masks.components import components

LEVELS = np.zeros((8, 8), np.uint8)
LEVELS[0:2, 0:2] = 200
LEVELS[2:4, 2:4] = 100  # touches the first by a corner
LEVELS[7, 5:8] = 200
TRUTH = np.zeros((8, 8), np.uint8)
TRUTH[1:3, 1:3] = 1


def test_components_touch_by_corners_and_know_their_overlap():
    found = components(LEVELS, TRUTH, film=7, thresholds=(0.3, 0.6, 0.9))
    rows = zip(found.film, found.threshold, found.area, found.overlap, strict=True)
    assert sorted(rows) == [(7, 0, 3, 0), (7, 0, 8, 2), (7, 1, 3, 0), (7, 1, 4, 1)]


def test_a_film_without_any_has_an_empty_table():
    found = components(0 * LEVELS, TRUTH, film=0, thresholds=(0.3,))
    assert len(found.film) == len(found.area) == 0
    assert found.area.dtype == np.int64
