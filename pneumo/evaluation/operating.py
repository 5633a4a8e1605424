"""Operating points: of films at stated specificities or sensitivities, of lesions by false ones.

A point read off the curve of the films it is of says what the ranking allows, not what a threshold
chosen elsewhere gives; every resample of the bootstrap reads its own. With other films to choose
on, thresholds are theirs, and what they give is counted.
"""

import functools
from enum import Enum

import numpy as np

from pneumo.evaluation.results import OfSize, Point, known
from pneumo.evaluation.scores import Outcomes, middle, resampled, several
from pneumo.evaluation.settings import Measures
from pneumo.evaluation.shapes import Candidates
from pneumo.masks.scores import mean, ranked, roc_auc

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
    positives among these films. Intervals from ``count`` resamples of patients, none if it is 0. No
    points where there are no films whose rate could be demanded.
    """
    source = films if chosen_on is None else chosen_on
    demanded = ~source.positive if fixed is Fixed.specificity else source.positive
    if not demanded.any():
        return []
    curve = _curve(source, np.ones((1, len(source))))
    thresholds = [_threshold(curve, wanted, fixed) for wanted in least]

    def drawn(weights: np.ndarray) -> dict[tuple[float, str], np.ndarray]:
        """The values of each demanded rate, of each resample."""
        own = _curve(films, weights) if chosen_on is None else None
        found: dict[tuple[float, str], np.ndarray] = {}
        for wanted, threshold in zip(least, thresholds, strict=True):
            rates = (
                _counted(films, weights, threshold) if own is None else _best(own, wanted, fixed)
            )
            values = _values(*rates, prevalence)
            found |= {(wanted, key): value for key, value in values.items()}
        return found

    spread = resampled(films.patients, count, seed, drawn) if _draws(films.patients, count) else {}
    points = []
    for wanted, threshold in zip(least, thresholds, strict=True):
        values = _values(*_counted(films, np.ones((1, len(films))), threshold), prevalence)
        bounds = {key: middle(spread[wanted, key]) for key in values if spread}
        points.append(_point(wanted, threshold, values, bounds))
    return points


def by_size(
    films: Outcomes, how: Measures, count: int, seed: int, chosen_on: Outcomes | None = None
) -> list[OfSize]:
    """Positives of at least each stated size against all negatives; the smaller ones are left out.

    As Taylor et al. (PLOS Medicine 2018, doi 10.1371/journal.pmed.1002697) judged moderate and
    large pneumothorax, with small ones left out. Their readers judged the size; here it is the
    mask's area, and which area is moderate is an assumption. The operating points are those of
    ``of_films``, for these films alone.
    """
    found = []
    for least in how.least_px:
        some = _with_masks_of(films, least)
        if not len(some):
            continue
        values, bounds = _detection(some, np.ones((1, len(some)))), {}
        if _draws(some.patients, count):
            work = functools.partial(_detection, some)
            drawn = resampled(some.patients, count, seed, work)
            bounds = {key: middle(spread) for key, spread in drawn.items()}
        others = None if chosen_on is None else _with_masks_of(chosen_on, least)
        points = [
            of_films(some, wanted, how.prevalence, count, seed, others, fixed)
            for wanted, fixed in (
                (how.specificities, Fixed.specificity),
                (how.sensitivities, Fixed.sensitivity),
            )
        ]
        positives = int(some.positive.sum())
        counts = (least, positives, len(some) - positives)
        found.append(OfSize(*counts, *_known(values, bounds), *points))
    return found


def _with_masks_of(films: Outcomes, least: int) -> Outcomes:
    """The negative films, and those whose true mask has at least so many pixels at 1024²."""
    return films[np.flatnonzero(~films.positive | (films.truth >= least))]


def _detection(films: Outcomes, weights: np.ndarray) -> dict[str, np.ndarray]:
    """How the films' scores rank them, and which share of positives has a mask. (b,) each."""
    return {
        "roc_auc": roc_auc(films.score, films.positive, weights),
        "sensitivity": mean(films.marked, weights * films.positive),
    }


