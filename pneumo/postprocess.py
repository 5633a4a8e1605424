"""Probability map → mask: binarisation threshold and removal threshold. Pure numpy."""

import cv2
import numpy as np

from pneumo.config import Postprocess, Removal


def removal_pixels(config: Postprocess, shape: tuple[int, int]) -> float:
    """The removal threshold in pixels of this shape: it is counted at ``removal_size``² and scales with the area."""
    return config.removal_threshold * (shape[0] * shape[1]) / config.removal_size**2


def to_mask(probability: np.ndarray, config: Postprocess) -> np.ndarray:
    """Probabilities (H, W) in [0, 1] → mask (H, W), uint8 0 and 1.

    A pixel belongs to the mask if its probability exceeds the binarisation threshold. With ``removal: total`` the whole
    mask is emptied if it is smaller than the removal threshold; with ``component`` each 8-connected component is judged
    alone. The paper describes both (section "Testing").
    """
    mask = (probability > config.binarization_threshold).astype(np.uint8)
    least = removal_pixels(config, (mask.shape[0], mask.shape[1]))
    if config.removal is Removal.total:
        return mask if mask.sum() >= least else np.zeros_like(mask)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False  # the background
    return keep[labels].astype(np.uint8)
