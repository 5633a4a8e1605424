"""Films with outlines, as people look at them."""

import cv2
import numpy as np

TRUTH, PREDICTION = (
    (0, 190, 255),
    (255, 140, 0),
)  # cyan and orange: apart for colour-blind readers, too


def overlay(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, least: int = 256, width: int = 1
) -> np.ndarray:
    """Film uint8 (H, W) with the outlines of truth (cyan) and prediction (orange) → RGB uint8, at least ``least`` pixels wide.

    Outlines are ``width`` pixels wide.
    """
    factor = max(1, -(-least // image.shape[1]))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    picture = np.repeat(
        cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)[..., None], 3, axis=2
    )
    for mask, colour in ((truth, TRUTH), (prediction, PREDICTION)):
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, width)
    return picture


def heat(film: np.ndarray, levels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Film uint8 (H, W) with probability from .05 on as heat (levels uint8) and the mask's outline → RGB uint8 (H, W, 3)."""
    picture = cv2.cvtColor(film, cv2.COLOR_GRAY2RGB)
    left, top, width, height = cv2.boundingRect((levels > 12).astype(np.uint8))
    if width:
        box = np.s_[top : top + height, left : left + width]
        colours = cv2.cvtColor(
            cv2.applyColorMap(levels[box], cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB
        )
        weight = np.where(levels[box] > 12, levels[box] * np.float32(0.45 / 255), np.float32(0))[
            ..., None
        ]
        picture[box] = (picture[box] * (1 - weight) + colours * weight).astype(np.uint8)
    outlines, _ = cv2.findContours(
        (mask != 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, outlines, -1, PREDICTION, max(1, round(max(film.shape) / 512)))
    return picture


def png(picture: np.ndarray) -> bytes:
    """A picture, grey (H, W) or RGB (H, W, 3) uint8, as PNG; twice as fast as with every row's best filter, and hardly larger."""
    options = [
        cv2.IMWRITE_PNG_COMPRESSION,
        1,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
    ]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # OpenCV 4.12
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    ok, encoded = cv2.imencode(
        ".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture, options
    )
    assert ok
    return encoded.tobytes()
