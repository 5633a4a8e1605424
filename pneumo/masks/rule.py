"""Probability map → mask: the paper's two thresholds, the winners' triplet rule, contours, holes.

Maps are probabilities in [0, 1], or uint8 levels of 1/255 as predictions are stored on disk. All
functions are pure.
"""

import dataclasses
import math
from typing import Any

import cv2
import numpy as np

from pneumo.masks.settings import Postprocess, Removal

TOP_LEVEL = 255  # the level that stands for a probability of 1


def level(threshold: float) -> int:
    """The lowest level, from 0 to 255, whose probability exceeds a threshold from 0 to below 1."""
    # The small addition guards against rounding errors: a product may come out a little below the
    # whole number that it stands for, as .29 * 100 gives 28.999999999999996, and would then be
    # rounded down to a level too low.
    return math.floor(threshold * TOP_LEVEL + 1e-9) + 1


def exceeds(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Where a map, of floats or of levels, exceeds a threshold; bool, same shape."""
    if probability.dtype == np.uint8:
        return probability >= level(threshold)
    return probability > threshold


def removal_pixels(config: Postprocess, shape: tuple[int, int]) -> float:
    """The removal threshold in pixels of this shape.

    It is counted at ``removal_size``² and scales with the area.
    """
    return config.removal_threshold * _per_pixel(config, shape)


def passes(presence: np.ndarray, config: Postprocess) -> np.ndarray:
    """Which films a rule's gate lets through, by their presence scores, bool; all without a gate.

    As in github.com/amirassov/kaggle-pneumothorax, a score equal to the threshold passes.
    """
    if config.presence_threshold is None:
        return np.ones(np.shape(presence), bool)
    return np.asarray(presence >= config.presence_threshold)


def to_mask(
    probability: np.ndarray, config: Postprocess, presence: float | None = None
) -> np.ndarray:
    """Map (H, W) → mask (H, W), uint8 0 and 1.

    A pixel belongs to the mask if its probability exceeds the binarisation threshold. With
    ``removal: total`` the whole mask is emptied if fewer pixels than the removal threshold exceed
    ``top_threshold`` (by default the binarisation threshold); with ``component`` each 8-connected
    component is judged alone. The paper describes both (section "Testing"); the top threshold,
    contours and holes are those of the challenge's winner (sneddy/pneumothorax-segmentation).

    With a gate the mask is empty if ``presence``, the film's score, is too low; a rule with a gate
    needs that score.
    """
    if config.presence_threshold is not None:
        assert presence is not None, "a rule with a gate needs the presence score"
        if not passes(np.array(presence), config):
            return np.zeros(probability.shape, np.uint8)
    mask = exceeds(probability, config.binarization_threshold).astype(np.uint8)
    shape = (mask.shape[0], mask.shape[1])
    least = removal_pixels(config, shape)
    if config.removal is Removal.component:
        mask = _without_small(mask, least)
    else:
        counted = mask
        if config.top_threshold is not None:
            counted = exceeds(probability, config.top_threshold)
        if np.count_nonzero(counted) < least:
            return np.zeros_like(mask)
    if config.contour_area or config.fill_holes:
        return _contours(mask, config.contour_area * _per_pixel(config, shape), config.fill_holes)
    return mask


def _without_small(mask: np.ndarray, least: float) -> np.ndarray:
    """Drop components of fewer than ``least`` pixels, in place.

    Lesions take a small part of a film, so only the box around them is labelled.
    """
    left, top, width, height = cv2.boundingRect(mask)
    if width:
        box = mask[top : top + height, left : left + width]
        _, labels, stats, _ = cv2.connectedComponentsWithStats(box, connectivity=8)
        keep = stats[:, cv2.CC_STAT_AREA] >= least
        keep[0] = False  # the background
        box[:] = keep[labels]
    return mask


def _contours(mask: np.ndarray, least: float, fill: bool) -> np.ndarray:
    """Drop outlines that enclose no more than ``least`` pixels; fill the others if asked to.

    The area is that of cv2.contourArea, whose outlines run through the centres of pixels.
    """
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    kept = [outline for outline in outlines if least == 0 or cv2.contourArea(outline) > least]
    filled = cv2.drawContours(np.zeros_like(mask), kept, -1, 1, cv2.FILLED)
    return filled if fill else mask & filled


def _per_pixel(config: Postprocess, shape: tuple[int, int]) -> float:
    """What an area counted at ``removal_size``² is worth in pixels of this shape."""
    return shape[0] * shape[1] / config.removal_size**2


def plain(rule: Postprocess) -> dict[str, Any]:
    """A rule as plain values."""
    return {**dataclasses.asdict(rule), "removal": rule.removal.name}


def rule_text(rule: dict[str, Any]) -> str:
    """A rule, as plain values, in a few words."""
    top = f", counted above {rule['top_threshold']:g}" if rule["top_threshold"] is not None else ""
    each = "each component" if rule["removal"] == "component" else "total"
    more = f", outlines above {rule['contour_area']:g} px" if rule["contour_area"] else ""
    filled = ", holes filled" if rule["fill_holes"] else ""
    gate = rule.get("presence_threshold")  # older cards have none
    gated = f", presence at least {gate:g}" if gate is not None else ""
    return (
        f"B-TH {rule['binarization_threshold']:g}, "
        f"R-TH {rule['removal_threshold']:,} px at {rule['removal_size']}² ({each}{top})"
        f"{more}{filled}{gated}"
    )


ABBREVIATIONS = (
    "B-TH: a pixel belongs to the mask if its probability exceeds it. R-TH: a mask (or a component "
    "of it) of fewer pixels is removed."
)
