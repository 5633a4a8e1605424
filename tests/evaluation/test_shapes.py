"""Lesions and boundaries of whole sets of films."""

import dataclasses

import numpy as np
import pytest
from evaluation.synthetic import synthetic

from pneumo.evaluation import choosing, shapes
from pneumo.evaluation.settings import Measures
from pneumo.masks import rle
from pneumo.masks.settings import Postprocess


def test_shapes_are_those_of_the_masks_and_millimetres_those_of_the_film(tmp_path):
    part = synthetic(tmp_path, "a", films=8)
    part.cases[1].spacing = (0.5, 0.5)
    rule, how = Postprocess(0.5, 2048), Measures()
    found, candidates = shapes.measure([part], rule, True, how)
    known = choosing.outcomes([part], rule, True)
    assert np.array_equal(candidates.lesions, known.positive)  # one square a positive film
    assert np.array_equal(found.hits + found.missed, candidates.lesions)
    assert np.array_equal(np.isnan(found.hd95_px), (known.overlap == 0) & ~known.positive)
    assert found.hd95_mm[1] == pytest.approx(found.hd95_px[1] / 2)
    assert np.isfinite(found.hd95_mm).sum() == 1
    removed = shapes.measure([part], Postprocess(0.5, 2**20), True, how)[0]
    assert removed.hits.sum() == 0
    assert np.array_equal(removed.nsd_px == 0, known.positive)
    assert np.isnan(removed.nsd_px[~known.positive]).all()


CLOSED, PASSED = [0, 3], [1, 2]


def test_a_gate_leaves_all_of_a_closed_film_missed_and_the_others_as_they_are(tmp_path):
    part = synthetic(tmp_path, "a", films=4, presence=[0.2, 0.9, 0.9, 0.2])
    rule, how = Postprocess(0.5, 0), Measures()
    free, ranked = shapes.measure([part], rule, True, how)
    gated = dataclasses.replace(rule, presence_threshold=0.5)
    found, candidates = shapes.measure([part], gated, True, how)
    for name, values in vars(found).items():
        assert np.array_equal(values[PASSED], vars(free)[name][PASSED], equal_nan=True), name
    assert np.isin(ranked.film, CLOSED).any()
    assert not np.isin(candidates.film, CLOSED).any()
    assert np.array_equal(candidates.lesions, ranked.lesions)
    assert found.hits[CLOSED].sum() == found.false[CLOSED].sum() == 0
    assert found.missed[CLOSED].tolist() == [0, 1]  # the first film is negative
    assert free.false[CLOSED].all()
    assert np.array_equal(found.nsd_px[CLOSED], [np.nan, 0], equal_nan=True)
    assert np.isnan(found.hd95_px[CLOSED]).all()
    assert np.array_equal(found.pointed, free.pointed, equal_nan=True)


@pytest.fixture
def pointed(tmp_path):
    """What one map of 32², without noise, points at, where its truth is the pixels stated of it."""

    def measured(levels, truth, rule=None, **how):
        part = synthetic(tmp_path, "one", films=1, presence=[0.2])
        part.plain = part.flip = levels[None].astype(np.uint8)
        del part.contents["checksums"]
        part.cases[0].annotations = [rle.encode(truth.repeat(32, 0).repeat(32, 1))]
        found, _ = shapes.measure([part], rule or Postprocess(), True, Measures(**how))
        return found.pointed.item()

    return measured


def film(*squares):
    """A film of 32² with levels in squares: rows, columns, level."""
    levels = np.zeros((32, 32), np.uint8)
    for rows, columns, level in squares:
        levels[rows, columns] = level
    return levels


LEFT, RIGHT = (slice(8, 16), slice(4, 8)), (slice(8, 16), slice(24, 28))


def test_a_map_points_at_its_most_probable_pixel_whatever_threshold_and_gate(pointed):
    truth = film((*LEFT, 1))
    assert pointed(film((*LEFT, 90), (*RIGHT, 89)), truth) == 1
    assert pointed(film((*LEFT, 89), (*RIGHT, 90)), truth) == 0
    closed = Postprocess(0.99, 2**20, presence_threshold=0.9)
    assert pointed(film((*LEFT, 90), (*RIGHT, 89)), truth, closed) == 1
    assert np.isnan(pointed(film((*LEFT, 90)), film()))


def test_of_equally_probable_pixels_the_share_in_the_mask_counts(pointed):
    """Two alike, one of them true; a crescent whose mean is outside it; a map that says nothing."""
    truth = film((*LEFT, 1))
    assert pointed(film((*LEFT, 90), (*RIGHT, 90)), truth) == pytest.approx(0.5)
    crescent = film((slice(4, 28), slice(4, 28), 1), (slice(8, 24), slice(8, 28), 0))
    assert pointed(200 * crescent, crescent) == 1
    assert pointed(film(), truth) == pytest.approx(32 / 32**2)


def test_a_point_may_lie_so_far_off_as_is_said(pointed):
    """The most probable pixels, the middle of one of 32², lie 48 and 49 columns before the mask."""
    levels, truth = film((slice(12, 13), slice(2, 3), 90)), film((*LEFT, 1))
    assert pointed(levels, truth) == 0
    assert [pointed(levels, truth, pointing_px=off) for off in (47, 48, 49)] == [0, 0.5, 1]
