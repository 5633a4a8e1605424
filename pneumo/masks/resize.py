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
    mask = np.asarray(mask, np.uint8)
    small = np.zeros((size, size), np.uint8)
    if not cv2.countNonZero(mask):
        return small
    top, left, covered = _covered(mask, size)
    if not covered.any():
        return small
    wanted = max(1, round(float(covered.sum(dtype=np.float64))))
    least = np.partition(covered[covered > 0], -wanted)[-wanted]
    taken = covered > least
    missing = wanted - np.count_nonzero(taken)
    rows, columns = np.nonzero(covered == least)
    evenly = np.argsort((R2[0] * (top + rows) + R2[1] * (left + columns)) % 1, kind="stable")
    taken[rows[evenly[:missing]], columns[evenly[:missing]]] = True
    small[top : top + len(taken), left : left + taken.shape[1]] = taken
    return small


def _covered(mask: np.ndarray, size: int) -> tuple[int, int, np.ndarray]:
    """How much a mask uint8 covers of the new pixels, 0 to 1, float32.

    Only of a box of them that holds all that are covered; its top and left come first.
    """
    tall, rest = divmod(mask.shape[0], size)
    wide, more = divmod(mask.shape[1], size)
    if rest or more:
        size_of_all = (size, size)
        return 0, 0, cv2.resize(mask.astype(np.float32), size_of_all, interpolation=cv2.INTER_AREA)
    # each new pixel is the mean of whole old ones, so that those around the mask are enough
    left, top, width, height = cv2.boundingRect(mask)
    rows = slice(top // tall, -(-(top + height) // tall))
    columns = slice(left // wide, -(-(left + width) // wide))
    box = mask[rows.start * tall : rows.stop * tall, columns.start * wide : columns.stop * wide]
    size_of_box = (columns.stop - columns.start, rows.stop - rows.start)
    covered = cv2.resize(box.astype(np.float32), size_of_box, interpolation=cv2.INTER_AREA)
    return rows.start, columns.start, covered


def enlarge(levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map of levels uint8 → another shape (rows, columns), bilinear."""
    if levels.shape == shape:
        return np.array(levels)
    return cv2.resize(levels, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
