"""Operating points: of films at stated specificities or sensitivities, of lesions by false ones.

A point read off the curve of the films it is of says what the ranking allows, not what a threshold
chosen elsewhere gives; every resample of the bootstrap reads its own. With other films to choose
on, thresholds are theirs, and what they give is counted.
"""

from enum import Enum

import numpy as np

from pneumo.evaluation.results import Point, known
from pneumo.evaluation.scores import Outcomes, middle, resamples, several
from pneumo.evaluation.shapes import Candidates
from pneumo.masks.scores import mean, ranked

FALSE_A_FILM = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # as in LUNA16 and its kin


class Fixed(Enum):
    """Which rate of a test is demanded; the other is the best that can be had with it."""

    specificity = "specificity"
    sensitivity = "sensitivity"


def of_films(
    films: Outcomes,
    least: list[float],
    prevalence: float,
    count: int,
    seed: int,
    chosen_on: Outcomes | None = None,
    fixed: Fixed = Fixed.specificity,
) -> list[Point]:
    """The highest sensitivity at a specificity of at least so much, PPV and NPV there.

    With ``fixed`` at sensitivity the highest specificity at a sensitivity of at least so much.
    Films are called positive from a score on: that of these films' own curve, or of the curve of
    ``chosen_on``. PPV and NPV are those at ``prevalence``, by Bayes' rule, whatever the share of
    positives among these films. Intervals from ``count`` resamples of patients, none if it is 0.
    """
    once = np.ones((1, len(films)))
    draws = resamples(films.patients, count, seed) if count and several(films.patients) else None
    points = []
    for wanted in least:

        def rates(weights: np.ndarray, wanted: float = wanted) -> Rates:
            if chosen_on is None:
                return _read_off(films, weights, wanted, fixed)
            ones = np.ones((1, len(chosen_on)))
            return _counted(films, weights, _read_off(chosen_on, ones, wanted, fixed)[0])

        threshold, tp, tn = rates(once)
        bounds = {}
        if draws is not None:
            spread = _values(*rates(draws)[1:], prevalence)
            bounds = {key: middle(spread[key]) for key in spread}
        points.append(_point(wanted, threshold, _values(tp, tn, prevalence), bounds))
    return points


# the threshold, and sensitivity and specificity (b,) of each row of weights
Rates = tuple[float | None, np.ndarray, np.ndarray]


def _counted(films: Outcomes, weights: np.ndarray, threshold: float | None) -> Rates:
    """Of films that are called positive from a given threshold on."""
    called = films.score >= (np.inf if threshold is None else threshold)
    tp = mean(called, weights * films.positive)
    return threshold, tp, mean(~called, weights * ~films.positive)


def _read_off(films: Outcomes, weights: np.ndarray, wanted: float, fixed: Fixed) -> Rates:
    """Of the best threshold of each row of weights; the threshold is that of the first."""
    scores, found, wrong = ranked(films.score, films.positive, weights)
    nothing = np.zeros((len(weights), 1))
    found, wrong = np.hstack([nothing, found]), np.hstack([nothing, wrong])
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity, specificity = found / found[:, -1:], 1 - wrong / wrong[:, -1:]
        # along a row sensitivity rises and specificity falls: the last that is specific enough is
        # the most sensitive, the first that is sensitive enough the most specific
        if fixed is Fixed.specificity:
            place = np.maximum((specificity >= wanted - 1e-12).sum(1) - 1, 0)[:, None]
        else:
            place = (sensitivity < wanted - 1e-12).sum(1)[:, None]
        tp = np.take_along_axis(sensitivity, place, 1)[:, 0]
        tn = np.take_along_axis(specificity, place, 1)[:, 0]
    first = int(place[0, 0])
    return (float(scores[first - 1]) if first else None), tp, tn


def _values(tp: np.ndarray, tn: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    """Sensitivity, specificity, and by Bayes' rule PPV and NPV, (b,) each."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "sensitivity": tp,
            "specificity": tn,
            "ppv": tp * prevalence / (tp * prevalence + (1 - tn) * (1 - prevalence)),
            "npv": tn * (1 - prevalence) / (tn * (1 - prevalence) + (1 - tp) * prevalence),
        }


def of_lesions(
    candidates: Candidates, patients: list[str | None], count: int, seed: int
) -> list[Point]:
    """FROC: the share of lesions found with at most so many false candidates a film.

    Candidates count from a score on. The last point is that of all candidates: rates beyond it are
    not reached. None where there are no lesions.
    """
    if not candidates.lesions.sum():
        return []
    once = np.ones((1, len(candidates.lesions)))
    draws = resamples(patients, count, seed) if count and several(patients) else None
    end = float((~candidates.hit).sum() / len(candidates.lesions))
    points = []
    for wanted in [*(rate for rate in FALSE_A_FILM if rate < end), end]:
        allowed = np.inf if wanted == end else wanted
        threshold, sensitivity = _found(candidates, once, allowed)
        bounds = {}
        if draws is not None:
            bounds = {"sensitivity": middle(_found(candidates, draws, allowed)[1])}
        points.append(_point(wanted, threshold, {"sensitivity": sensitivity}, bounds))
    return points


def _found(
    candidates: Candidates, weights: np.ndarray, most: float
) -> tuple[float | None, np.ndarray]:
    """The threshold of the first row of weights, and the sensitivity (b,) of all rows."""
    total = weights @ candidates.lesions
    if not len(candidates.score):
        return None, np.where(total > 0, 0.0, np.nan)
    scores, hits, false = ranked(candidates.score, candidates.hit, weights[:, candidates.film])
    nothing = np.zeros((len(weights), 1))
    hits, false = np.hstack([nothing, hits]), np.hstack([nothing, false])
    allowed = false <= most * weights.sum(1, keepdims=True) + 1e-9
    place = (allowed.sum(1) - 1)[:, None]
    right = np.take_along_axis(hits, place, 1)[:, 0]
    first = int(place[0, 0])
    threshold = float(scores[first - 1]) if first else None
    return threshold, np.where(total > 0, right / np.where(total > 0, total, 1), np.nan)


def _point(
    wanted: float,
    threshold: float | None,
    values: dict[str, np.ndarray],
    bounds: dict[str, tuple[float, float]],
) -> Point:
    scores = {key: known(value[0]) for key, value in values.items()}
    finite = {
        key: pair
        for key, pair in bounds.items()
        if scores[key] is not None and np.isfinite(pair).all()
    }
    return Point(wanted, threshold, scores, finite)
