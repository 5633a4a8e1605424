"""The 8-connected components of a probability map at many thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pneumo.masks.rule import exceeds


@dataclass
class Components:
    """8-connected components of films at each threshold, one entry a component, all int64."""

    film: np.ndarray
    threshold: np.ndarray  # number of the threshold, not its value
    area: np.ndarray  # pixels
    overlap: np.ndarray  # of them, those of the true mask


def components(
    levels: np.ndarray, truth: np.ndarray, film: int, thresholds: Sequence[float]
) -> Components:
    """The components of one film's map uint8 (H, W) at each threshold."""
    tables = []
    inside = exceeds(levels, min(thresholds))
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows):
        # only the box of what exceeds the lowest threshold is searched, which is faster
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        levels, truth = np.ascontiguousarray(levels[box]), truth[box] > 0
        for number, threshold in enumerate(thresholds):
            mask = exceeds(levels, threshold)
            if not mask.any():
                continue
            _, labels, stats, _ = cv2.connectedComponentsWithStats(
                mask.astype(np.uint8), connectivity=8
            )
            overlap = np.bincount(labels[truth], minlength=len(stats))
            # row 0 is the background
            area = stats[1:, cv2.CC_STAT_AREA]
            tables.append(np.column_stack([np.full(len(area), number), area, overlap[1:]]))
    table = np.concatenate(tables).astype(np.int64) if tables else np.zeros((0, 3), np.int64)
    return Components(np.full(len(table), film), *table.T)
