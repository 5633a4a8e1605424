"""Per-film results → what a paper reports: curves, calibration, groups, intervals, paired tests.

Numpy only. Every mean takes weights, so that a bootstrap is one matrix product: row b of
``weights`` says how often each film stands in resample b.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.masks.histograms import Histograms
from pneumo.masks.scores import SCORES, Counted, mean, ranked, summary

# by size: quartiles of the areas of the challenge's 2,669 positive films, pixels at 1024²
SIZES = (
    ("to 4,059 px", 1, 4_059),
    ("to 8,630 px", 4_060, 8_630),
    ("to 18,388 px", 8_631, 18_388),
    ("larger", 18_389, 2**62),
)


@dataclass
class Outcomes(Counted):
    """Results of n films: pixels at 1024², image-level scores, patients and views where known."""

    ids: list[str]
    predicted: np.ndarray  # int64 (n,)
    truth: np.ndarray
    overlap: np.ndarray
    score: np.ndarray  # float (n,), see Histograms.score
    patients: list[str | None]
    views: list[str | None]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: np.ndarray) -> "Outcomes":
        picked = rows.tolist()
        return Outcomes(
            [self.ids[i] for i in picked],
            self.predicted[rows],
            self.truth[rows],
            self.overlap[rows],
            self.score[rows],
            [self.patients[i] for i in picked],
            [self.views[i] for i in picked],
        )

    @staticmethod
    def join(several: Sequence["Outcomes"]) -> "Outcomes":
        """The films of several sets, one set after the other."""
        return Outcomes(
            [image for one in several for image in one.ids],
            np.concatenate([one.predicted for one in several]),
            np.concatenate([one.truth for one in several]),
            np.concatenate([one.overlap for one in several]),
            np.concatenate([one.score for one in several]),
            [patient for one in several for patient in one.patients],
            [view for one in several for view in one.views],
        )


def roc_curve(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores from high to low, with the share of negatives and of positives at or above each.

    The point (0, 0) comes first.
    """
    at, right, wrong = ranked(score, positive, np.ones((1, len(score))))
    return (
        np.r_[np.inf, at],
        np.r_[0, wrong[0] / max(wrong[0, -1], 1)],
        np.r_[0, right[0] / max(right[0, -1], 1)],
    )


def pr_curve(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores from high to low, with precision and recall at each."""
    at, right, wrong = ranked(score, positive, np.ones((1, len(score))))
    return at, right[0] / (right[0] + wrong[0]), right[0] / max(right[0, -1], 1)


def resamples(patients: Sequence[str | None], count: int, seed: int = 0) -> np.ndarray:
    """Bootstrap weights (count, n): patients drawn with replacement, with all their films.

    A film of unknown patient is its own.
    """
    number, place = _by_patient(patients)
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=count)
    return draws[:, place].astype(np.float64)


def _by_patient(patients: Sequence[str | None]) -> tuple[int, np.ndarray]:
    """How many patients there are, and the number of each film's, (n,)."""
    distinct, place = np.unique(
        [name or f"#{i}" for i, name in enumerate(patients)], return_inverse=True
    )
    return len(distinct), place


def intervals(outcomes: Outcomes, count: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of ``summary`` (percentiles of a bootstrap by patient).

    None of fewer than two patients: one alone says nothing of others.
    """
    if _by_patient(outcomes.patients)[0] < 2:
        return {}
    spread = summary(outcomes, resamples(outcomes.patients, count, seed))
    return {score.key: _middle(spread[score.key]) for score in SCORES if score.varies}


def _middle(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


PAIRED = (
    "paired bootstrap by patient: 95 % interval (percentiles), and two-sided p from the same "
    "resamples"
)


@dataclass
class Difference:
    """One run minus another on the same films: mean, interval and p of ``PAIRED``.

    Interval and p are NaN where there is but one patient.
    """

    mean: float
    low: float
    high: float
    p: float


def paired(one: Outcomes, other: Outcomes, count: int, seed: int = 0) -> dict[str, Difference]:
    """Differences of ``dice``, ``dice_positive`` and ``iou`` on the same films, in the same order.

    Patients are drawn with replacement, with all their films. The interval is that of the middle
    95 % of the differences; p is twice the share of differences on the other side of zero, so that
    it is below .05 where the interval leaves zero out, but never below 2 / (count + 1) (Efron and
    Tibshirani 1993, chapters 13 and 16).
    """
    assert one.ids == other.ids
    weights = resamples(one.patients, count, seed)
    several = _by_patient(one.patients)[0] > 1
    found = {}
    chosen: dict[str, tuple[Callable[[Outcomes], np.ndarray], np.ndarray]] = {
        "dice": (lambda o: o.dice, np.ones(len(one))),
        "dice_positive": (lambda o: o.dice, one.positive.astype(float)),
        "iou": (lambda o: o.iou, np.ones(len(one))),
    }
    for name, (of, counted) in chosen.items():
        gap = of(one) - of(other)
        centre = float(mean(gap, counted[None])[0])
        low = high = p = float("nan")
        if several and counted.any():
            spread = mean(gap, weights * counted)
            low, high = _middle(spread)
            known = spread[np.isfinite(spread)]
            beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
            p = min(1.0, 2 * (1 + beyond) / (len(known) + 1))
        found[name] = Difference(centre, low, high, p)
    return found


def groups(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """Rows of each group that has films: by view, and by size (the challenge's quartiles)."""
    found = {
        f"size {name}": np.flatnonzero((outcomes.truth >= low) & (outcomes.truth <= high))
        for name, low, high in SIZES
    }
    for view in sorted({view for view in outcomes.views if view}):
        found[f"view {view}"] = np.array(
            [i for i, v in enumerate(outcomes.views) if v == view], np.int64
        )
    return {name: rows for name, rows in found.items() if len(rows)}


@dataclass
class Calibration:
    """Pixels by predicted probability, in tenths.

    Mean probability, share that is pneumothorax, and pixels; ECE is their mean gap.
    """

    probability: list[float]
    share: list[float]
    pixels: list[int]
    ece: float


def calibration(histograms: Histograms, bins: int = 10) -> Calibration:
    """How often pixels of a predicted probability are pneumothorax.

    Exact: it needs no pixels, only the histograms. ECE is the expected calibration error (Naeini et
    al. 2015) over pixels.
    """
    total, inside = (
        histograms.total.sum(0, dtype=np.int64),
        histograms.inside.sum(0, dtype=np.int64),
    )
    place = np.minimum(np.arange(256) * bins // 255, bins - 1)
    pixels, right = (np.bincount(place, counts, bins) for counts in (total, inside))
    expected = np.bincount(place, total * np.arange(256) / 255, bins)
    some = pixels > 0
    ece = float(np.abs(right - expected).sum() / max(pixels.sum(), 1))
    return Calibration(
        (expected[some] / pixels[some]).tolist(),
        (right[some] / pixels[some]).tolist(),
        pixels[some].astype(int).tolist(),
        ece,
    )
