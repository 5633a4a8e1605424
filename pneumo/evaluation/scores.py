"""Per-film results → what a paper reports: means, ROC and PR, calibration, groups, intervals by patient, paired tests.

Numpy only. Every mean takes weights, so that a bootstrap is one matrix product: row b of ``weights`` says how often each film
stands in resample b.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.masks.histograms import Histograms
from pneumo.masks.overlap import dice, iou

# by size: quartiles of the areas of the challenge's 2,669 positive films, pixels at 1024²
SIZES = (
    ("to 4,059 px", 1, 4_059),
    ("to 8,630 px", 4_060, 8_630),
    ("to 18,388 px", 8_631, 18_388),
    ("larger", 18_389, 2**62),
)
IOU_STEPS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass
class Outcomes:
    """Results of n films: pixels predicted, true, and both, at 1024²; the film's own score; patients and views (None: unknown)."""

    ids: list[str]
    predicted: np.ndarray  # int64 (n,)
    truth: np.ndarray
    overlap: np.ndarray
    score: np.ndarray  # float (n,), see Histograms.score
    patients: list[str | None]
    views: list[str | None]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def positive(self) -> np.ndarray:
        """Which films show pneumothorax, bool (n,)."""
        return self.truth > 0

    @property
    def dice(self) -> np.ndarray:
        """Dice of each film by the challenge's rule, float (n,)."""
        return dice(self.overlap, self.predicted, self.truth)

    @property
    def iou(self) -> np.ndarray:
        """IoU of each film, 1 if both masks are empty, float (n,)."""
        return iou(self.overlap, self.predicted, self.truth)

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


