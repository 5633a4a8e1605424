"""Whether a film looks like the films that a network was trained on.

A film is brought to 16 × 16 grey levels and correlated with the mean of the training films. Of the
71 challenge films at hand each correlates with the mean of the others by .33 to .94; a tibia
correlates by -.24 (tests/data/test_likeness.py).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

SIDE = 16
# the 1st percentile of the training films less MARGIN, at most MOST, is the least that is accepted
MARGIN, MOST = 0.2, 0.25
SAMPLE = 2000  # films that are enough for mean and percentile


@dataclass
class Look:
    """What training films look like."""

    mean: list[int]  # 16 × 16 levels of 1/1000 of the normed mean, row by row
    least: float  # the least correlation with it that is accepted

    def of(self, film: np.ndarray) -> float:
        """Correlation, -1 to 1, of an upright film uint8 (rows, columns) with the mean."""
        mean = np.asarray(self.mean, np.float64)
        return float(_normed(film) @ mean / max(float(np.linalg.norm(mean)), 1e-9))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a card."""
        return asdict(self)


def look(films: Iterable[np.ndarray]) -> Look:
    """What upright films uint8 (rows, columns) look like."""
    normed = np.stack([_normed(film) for film in films])
    mean = normed.mean(0)
    mean /= max(float(np.linalg.norm(mean)), 1e-9)
    least = min(MOST, float(np.percentile(normed @ mean, 1)) - MARGIN)
    return Look((mean * 1000).round().astype(int).tolist(), round(least, 3))


def sample(rows: np.ndarray) -> np.ndarray:
    """At most ``SAMPLE`` of some rows, evenly spread."""
    return rows[:: -(-len(rows) // SAMPLE)]


def _normed(film: np.ndarray) -> np.ndarray:
    """A film as a vector of mean 0 and length 1; zeros, if it is of one level."""
    small = cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-9))
