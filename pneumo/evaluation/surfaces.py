"""Scores at every threshold at once, from histograms of the probabilities. Pure numpy.

Per film, 256 counts of pixels by level, once for all pixels and once for those of the true mask,
say everything about every binarisation threshold: what is predicted, what of it is right. The
removal threshold only asks whether the predicted area is large enough, so films sorted by predicted
area give the mean for every removal threshold by one cumulative sum. The triplet rule sorts by
another threshold than it binarises with. All of it is exact, not an approximation.
"""

from collections.abc import Sequence

import numpy as np

from pneumo.masks.components import Components
from pneumo.masks.histograms import Histograms
from pneumo.masks.overlap import dice, iou

THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 100))
AREAS = tuple(range(0, 50 * 256, 256))  # pixels at 1024²; the paper's 2,048 is among them
NAMES = ("dice", "dice_positive", "iou", "sensitivity", "specificity")
CELLS = 2**20  # films × thresholds that are looked at together: bounds the memory


def surface(
    histograms: Histograms, thresholds: Sequence[float] = THRESHOLDS, areas: Sequence[float] = AREAS
) -> dict[str, np.ndarray]:
    """Mean scores for every binarisation × removal threshold, by the total rule.

    Float64 (len(thresholds), len(areas)) each. Areas are pixels of the maps' own size. A mean over
    no films is NaN.
    """
    some = max(1, CELLS // max(1, len(histograms)))
    each = []
    for begin in range(0, len(thresholds), some):
        block = thresholds[begin : begin + some]
        predicted = histograms.predicted(block)
        each.append(_gated(histograms, predicted[:, None], block, areas))
    return {name: np.concatenate([one[name][0] for one in each]) for name in NAMES}


def triplets(
    histograms: Histograms, tops: Sequence[float], areas: Sequence[float], bottoms: Sequence[float]
) -> dict[str, np.ndarray]:
    """Mean scores for every (top threshold, least area, bottom threshold).

    Float64 (tops, bottoms, areas) each. The winner's rule: a film whose pixels above the top
    threshold are fewer than the area gets an empty mask.
    """
    gate = np.broadcast_to(
        histograms.predicted(tops)[:, :, None], (len(histograms), len(tops), len(bottoms))
    )
    return _gated(histograms, gate, bottoms, areas)


def _gated(
    histograms: Histograms, gate: np.ndarray, thresholds: Sequence[float], areas: Sequence[float]
) -> dict[str, np.ndarray]:
    """Means where a film keeps its mask at thresholds[b] if gate[:, g, b] reaches the area.

    Float64 (gates, thresholds, areas).
    """
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
        first_kept = np.stack(
            [
                np.searchsorted(sorted_counts[:, b], areas, side="left")
                for b in range(len(thresholds))
            ]
        )
        for name, (if_kept, if_removed, n) in per_film.items():
            gain = np.take_along_axis(if_kept - if_removed, order, axis=0)
            from_here = np.concatenate(
                [np.cumsum(gain[::-1], axis=0)[::-1], np.zeros((1, len(thresholds)))]
            )
            total = if_removed.sum() + np.take_along_axis(from_here, first_kept.T, axis=0).T
            out[name][g] = total / n if n else np.nan
    return out


def component_surface(
    parts: Sequence[Components],
    truth: np.ndarray,
    thresholds: Sequence[float],
    areas: Sequence[float],
) -> dict[str, np.ndarray]:
    """As ``surface``, but each component is judged alone: those smaller than the area are removed.

    ``truth``: pixels, (n,).
    """
    nothing = np.zeros(0, np.int64)  # where a gate closes every film there are no components
    film, threshold, area, overlap = (
        np.concatenate([nothing, *(getattr(part, name) for part in parts)])
        for name in ("film", "threshold", "area", "overlap")
    )
    place, cells = film * len(thresholds) + threshold, len(truth) * len(thresholds)
    out = {name: np.empty((len(thresholds), len(areas))) for name in NAMES}
    for a, least in enumerate(areas):
        keep = area >= least
        predicted, right = (
            np.bincount(place[keep], values[keep], minlength=cells).reshape(len(truth), -1)
            for values in (area, overlap)
        )
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
    """The place of the highest score; of equal ones, the middle one in the array's order."""
    places = np.flatnonzero(scores.ravel() >= np.nanmax(scores) - 1e-12)
    return tuple(int(i) for i in np.unravel_index(places[len(places) // 2], scores.shape))