def _draws(patients: list[str | None], count: int) -> bool:
    """Whether patients are resampled: where there are two at least, and it is asked for."""
    return bool(count) and several(patients)


# distinct scores (m,), highest first, and for each row of weights sensitivity and specificity
# (b, m + 1) of calling no film positive, those of the first score, those of the first two …
Curve = tuple[np.ndarray, np.ndarray, np.ndarray]
Rates = tuple[np.ndarray, np.ndarray]  # sensitivity and specificity, (b,) each


def _counted(films: Outcomes, weights: np.ndarray, threshold: float | None) -> Rates:
    """Of calling films positive from a given score on."""
    called = films.score >= (np.inf if threshold is None else threshold)
    return mean(called, weights * films.positive), mean(~called, weights * ~films.positive)


def _curve(films: Outcomes, weights: np.ndarray) -> Curve:
    """Rates of films of a class that a row does not hold are NaN."""
    scores, found, wrong = ranked(films.score, films.positive, weights)
    nothing = np.zeros((len(weights), 1))
    found, wrong = np.hstack([nothing, found]), np.hstack([nothing, wrong])
    with np.errstate(invalid="ignore", divide="ignore"):
        return scores, found / found[:, -1:], 1 - wrong / wrong[:, -1:]


def _place(curve: Curve, wanted: float, fixed: Fixed) -> np.ndarray:
    """The best column of each row, (b, 1).

    Along a row sensitivity rises and specificity falls: the last that is specific enough is the
    most sensitive, the first that is sensitive enough the most specific.
    """
    _, sensitivity, specificity = curve
    if fixed is Fixed.specificity:
        return np.maximum((specificity >= wanted - 1e-12).sum(1) - 1, 0)[:, None]
    return (sensitivity < wanted - 1e-12).sum(1)[:, None]


def _threshold(curve: Curve, wanted: float, fixed: Fixed) -> float | None:
    """The score from which the best point of the first row holds."""
    first = int(_place(curve, wanted, fixed)[0, 0])
    return float(curve[0][first - 1]) if first else None


def _best(curve: Curve, wanted: float, fixed: Fixed) -> Rates:
    """Of the best point of each row; NaN where there is no film whose rate could be demanded."""
    place = _place(curve, wanted, fixed)
    rates = [np.take_along_axis(side, place, 1)[:, 0] for side in curve[1:]]
    missing = np.isnan(rates[1] if fixed is Fixed.specificity else rates[0])
    sensitivity, specificity = (np.where(missing, np.nan, rate) for rate in rates)
    return sensitivity, specificity


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
    end = float((~candidates.hit).sum() / len(candidates.lesions))
    rates = [*(rate for rate in FALSE_A_FILM if rate < end), end]
    most = {rate: np.inf if rate == end else rate for rate in rates}

    def drawn(weights: np.ndarray) -> dict[float, np.ndarray]:
        return {rate: _found(candidates, weights, most[rate])[1] for rate in rates}

    spread = resampled(patients, count, seed, drawn) if _draws(patients, count) else {}
    points = []
    for rate in rates:
        threshold, sensitivity = _found(candidates, once, most[rate])
        bounds = {"sensitivity": middle(spread[rate])} if spread else {}
        points.append(_point(rate, threshold, {"sensitivity": sensitivity}, bounds))
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
    return Point(wanted, threshold, *_known(values, bounds))


def _known(
    values: dict[str, np.ndarray], bounds: dict[str, tuple[float, float]]
) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """Scores, None where they do not exist, and the intervals of those that do."""
    scores = {key: known(value[0]) for key, value in values.items()}
    finite = {
        key: pair
        for key, pair in bounds.items()
        if scores[key] is not None and np.isfinite(pair).all()
    }
    return scores, finite
