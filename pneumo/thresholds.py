"""Scores at every threshold at once, from histograms of the probabilities inside and outside the true mask. Pure numpy.

Per film, 256 counts of pixels by level, once for all pixels and once for those of the true mask, say everything about every
binarisation threshold: what is predicted, what of it is right. The removal threshold only asks whether the predicted area
is large enough, so films sorted by predicted area give the mean for every removal threshold by one cumulative sum. The
triplet rule sorts by another threshold than it binarises with. All of it is exact, not an approximation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from pneumo.postprocess import exceeds, level

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 100))
AREAS = tuple(range(0, 50 * 256, 256))  # pixels at 1024²; the paper's 2,048 is among them
NAMES = ("dice", "dice_positive", "iou", "sensitivity", "specificity")


@dataclass
class Histograms:
    """Pixels of n films by level. ``total`` and ``inside`` (the true mask) int32 (n, 256)."""

    total: np.ndarray
    inside: np.ndarray
    _above: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # pixels at or above each level; one column more, so that level 256 has none
        total, inside = (
            np.concatenate([np.cumsum(counts[:, ::-1], axis=1)[:, ::-1], np.zeros((len(counts), 1), counts.dtype)], axis=1)
            for counts in (self.total, self.inside)
        )
        self._above = total, inside

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
        """Each film's own score, float (n,): the highest probability that at least ``area`` pixels (at least one) reach.

        A film has a mask at threshold t and removal threshold ``area`` exactly if its score exceeds t.
        """
        return (self._above[0][:, 1:256] >= max(area, 1)).sum(1) / 255


def histogram(levels: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map uint8 (H, W) and mask uint8 (H, W) → pixels by level, of all and of the mask, int32 (256,) each."""
    total = cv2.calcHist([levels], [0], None, [256], [0, 256])  # float32, exact up to 16.7 million pixels
    inside = cv2.calcHist([levels], [0], truth, [256], [0, 256]) if truth.any() else np.zeros_like(total)
    return total.ravel().astype(np.int32), inside.ravel().astype(np.int32)


