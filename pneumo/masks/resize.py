"""Films, masks and maps at another size."""

import cv2
import numpy as np


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (rows, columns) → uint8 (size, size): the mean over the area when smaller, bilinear when larger."""
    smaller = min(image.shape) >= size
    return cv2.resize(
        image, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    )


def shrink_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Binary (rows, columns) → binary uint8 (size, size): pixels at least half covered; a lesion too thin for that
    keeps its most covered pixels, so that no positive film becomes empty.
    """
    covered = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    most = float(covered.max())
    return (
        (covered >= min(0.5, most)).astype(np.uint8)
        if most > 0
        else np.zeros((size, size), np.uint8)
    )


def enlarge(levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map of levels uint8 → another shape (rows, columns), bilinear."""
    return (
        np.array(levels)
        if levels.shape == shape
        else cv2.resize(levels, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    )