def summary(outcomes: Outcomes, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Scores of a set of films; with ``weights`` (b, n) one value a row, else of shape (1,). A mean over no films is NaN.

    ``dice`` (challenge rule), ``dice_positive``, ``iou``; ``iou_stepped`` and ``iou_mean_precision``, two variants of the
    challenge's public kernels under which IoU was published at the time; ``sensitivity`` and ``specificity`` of finding any
    pneumothorax; ``roc_auc`` and ``pr_auc`` (average precision) of the film's score; ``all_empty_dice``, what empty masks
    would score.
    """
    w = np.ones((1, len(outcomes))) if weights is None else weights
    positive, marked = outcomes.positive, outcomes.predicted > 0
    plain_iou = outcomes.iou
    return {
        "dice": mean(outcomes.dice, w),
        "dice_positive": mean(outcomes.dice, w * positive),
        "iou": mean(plain_iou, w),
        "iou_stepped": mean(iou_stepped(plain_iou), w),
        "iou_mean_precision": mean(iou_mean_precision(plain_iou), w),
        "sensitivity": mean(marked, w * positive),
        "specificity": mean(~marked, w * ~positive),
        "roc_auc": roc_auc(outcomes.score, positive, w),
        "pr_auc": average_precision(outcomes.score, positive, w),
        "all_empty_dice": mean(~positive, w),
    }


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means of values (n,) by weights (b, n) → (b,); NaN where all weights are 0."""
    total = weights.sum(1)
    return np.where(
        total > 0, weights @ values.astype(np.float64) / np.where(total > 0, total, 1), np.nan
    )


def iou_stepped(values: np.ndarray) -> np.ndarray:
    """IoU in steps of a tenth from .5 on, 0 below: floor(20 (IoU - .45)) / 10, at most 1. For a single object the mean over the
    IoU thresholds .5, .55, …, .95 of "IoU reaches the threshold"; a stand-in for it in many kernels of 2018 and 2019 (which
    give 1.1 to a perfect mask).
    """
    return np.minimum(np.floor(np.maximum(0, (values - 0.45) * 20) + 1e-9) / 10, 1)


def iou_mean_precision(values: np.ndarray) -> np.ndarray:
    """Mean over the IoU thresholds .5, .55, …, .95 of "IoU exceeds the threshold", the mask taken as one object."""
    return np.mean([values > step for step in IOU_STEPS], axis=0)


def _ranked(
    score: np.ndarray, positive: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, highest first, and the weights of positives and negatives at or above each: (m,), (b, m), (b, m)."""
    distinct, place = np.unique(-score, return_inverse=True)
    table = np.zeros((len(score), len(distinct)))
    table[np.arange(len(score)), place] = 1
    right, wrong = (
        np.cumsum((weights * chosen) @ table, axis=1) for chosen in (positive, ~positive)
    )
    return -distinct, right, wrong


def roc_curve(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores from high to low, with the share of negatives and of positives at or above each; (0, 0) first."""
    at, right, wrong = _ranked(score, positive, np.ones((1, len(score))))
    return (
        np.r_[np.inf, at],
        np.r_[0, wrong[0] / max(wrong[0, -1], 1)],
        np.r_[0, right[0] / max(right[0, -1], 1)],
    )


def pr_curve(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores from high to low, with precision and recall of calling positive all films at or above each."""
    at, right, wrong = _ranked(score, positive, np.ones((1, len(score))))
    return at, right[0] / (right[0] + wrong[0]), right[0] / max(right[0, -1], 1)


def roc_auc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, ties counted half, for each row of weights; NaN without both labels."""
    _, right, wrong = _ranked(score, positive, weights)
    before = np.concatenate([np.zeros((len(right), 1)), right[:, :-1]], axis=1)
    area = (np.diff(wrong, axis=1, prepend=0) * (before + right) / 2).sum(1)
    pairs = right[:, -1] * wrong[:, -1]
    return np.where(pairs > 0, area / np.where(pairs > 0, pairs, 1), np.nan)


def average_precision(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve by steps (no interpolation), for each row of weights; NaN without positives."""
    _, right, wrong = _ranked(score, positive, weights)
    precision = right / np.maximum(right + wrong, 1e-300)
    positives = right[:, -1]
    area = (np.diff(right, axis=1, prepend=0) * precision).sum(1)
    return np.where(positives > 0, area / np.where(positives > 0, positives, 1), np.nan)


def resamples(patients: Sequence[str | None], count: int, seed: int = 0) -> np.ndarray:
    """Bootstrap weights (count, n): patients drawn with replacement, with all their films; a film of unknown patient is its own."""
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
    """95 % intervals of ``summary`` (percentiles of a bootstrap by patient)."""
    spread = summary(outcomes, resamples(outcomes.patients, count, seed))
    return {name: _middle(values) for name, values in spread.items()}


def _middle(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


@dataclass
class Difference:
    """One run minus another on the same films: mean, 95 % interval by patient, and two-sided p of no difference."""

    mean: float
    low: float
    high: float
    p: float


def paired(one: Outcomes, other: Outcomes, count: int, seed: int = 0) -> dict[str, Difference]:
    """Differences of ``dice``, ``dice_positive`` and ``iou`` on the same films, in the same order.

    The interval is a bootstrap by patient; p is of a permutation test that swaps the two runs for whole patients, which
    is exact whatever the distribution (and at best 1 / (count + 1)).
    """
    assert one.ids == other.ids
    weights = resamples(one.patients, count, seed)
    number, place = _by_patient(one.patients)
    signs = np.random.default_rng([seed, 1]).choice((-1.0, 1.0), size=(count, number))[:, place]
    found = {}
    chosen: dict[str, tuple[Callable[[Outcomes], np.ndarray], np.ndarray]] = {
        "dice": (lambda o: o.dice, np.ones(len(one))),
        "dice_positive": (lambda o: o.dice, one.positive.astype(float)),
        "iou": (lambda o: o.iou, np.ones(len(one))),
    }
    for name, (of, counted) in chosen.items():
        gap = of(one) - of(other)
        centre = float(mean(gap, counted[None])[0])
        low, high = _middle(mean(gap, weights * counted))
        swapped = (signs * counted) @ gap / max(counted.sum(), 1)
        p = (
            (1 + int((np.abs(swapped) >= abs(centre) - 1e-12).sum())) / (count + 1)
            if counted.any()
            else float("nan")
        )
        found[name] = Difference(centre, low, high, p)
    return found


def groups(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """Rows of each group that has films: by size of the pneumothorax (quartiles of the challenge's) and by view."""
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
    """Pixels by predicted probability, in tenths: mean probability, share that is pneumothorax, pixels; ECE their mean gap."""

    probability: list[float]
    share: list[float]
    pixels: list[int]
    ece: float


def calibration(histograms: Histograms, bins: int = 10) -> Calibration:
    """How often pixels of a predicted probability are pneumothorax. Exact: it needs no pixels, only the histograms.

    ECE is the expected calibration error (Naeini et al. 2015) over pixels.
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
