"""Pixels by level of probability, of whole films and of their true masks.

They are all that is needed to score every threshold exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from pneumo.masks.rule import level


@dataclass
class Histograms:
    """Pixels of n films by level. ``total`` and ``inside`` (the true mask) int32 (n, 256)."""

    total: np.ndarray
    inside: np.ndarray
    _above: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._above = _at_or_above(self.total), _at_or_above(self.inside)

    def __len__(self) -> int:
        return len(self.total)

    def __getitem__(self, rows: np.ndarray) -> "Histograms":
        return Histograms(self.total[rows], self.inside[rows])

    @property
    def truth(self) -> np.ndarray:
        """Pixels of the true masks, (n,)."""
        return self._above[1][:, 0]

    def predicted(self, thresholds: Sequence[float]) -> np.ndarray:
        """Pixels above each threshold, (n, len(thresholds))."""
        return self._above[0][:, [level(t) for t in thresholds]]

    def overlap(self, thresholds: Sequence[float]) -> np.ndarray:
        """Of them, those of the true mask, (n, len(thresholds))."""
        return self._above[1][:, [level(t) for t in thresholds]]

    def score(self, area: float) -> np.ndarray:
        """The image-level score of each film, float (n,).

        It is the highest probability that at least ``area`` pixels (at least one) reach. A film has
        a mask at threshold t and removal threshold ``area`` exactly if its score exceeds t.
        """
        return (self._above[0][:, 1:256] >= max(area, 1)).sum(1) / 255


def _at_or_above(counts: np.ndarray) -> np.ndarray:
    """Pixels at or above each level, (n, 257): no pixel reaches level 256."""
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([above, np.zeros((len(counts), 1), counts.dtype)], axis=1)


def histogram(levels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map uint8 (H, W) and mask uint8 (H, W) → pixels by level, int32 (256,) each.

    The first are those of the whole map, the second those of the mask.
    """
    # calcHist counts in float32, which is exact up to 16.7 million pixels
    total = cv2.calcHist([levels], [0], None, [256], [0, 256])
    inside = np.zeros_like(total)
    if truth.any():
        inside = cv2.calcHist([levels], [0], truth, [256], [0, 256])
    return total.ravel().astype(np.int32), inside.ravel().astype(np.int32)
