"""What is done to masks and maps, against the ways of scipy that most people take.

Components of a map at many thresholds; a rule with the removal of small components; boundaries'
distances; a film's histograms of levels. Each on maps of 1024² with one to three blobs; results
must agree.
"""

import cv2
import numpy as np
from scipy import ndimage

from benchmarks import table
from benchmarks.table import Row
from pneumo.evaluation.choosing import COARSE
from pneumo.masks import boundaries
from pneumo.masks.components import components
from pneumo.masks.rule import exceeds, to_mask
from pneumo.masks.settings import Postprocess, Removal

EIGHT = np.ones((3, 3), int)  # neighbours by edges and corners


def blobs(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps uint8 and masks uint8 (count, side, side): blobs, and noise below every threshold."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    maps, truths = [], []
    for number in range(count):
        heat = np.zeros((side, side), np.float32)
        for _ in range(1 + number % 3):
            cx, cy, width = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.02, 0.06)
            heat = np.maximum(heat, np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2))
        maps.append((250 * heat).astype(np.uint8))
        truths.append((np.roll(heat, side // 100, axis=1) > 0.4).astype(np.uint8))
    return np.array(maps), np.array(truths)


def scipy_components(levels: np.ndarray, truth: np.ndarray) -> list[tuple[int, int, int]]:
    """Threshold, area and overlap of each component, by labelling the whole film each time."""
    found = []
    for number, threshold in enumerate(COARSE):
        labels, count = ndimage.label(exceeds(levels, threshold), EIGHT)
        for one in range(1, count + 1):
            region = labels == one
            found.append((number, int(region.sum()), int((region & (truth > 0)).sum())))
    return found


def our_components(levels: np.ndarray, truth: np.ndarray) -> list[tuple[int, int, int]]:
    """The same by ours."""
    found = components(levels, truth, 0, COARSE)
    columns = (found.threshold, found.area, found.overlap)
    return list(zip(*(column.tolist() for column in columns), strict=True))


RULE = Postprocess(0.5, 2048, removal=Removal.component)


def scipy_rule(levels: np.ndarray, least: float) -> np.ndarray:
    """A mask without its small components, by a loop over them."""
    labels, count = ndimage.label(levels > 127, EIGHT)
    mask = np.zeros(levels.shape, np.uint8)
    for one in range(1, count + 1):
        region = labels == one
        if region.sum() >= least:
            mask[region] = 1
    return mask


def scipy_distances(ours: np.ndarray, theirs: np.ndarray) -> float:
    """HD95 by distance transforms of the whole film."""
    edges = [mask.astype(bool) & ~ndimage.binary_erosion(mask) for mask in (ours, theirs)]
    fields = [ndimage.distance_transform_edt(~edge) for edge in edges]
    pairs = ((fields[1], edges[0]), (fields[0], edges[1]))
    return float(max(np.percentile(field[edge], 95) for field, edge in pairs))


def measure(quick: bool) -> list[Row]:
    """Each of them, a film's time."""
    count, side = (2, 128) if quick else (12, 1024)
    maps, truths = blobs(count, side)
    pairs = list(zip(maps, truths, strict=True))
    masks = [exceeds(one, 0.4).astype(np.uint8) for one in maps]
    least = RULE.removal_threshold * side**2 / RULE.removal_size**2
    for (levels, truth), mask in zip(pairs, masks, strict=True):
        assert sorted(our_components(levels, truth)) == sorted(scipy_components(levels, truth))
        assert np.array_equal(to_mask(levels, RULE), scipy_rule(levels, least))
        hd95 = boundaries.distances(mask, truth).hd95
        assert abs(hd95 - scipy_distances(mask, truth)) < 1e-9
    ways = {
        f"components at {len(COARSE)} thresholds": (
            lambda: [our_components(*pair) for pair in pairs],
            lambda: [scipy_components(*pair) for pair in pairs],
            lambda: [_labels(one) for one in maps],
            "OpenCV's labels of the whole film alone",
        ),
        "rule with small components removed": (
            lambda: [to_mask(one, RULE) for one in maps],
            lambda: [scipy_rule(one, least) for one in maps],
            lambda: [_label(one) for one in maps],
            "OpenCV's labels alone",
        ),
        "distances of boundaries, HD95": (
            lambda: [boundaries.distances(a, b).hd95 for a, b in zip(masks, truths, strict=True)],
            lambda: [scipy_distances(a, b) for a, b in zip(masks, truths, strict=True)],
            lambda: [boundaries.boundary(mask) for mask in (*masks, *truths)],
            "finding the boundaries alone",
        ),
    }
    rows = []
    for name, (ours, scipy, bare, bound) in ways.items():
        timed = table.alternate(
            {"ours": ours, "scipy": scipy, "bare": bare},
            rounds=1 if quick else 5,
            warm=0 if quick else 1,
        )
        share = timed["bare"].median() / timed["ours"].median()
        row = table.compared(
            f"{name}, {side}²",
            timed["ours"],
            timed["scipy"],
            per=count,
            at_least=1,
            against="scipy.ndimage",
            limit=f"{share:.2f} of the speed of {bound}",
        )
        rows.append(row)
    return rows


def _labels(levels: np.ndarray) -> list[np.ndarray]:
    return [_label(levels, threshold) for threshold in COARSE]


def _label(levels: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    mask = exceeds(levels, threshold).astype(np.uint8)
    return cv2.connectedComponentsWithStats(mask, connectivity=8)[1]
