"""The 8-connected components of a probability map at many thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pneumo.masks.rule import exceeds


@dataclass
class Components:
    """8-connected components of n films at each threshold: film, threshold number, area and true pixels of each, int64."""

    film: np.ndarray
    threshold: np.ndarray
    area: np.ndarray
    overlap: np.ndarray


def components(
    levels: np.ndarray, truth: np.ndarray, film: int, thresholds: Sequence[float]
) -> Components:
    """The components of one film's map uint8 (H, W) at each threshold, within the box of what exceeds the lowest one."""
    found = []
    inside = exceeds(levels, min(thresholds))
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if len(rows):
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        levels, truth = np.ascontiguousarray(levels[box]), truth[box] > 0
        for number, threshold in enumerate(thresholds):
            mask = exceeds(levels, threshold)
            if not mask.any():
                continue
            _, labels, stats, _ = cv2.connectedComponentsWithStats(
                mask.astype(np.uint8), connectivity=8
            )
            right = np.bincount(labels[truth], minlength=len(stats))
            found.append(
                np.column_stack(
                    [np.full(len(stats) - 1, number), stats[1:, cv2.CC_STAT_AREA], right[1:]]
                )
            )
    table = np.concatenate(found).astype(np.int64) if found else np.zeros((0, 3), np.int64)
    return Components(np.full(len(table), film), *table.T)
