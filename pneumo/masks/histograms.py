"""Pixels by level of probability, of whole films and of their true masks.

They are all that is needed to score every threshold exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from pneumo.masks.rule import level, removal_pixels
from pneumo.masks.settings import Postprocess, Removal


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

    def emptied(self, closed: np.ndarray) -> "Histograms":
        """The same with maps of zeros for some films, bool (n,): those that a gate keeps empty."""
        if not closed.any():
            return self
        tables = []
        for table in (self.total, self.inside):
            changed = table.copy()
            changed[closed] = 0
            changed[closed, 0] = table[closed].sum(1)
            tables.append(changed)
        return Histograms(*tables)

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
    # of the counts' own kind, int32: sums of a film's pixels are no larger than the film
    above = np.cumsum(counts[:, ::-1], axis=1, dtype=counts.dtype)[:, ::-1]
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


def film_score(levels: np.ndarray, rule: Postprocess) -> float:
    """The image-level score of a map uint8 (H, W).

    It is the highest probability that enough pixels reach, so that the rule finds something at
    every threshold below it. Enough is the removal threshold, at least one pixel, counted in all or
    in one component as the rule says.
    """
    least = max(1.0, removal_pixels(rule, (levels.shape[0], levels.shape[1])))
    # what reaches a level shrinks as the level rises, so that bisection finds the highest level
    low, high = 0, 256
    while high - low > 1:
        middle = (low + high) // 2
        reached = (levels >= middle).astype(np.uint8)
        if rule.removal is Removal.total:
            pixels = cv2.countNonZero(reached)
        else:
            _, _, stats, _ = cv2.connectedComponentsWithStats(reached, connectivity=8)
            pixels = stats[1:, cv2.CC_STAT_AREA].max(initial=0)  # row 0 is the background
        if pixels >= least:
            low = middle
        else:
            high = middle
    return low / 255
