"""Distances of boundaries against an independent implementation, and by hand."""

import csv
import gzip
import json

import cv2
import numpy as np
import pytest
from scipy import ndimage

from pneumo.data.sources import siim
from pneumo.evaluation.settings import Measures
from pneumo.masks import boundaries, rle


def blobs(seed, shape=(90, 70)):
    """Smooth random masks, some of several parts, some that touch the border."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    return (noise > np.quantile(noise, rng.uniform(0.6, 0.97))).astype(np.uint8)


def independent(ours, theirs, spacing):
    """Distances by scipy: erosion by a cross, and a Euclidean distance transform."""
    edges = [mask.astype(bool) & ~ndimage.binary_erosion(mask) for mask in (ours, theirs)]
    to_ours, to_theirs = (ndimage.distance_transform_edt(~e, sampling=spacing) for e in edges)
    return to_theirs[edges[0]], to_ours[edges[1]]


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.41, 0.41), (0.5, 0.3)], ids=str)
def test_nsd_and_hd95_equal_those_of_an_independent_implementation(spacing):
    for seed in range(6):
        ours, theirs = blobs(seed), blobs(seed + 100)
        found, expected = (
            boundaries.distances(ours, theirs, spacing),
            independent(ours, theirs, spacing),
        )
        assert np.allclose(np.sort(found.ours), np.sort(expected[0]))
        assert np.allclose(np.sort(found.theirs), np.sort(expected[1]))
        assert found.hd95 == pytest.approx(max(np.percentile(e, 95) for e in expected))
        within = sum((e <= 3.001 * spacing[0]).sum() for e in expected)
        assert found.within(3.001 * spacing[0]) == within / sum(map(len, expected))


def test_a_square_that_moves_three_columns_to_the_right():
    ours, theirs = np.zeros((2, 40, 40), np.uint8)
    ours[10:20, 10:20] = theirs[10:20, 13:23] = 1
    found = boundaries.distances(ours, theirs)
    # the left edge is 3 from the other's, but the rows above and below it meet the other's sooner
    assert found.hd95 == 3
    assert found.within(3) == 1
    # upper and lower edges: 7 of 10 columns coincide; the inner sides of 8 rows lie 3 away or less
    assert found.within(0) == pytest.approx(2 * 14 / 72)
    assert boundaries.distances(ours, theirs, (1, 0.5)).hd95 == 1.5


def test_the_boundary_runs_along_the_border_of_the_image():
    everything = np.ones((5, 6), np.uint8)
    assert boundaries.boundary(everything).sum() == 18


def test_an_empty_mask_has_no_boundary():
    with pytest.raises(ValueError, match="no boundary"):
        boundaries.distances(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8))


def test_half_of_the_boundaries_of_two_readings_lie_within_the_default_tolerances(real_data):
    """Boundaries of the challenge's masks and of ChestX-Det's polygons on the films that both call
    positive: the median distance of the median film.
    """
    folder = real_data / "second_readers"
    if not folder.is_dir():
        pytest.skip("the other readers' polygons are not here")
    with open(folder / "chestx_det_names.csv", newline="") as file:
        nih = {row["file_name"]: row["nih_name"] for row in csv.DictReader(file)}
    with gzip.open(folder / "nih_entry.csv.gz", "rt") as file:
        entry = {row["nih_name"]: row for row in csv.DictReader(file)}
    ours = siim.read_table(real_data / "siim" / "stage_2_train.csv.gz").rows
    drawn = []
    for part in ("train", "test"):
        with gzip.open(folder / f"ChestX_Det_{part}.json.gz", "rt") as file:
            drawn += json.load(file)
    medians = []
    for film in drawn:
        known = entry.get(nih.get(film["file_name"], ""))
        polygons = [
            np.array(polygon, np.int32)
            for name, polygon in zip(film["syms"], film["polygons"], strict=True)
            if name == "Pneumothorax"
        ]
        if known is None or not polygons:
            continue
        runs = [row.text for row in ours[known["ImageId"]] if row.text]
        if runs:
            theirs = cv2.fillPoly(np.zeros(rle.SHAPE, np.uint8), polygons, 1)
            found = boundaries.distances(rle.union(runs, rle.SHAPE), theirs)
            middle = np.median(np.r_[found.ours, found.theirs])
            medians.append((middle, middle * float(known["true_spacing_mm"])))
    pixels, mm = np.median(medians, axis=0)
    assert len(medians) == 101
    assert (round(pixels, 1), round(mm, 1)) == (6.3, 2.5)
    assert (Measures().tolerance_px, Measures().tolerance_mm) == (6, 2.5)
