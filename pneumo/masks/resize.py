"""Films, masks and maps at another size."""

import cv2
import numpy as np


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (rows, columns) → uint8 (size, size).

    The mean over the area when that is smaller, bilinear when it is larger.
    """
    is_smaller = min(image.shape) >= size
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)


def shrink_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Binary (rows, columns) → binary uint8 (size, size).

    Pixels that are at least half covered belong to the new mask. A lesion too thin for that keeps
    its most covered pixels, so that no positive film becomes empty.
    """
    covered = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    most = float(covered.max())
    if most <= 0:
        return np.zeros((size, size), np.uint8)
    return (covered >= min(0.5, most)).astype(np.uint8)


def enlarge(levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map of levels uint8 → another shape (rows, columns), bilinear."""
    if levels.shape == shape:
        return np.array(levels)
    return cv2.resize(levels, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
