"""What is known of where films show pneumothorax; what can be scored follows from it.

Whatever is known is kept as regions, run lengths that a film's pneumothorax lies in: the masks
themselves, boxes around it, or, where only the film's label is known, the whole film. A film
without a region shows none. So every film counts as positive or negative in the same way, and
scores that a kind of truth does not give are left out (``masks.scores``).
"""

from collections.abc import Iterable, Sequence
from enum import Enum

import cv2
import numpy as np

from pneumo.masks import rle


class Truth(Enum):
    """What is known of a film, from the least to the most."""

    labels = "labels"  # whether it shows pneumothorax
    boxes = "boxes"  # boxes that each hold one
    masks = "masks"  # its pixels


# of a film that is known to show pneumothorax somewhere: one pixel, which is all of the film
WHOLE, WHOLE_SHAPE = ["0 1"], (1, 1)


def least(truths: Iterable[Truth]) -> Truth:
    """What is known of all of several films; of none, masks."""
    order = list(Truth)
    return min(truths, key=order.index, default=Truth.masks)


def box_mask(box: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    """Every pixel that a box touches, uint8 of 0 and 1, (rows, columns).

    Args:
        box: x, y, width and height in pixels, from the film's upper left corner.
        shape: rows and columns of the film as stored.

    Raises:
        ValueError: it is not inside the film, or has no area.
    """
    x, y, width, height = box
    inside = x >= 0 and y >= 0 and x + width <= shape[1] and y + height <= shape[0]
    if not (inside and width > 0 and height > 0):  # NaN is not inside either
        raise ValueError(
            f"the box {x:g}, {y:g}, {width:g}, {height:g} (x, y, width, height) is not inside the "
            f"film of {shape[1]} × {shape[0]} pixels"
        )
    mask = np.zeros(shape, np.uint8)
    mask[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = 1
    return mask


def of_box(box: tuple[float, float, float, float], shape: tuple[int, int]) -> str:
    """The same as run lengths. Raises ValueError."""
    return rle.encode(box_mask(box, shape))


def overlap_of_boxes(masks: Sequence[np.ndarray], predicted: np.ndarray) -> np.ndarray:
    """The best IoU of each box with the box around a component of a predicted mask.

    Args:
        masks: one filled box each, uint8 (H, W).
        predicted: mask uint8 (H, W) of 0 and 1; its components are 8-connected.

    Returns:
        Float (len(masks),), 0 where nothing is predicted. Several boxes may have the same component
        for their best.
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(predicted.astype(np.uint8), connectivity=8)
    found = stats[1:, :4].astype(np.float64)  # row 0 is the background
    best = np.zeros(len(masks))
    for number, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows) or not len(found):
            continue
        x, y = columns[0], rows[0]
        width, height = columns[-1] - x + 1, rows[-1] - y + 1
        across = np.minimum(found[:, 0] + found[:, 2], x + width) - np.maximum(found[:, 0], x)
        down = np.minimum(found[:, 1] + found[:, 3], y + height) - np.maximum(found[:, 1], y)
        shared = np.maximum(across, 0) * np.maximum(down, 0)
        union = found[:, 2] * found[:, 3] + width * height - shared
        best[number] = (shared / union).max()
    return best
