"""Maps and truth, film by film → lesions found and missed, distances of boundaries, pointing."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pneumo.evaluation.settings import Measures
from pneumo.inference.maps import Predictions
from pneumo.masks import boundaries, lesions
from pneumo.masks.rule import exceeds, to_mask
from pneumo.masks.scores import Shapes
from pneumo.masks.settings import Postprocess
from pneumo.masks.truth import Truth, overlap_of_boxes


@dataclass
class Candidates:
    """All components above B-TH, before any is removed, of n films: what a FROC curve ranks."""

    film: np.ndarray  # row of the film, int64 (c,)
    score: np.ndarray  # see lesions.Lesions, float (c,)
    hit: np.ndarray  # bool (c,)
    lesions: np.ndarray  # of each film, int64 (n,)


Row = tuple[tuple[float, ...], lesions.Lesions]


def measure(
    parts: Sequence[Predictions], rule: Postprocess, tta: bool, how: Measures
) -> tuple[Shapes, Candidates]:
    """Shapes of the films of all parts under a rule, and their candidates above its B-TH.

    At 1024². What a map points at is the same under every rule. Raises PneumoError.
    """
    measured: list[Row] = []
    for part in parts:
        passing = part.gate(rule, tta)
        work = functools.partial(_measured, rule=rule, tta=tta, how=how, passing=passing)
        of_row = dict(part.each(work, "Measuring lesions and boundaries"))
        measured += [of_row[row] for row in range(len(part))]
    columns = [np.array(column) for column in zip(*(shape for shape, _ in measured), strict=True)]
    found = [one for _, one in measured]
    candidates = Candidates(
        np.repeat(np.arange(len(found)), [len(one.hit) for one in found]),
        np.concatenate([one.score for one in found]),
        np.concatenate([one.hit for one in found]),
        np.array([one.count for one in found]),
    )
    return Shapes(*columns), candidates


def _measured(
    part: Predictions,
    row: int,
    rule: Postprocess,
    tta: bool,
    how: Measures,
    passing: np.ndarray,
) -> Row:
    case = part.cases[row]
    levels, truth = part.map(row, tta), case.mask()
    pointed = _pointed(levels, truth, how.pointing_px)
    regions = case.regions() if case.truth is Truth.boxes else []
    if not passing[row]:
        levels = np.zeros_like(levels)
    rule = dataclasses.replace(rule, presence_threshold=None)  # the gate has spoken
    mask, above = to_mask(levels, rule), exceeds(levels, rule.binarization_threshold)
    overlaps = overlap_of_boxes(regions, mask)
    boxes = (len(regions), int((overlaps >= how.box_iou).sum()), float(overlaps.sum()))
    box = _box(above | (mask > 0) | (truth > 0))
    levels, truth, mask, above = (array[box] for array in (levels, truth, mask, above))
    candidates = lesions.match(above, truth, levels, how.lesion_px, how.lesion_iou)
    kept = candidates
    if not np.array_equal(mask, above):
        kept = lesions.match(mask, truth, levels, how.lesion_px, how.lesion_iou)
    counts = (kept.hits, kept.false, kept.missed)
    drawn = _boundaries(mask, truth, case.spacing, how)
    return (*counts, *drawn, pointed, *boxes), candidates


def _pointed(levels: np.ndarray, truth: np.ndarray, tolerance: float) -> float:
    """The pointing game: whether the most probable pixel lies in the true mask; NaN without one.

    Zhang et al., "Top-down neural attention by excitation backprop" (ECCV 2016), who forgive 15
    pixels. Of several equally probable pixels (levels end at 255) the share that lies in the mask:
    the expected result of drawing one. Their mean position might lie outside a crescent that all of
    them are in, and a map of one level throughout gets what chance would.
    """
    if not truth.any():
        return float("nan")
    near = truth > 0
    if tolerance:
        outside = (truth == 0).astype(np.uint8)
        distances = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near = distances <= tolerance
    return float(near[levels == levels.max()].mean())


def _box(something: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that hold anything: there is nothing to measure outside."""
    sides = []
    for axis in (1, 0):
        places = np.flatnonzero(something.any(axis))
        sides.append(slice(places[0], places[-1] + 1) if len(places) else slice(0, 1))
    return sides[0], sides[1]


def _boundaries(
    mask: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] | None, how: Measures
) -> tuple[float, float, float, float]:
    """NSD in pixels and mm, HD95 in pixels and mm; see ``masks.scores.Shapes`` for empty masks."""
    nan = float("nan")
    if not mask.any() and not truth.any():
        return nan, nan, nan, nan
    if not mask.any() or not truth.any():
        return 0.0, nan if spacing is None else 0.0, nan, nan
    pixels = boundaries.distances(mask, truth)
    if spacing is None:
        return pixels.within(how.tolerance_px), nan, pixels.hd95, nan
    mm = boundaries.distances(mask, truth, spacing)
    return pixels.within(how.tolerance_px), mm.within(how.tolerance_mm), pixels.hd95, mm.hd95
