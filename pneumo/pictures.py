"""Films with outlines, as people look at them."""

import cv2
import numpy as np

TRUTH, PREDICTION = (0, 190, 255), (255, 140, 0)  # cyan and orange: apart for colour-blind readers, too


def overlay(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, least: int = 256, width: int = 1) -> np.ndarray:
    """Film uint8 (H, W) with the outlines of truth (cyan) and prediction (orange) → RGB uint8, at least ``least`` pixels wide.

    Outlines are ``width`` pixels wide.
    """
    factor = max(1, -(-least // image.shape[1]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    picture = np.repeat(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)[..., None], 3, axis=2)
    for mask, colour in ((truth, TRUTH), (prediction, PREDICTION)):
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, width)
    return picture


def heat(film: np.ndarray, levels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Film uint8 (H, W) with probability as heat (levels uint8) and the mask's outline → RGB uint8 (H, W, 3)."""
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    weight = (levels.astype(np.float32) / 255 * 0.45)[..., None]
    picture = (film[..., None] * (1 - weight) + colours * weight).astype(np.uint8)
    outlines, _ = cv2.findContours((mask != 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, PREDICTION, max(1, round(max(film.shape) / 512)))
    return picture
