"""Films, masks and maps at another size."""

import cv2
import numpy as np

# Steps of a sequence that fills a square evenly, and has no pattern that edges could share:
# https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/
R2 = (0.7548776662, 0.5698402910)


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (rows, columns) → uint8 (size, size).

    The mean over the area when that is smaller, bilinear when it is larger.
    """
    is_smaller = min(image.shape) >= size
    interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=interpolation)


def shrink_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Binary (rows, columns) → binary uint8 (size, size).

    The most covered pixels, so many that the area stays (to half a pixel, but at least one, so that
    no positive film becomes empty). "At least half covered" would add all that are just half
    covered along straight edges, "more than half" would lose what is thin. Of pixels that are
    covered alike as many as are wanted are taken, evenly from all over the film.
    """
    if mask.shape == (size, size):
        return (mask > 0).astype(np.uint8)
    covered = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    small = np.zeros((size, size), np.uint8)
    if not covered.any():
        return small
    wanted = max(1, round(float(covered.sum(dtype=np.float64))))
    least = np.partition(covered, -wanted, axis=None)[-wanted]
    small[covered > least] = 1
    missing = wanted - np.count_nonzero(small)
    rows, columns = np.nonzero(covered == least)
    evenly = np.argsort((R2[0] * rows + R2[1] * columns) % 1, kind="stable")[:missing]
    small[rows[evenly], columns[evenly]] = 1
    return small


def enlarge(levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map of levels uint8 → another shape (rows, columns), bilinear."""
    if levels.shape == shape:
        return np.array(levels)
    return cv2.resize(levels, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