def dice(overlap: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """2 overlap / (predicted + truth), 1 where both are empty (the challenge's rule); float64, any shapes that broadcast."""
    both = predicted + truth
    return np.where(both == 0, 1.0, 2 * overlap / np.maximum(both, 1))


def iou(overlap: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Overlap / (predicted + truth - overlap), 1 where both are empty; float64."""
    union = predicted + truth - overlap
    return np.where(union == 0, 1.0, overlap / np.maximum(union, 1))


def surface(histograms: Histograms, thresholds: Sequence[float] = THRESHOLDS, areas: Sequence[float] = AREAS) -> dict[str, np.ndarray]:
    """Mean scores for every binarisation × removal threshold (total rule), float64 (len(thresholds), len(areas)) each.

    Areas are pixels of the maps' own size. A mean over no films is NaN.
    """
    predicted = histograms.predicted(thresholds)
    return {name: values[0] for name, values in _gated(histograms, predicted[:, None], thresholds, areas).items()}


def triplets(histograms: Histograms, tops: Sequence[float], areas: Sequence[float], bottoms: Sequence[float]) -> dict[str, np.ndarray]:
    """Mean scores for every (top threshold, least area, bottom threshold), float64 (tops, bottoms, areas) each.

    The winner's rule: a film whose pixels above the top threshold are fewer than the area gets an empty mask.
    """
    gate = np.broadcast_to(histograms.predicted(tops)[:, :, None], (len(histograms), len(tops), len(bottoms)))
    return _gated(histograms, gate, bottoms, areas)


def _gated(histograms: Histograms, gate: np.ndarray, thresholds: Sequence[float], areas: Sequence[float]) -> dict[str, np.ndarray]:
    """Means where a film keeps its mask at thresholds[b] if gate[:, g, b] reaches the area, float64 (gates, thresholds, areas)."""
    truth = histograms.truth[:, None]
    predicted, overlap = histograms.predicted(thresholds), histograms.overlap(thresholds)
    kept = {"dice": dice(overlap, predicted, truth), "iou": iou(overlap, predicted, truth)}
    empty = (truth == 0).astype(np.float64)
    positive = truth[:, 0] > 0
    per_film = {
        "dice": (kept["dice"], empty, len(truth)),
        "iou": (kept["iou"], empty, len(truth)),
        "dice_positive": (kept["dice"] * positive[:, None], 0 * empty, positive.sum()),
        "sensitivity": ((predicted > 0) * positive[:, None], 0 * empty, positive.sum()),
        "specificity": ((predicted == 0) * ~positive[:, None], empty, (~positive).sum()),
    }
    gates = gate.shape[1]
    out = {name: np.empty((gates, len(thresholds), len(areas))) for name in per_film}
    for g in range(gates):
        order = np.argsort(gate[:, g], axis=0)
        sorted_counts = np.take_along_axis(gate[:, g], order, axis=0)
        first_kept = np.stack([np.searchsorted(sorted_counts[:, b], areas, side="left") for b in range(len(thresholds))])
        for name, (if_kept, if_removed, n) in per_film.items():
            gain = np.take_along_axis(if_kept - if_removed, order, axis=0)
            from_here = np.concatenate([np.cumsum(gain[::-1], axis=0)[::-1], np.zeros((1, len(thresholds)))])
            total = if_removed.sum() + np.take_along_axis(from_here, first_kept.T, axis=0).T
            out[name][g] = total / n if n else np.nan
    return out


@dataclass
class Components:
    """8-connected components of n films at each threshold: film, threshold number, area and true pixels of each, int64."""

    film: np.ndarray
    threshold: np.ndarray
    area: np.ndarray
    overlap: np.ndarray


def components(levels: np.ndarray, truth: np.ndarray, film: int, thresholds: Sequence[float]) -> Components:
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
            _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
            right = np.bincount(labels[truth], minlength=len(stats))
            found.append(np.column_stack([np.full(len(stats) - 1, number), stats[1:, cv2.CC_STAT_AREA], right[1:]]))
    table = np.concatenate(found).astype(np.int64) if found else np.zeros((0, 3), np.int64)
    return Components(np.full(len(table), film), *table.T)


def component_surface(
    parts: Sequence[Components], truth: np.ndarray, thresholds: Sequence[float], areas: Sequence[float]
) -> dict[str, np.ndarray]:
    """As ``surface``, but each component is judged alone: those smaller than the area are removed. ``truth``: pixels, (n,)."""
    film, threshold, area, overlap = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("film", "threshold", "area", "overlap")
    )
    place, cells = film * len(thresholds) + threshold, len(truth) * len(thresholds)
    out = {name: np.empty((len(thresholds), len(areas))) for name in NAMES}
    for a, least in enumerate(areas):
        keep = area >= least
        predicted, right = (np.bincount(place[keep], values[keep], minlength=cells).reshape(len(truth), -1) for values in (area, overlap))
        for name, values in means(right, predicted, truth[:, None]).items():
            out[name][:, a] = values
    return out


def means(overlap: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Means over the first axis of per-film pixel counts; one over no films is NaN."""
    positive = np.broadcast_to(truth > 0, predicted.shape)
    d = dice(overlap, predicted, truth)

    def mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        n = where.sum(0)
        return np.where(n > 0, (values * where).sum(0) / np.maximum(n, 1), np.nan)

    everything = np.ones_like(positive)
    return {
        "dice": mean(d, everything),
        "dice_positive": mean(d, positive),
        "iou": mean(iou(overlap, predicted, truth), everything),
        "sensitivity": mean(predicted > 0, positive),
        "specificity": mean(predicted == 0, ~positive),
    }


def best(scores: np.ndarray) -> tuple[int, ...]:
    """The place of the highest score; of equal ones, the middle one (in the order of the array), which is safest."""
    places = np.flatnonzero(scores.ravel() >= np.nanmax(scores) - 1e-12)
    return tuple(int(i) for i in np.unravel_index(places[len(places) // 2], scores.shape))
