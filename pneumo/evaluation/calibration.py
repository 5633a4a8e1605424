"""Whether a predicted probability is the share that is pneumothorax: of pixels and of films.

Nearly all pixels of a film are background, which any network knows, so that an error over all
pixels is small whatever it says of the lesions. Pixels are therefore counted where there is
something: in the true mask, or where more than ``SMALL`` is predicted.
"""

from dataclasses import dataclass

import numpy as np

from pneumo.evaluation.scores import Outcomes, middle, resampled, several
from pneumo.inference.probability import Platt, fit
from pneumo.masks.histograms import Histograms
from pneumo.masks.rule import TOP_LEVEL, level
from pneumo.masks.scores import mean

SMALL = 0.05
BINS = 10


@dataclass
class Reliability:
    """Cases by predicted probability, in tenths: those that hold any.

    Mean probability, share that is pneumothorax, and number of each. ``ece`` is their mean gap, the
    expected calibration error (Naeini et al. 2015); NaN of no cases.
    """

    probability: list[float]
    share: list[float]
    count: list[int]
    ece: float


@dataclass
class Pixels(Reliability):
    """Pixels above ``SMALL`` in the bins; ``missed`` pixels of true masks lie below and count too.

    They enter ``ece`` with the gap between their probability and 1.
    """

    missed: int


@dataclass
class Films:
    """Films by their scores as they are, and by their probabilities fitted on other films.

    Brier scores are mean squared errors, with 95 % intervals by patient: ``share_brier`` is that of
    a forecast that knows nothing of a film but the share of positives.
    """

    how: str
    raw: Reliability
    calibrated: Reliability
    raw_brier: float
    brier: float
    brier_interval: tuple[float, float] | None
    share_brier: float


def of_pixels(histograms: Histograms) -> Pixels:
    """How often pixels of a predicted probability are pneumothorax; exact, from histograms."""
    total, inside = (
        counts.sum(0, dtype=np.int64) for counts in (histograms.total, histograms.inside)
    )
    levels = np.arange(TOP_LEVEL + 1)
    shown, hidden = levels >= level(SMALL), levels < level(SMALL)
    bins = _reliability(levels[shown] / TOP_LEVEL, total[shown], inside[shown])
    missed = int(inside[hidden].sum())
    short = float((inside[hidden] * (1 - levels[hidden] / TOP_LEVEL)).sum())
    cases = sum(bins.count)
    error = (bins.ece if cases else 0.0) * cases + short
    whole = error / (cases + missed) if cases + missed else float("nan")
    return Pixels(bins.probability, bins.share, bins.count, whole, missed)


def of_films(films: Outcomes, groups: np.ndarray, how: str, count: int, seed: int) -> Films | None:
    """How often films of a probability show pneumothorax, before and after fitting a curve.

    Each group, of ``groups`` (n,), has the curve of all others. None where a curve cannot be
    fitted: without both classes outside of each group.
    """
    probability = np.zeros(len(films))
    for group in np.unique(groups):
        others = groups != group
        curve = fit(films.score[others], films.positive[others])
        if curve is None:
            return None
        probability[~others] = curve(films.score[~others])
    return under(films, probability, how, count, seed)


def under(films: Outcomes, probability: np.ndarray, how: str, count: int, seed: int) -> Films:
    """The films' calibration by their scores, and by probabilities (n,) that came about ``how``."""
    label = films.positive.astype(np.float64)
    ones = np.ones(len(films), np.int64)
    errors = (probability - label) ** 2
    bounds = None
    if count and several(films.patients):
        drawn = resampled(films.patients, count, seed, lambda some: {"": mean(errors, some)})
        bounds = middle(drawn[""])
    return Films(
        how,
        _reliability(films.score, ones, label),
        _reliability(probability, ones, label),
        float(((films.score - label) ** 2).mean()),
        float(errors.mean()),
        bounds,
        float(label.var()),
    )


def curve_of(films: Outcomes) -> Platt | None:
    """The curve of all these films, for others."""
    return fit(films.score, films.positive)


def _reliability(probability: np.ndarray, total: np.ndarray, right: np.ndarray) -> Reliability:
    """``total`` cases of each probability, of which ``right`` are pneumothorax, (k,) each."""
    place = np.minimum((probability * BINS + 1e-9).astype(np.int64), BINS - 1)
    cases, found, expected = (
        np.bincount(place, values, BINS) for values in (total, right, total * probability)
    )
    some = cases > 0
    ece = float(np.abs(found - expected).sum() / cases.sum()) if some.any() else float("nan")
    return Reliability(
        (expected[some] / cases[some]).tolist(),
        (found[some] / cases[some]).tolist(),
        cases[some].astype(int).tolist(),
        ece,
    )
