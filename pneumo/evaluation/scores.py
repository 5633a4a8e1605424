"""Per-film results → what a paper reports: curves, groups, intervals, paired tests.

Numpy only. Every mean takes weights, so that a bootstrap is one matrix product: row b of
``weights`` says how often each film stands in resample b.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from pneumo.errors import PneumoError
from pneumo.masks.scores import SCORES, Counted, Shapes, mean, ranked, summary
from pneumo.masks.truth import Truth

# by size: quartiles of the areas of the challenge's 2,669 positive films, pixels at 1024²
SIZES = (
    ("to 4,059 px", 1, 4_059),
    ("to 8,630 px", 4_060, 8_630),
    ("to 18,388 px", 8_631, 18_388),
    ("larger", 18_389, 2**62),
)


# by age in years: children, and three groups of adults
AGES = (("to 17", 0, 18), ("18 to 39", 18, 40), ("40 to 64", 40, 65), ("from 65", 65, 200))


@dataclass
class Outcomes(Counted):
    """Results of n films: pixels at 1024², image-level scores, and what is known of the films."""

    ids: list[str]
    predicted: np.ndarray  # int64 (n,)
    truth: np.ndarray
    overlap: np.ndarray
    score: np.ndarray  # float (n,), see Histograms.score
    patients: list[str | None]
    views: list[str | None]
    sexes: list[str | None] = field(default_factory=list)  # where they are not given, unknown
    ages: list[float | None] = field(default_factory=list)  # years
    sites: list[str | None] = field(default_factory=list)
    tubes: list[bool | None] = field(default_factory=list)  # whether a chest tube is seen
    truths: list[Truth] = field(default_factory=list)  # where they are not given, masks
    shapes: Shapes | None = None

    def __post_init__(self) -> None:
        count = len(self.ids)
        self.sexes = self.sexes or [None] * count
        self.ages = self.ages or [None] * count
        self.sites = self.sites or [None] * count
        self.tubes = self.tubes or [None] * count
        self.truths = self.truths or [Truth.masks] * count

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: np.ndarray) -> "Outcomes":
        return Outcomes(**{key: _picked(values, rows) for key, values in vars(self).items()})

    @staticmethod
    def join(sets: Sequence["Outcomes"]) -> "Outcomes":
        """The films of several sets, one set after the other."""
        keys = vars(sets[0])
        return Outcomes(**{key: _joined([vars(one)[key] for one in sets]) for key in keys})


def _picked(values: Any, rows: np.ndarray) -> Any:
    if isinstance(values, list):
        return [values[row] for row in rows.tolist()]
    return None if values is None else values[rows]


def _joined(sets: list[Any]) -> Any:
    first = sets[0]
    if any(values is None for values in sets):
        return None
    if isinstance(first, list):
        return [value for values in sets for value in values]
    return Shapes.join(sets) if isinstance(first, Shapes) else np.concatenate(sets)


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


WEIGHTS = 2**22  # of a bootstrap that are held at a time, 32 MiB, however many films there are
Key = TypeVar("Key", bound=Hashable)


def resampled(
    patients: Sequence[str | None],
    count: int,
    seed: int,
    compute: Callable[[np.ndarray], dict[Key, np.ndarray]],
) -> dict[Key, np.ndarray]:
    """What ``compute`` makes of bootstrap weights, which it sees some rows at a time.

    Patients are drawn with replacement, with all their films; a film of unknown patient is its own.
    It takes weights (b, n) and returns values (b,); they come back as (count,). ``count`` is at
    least 1.
    """
    each = [compute(weights) for weights in _blocks(patients, count, seed)]
    return {key: np.concatenate([one[key] for one in each]) for key in each[0]}


def _blocks(patients: Sequence[str | None], count: int, seed: int) -> Iterator[np.ndarray]:
    """Rows of weights; how many come at a time changes nothing in what is drawn."""
    number, place = _by_patient(patients)
    rng = np.random.default_rng(seed)
    rows = max(1, WEIGHTS // len(place))
    for begin in range(0, count, rows):
        some = min(rows, count - begin)
        draws = rng.multinomial(number, np.full(number, 1 / number), size=some)
        yield draws[:, place].astype(np.float64)


def _by_patient(patients: Sequence[str | None]) -> tuple[int, np.ndarray]:
    """How many patients there are, and the number of each film's, (n,)."""
    distinct, place = np.unique(
        [name or f"#{i}" for i, name in enumerate(patients)], return_inverse=True
    )
    return len(distinct), place


def several(patients: Sequence[str | None]) -> bool:
    """Whether there are two patients at least: one alone says nothing of others."""
    return _by_patient(patients)[0] > 1


def intervals(outcomes: Outcomes, count: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of ``summary`` (percentiles of a bootstrap by patient).

    None of fewer than two patients.
    """
    if not several(outcomes.patients):
        return {}
    spread = resampled(outcomes.patients, count, seed, lambda drawn: summary(outcomes, drawn))
    return {
        score.key: middle(spread[score.key])
        for score in SCORES
        if score.varies and score.key in spread
    }


def middle(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled values (b,), without those that do not exist."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


# Measured by tests/evaluation/test_scores.py: a tenth of the challenge's patients drawn, and the
# interval of the share of negatives among their films.
NARROW = (
    "intervals, and p, are too narrow where patients have several films (drawn again from the "
    "challenge's own patients, 95 % intervals by film hold the truth in 57 % of draws; by patient, "
    "in 91 %)"
)
PAIRED = (
    "between these trained networks, not between methods: paired bootstrap by patient; 95 % "
    "interval (percentiles), and two-sided p from the same resamples"
)


@dataclass
class Difference:
    """One run, or method, minus another on the same films: mean, interval and p.

    Interval and p are NaN where there is but one patient.
    """

    mean: float
    low: float
    high: float
    p: float


# what is compared: a score of each film, and which films count
COMPARED: dict[str, tuple[Callable[[Outcomes], np.ndarray], Callable[[Outcomes], np.ndarray]]] = {
    "dice": (lambda films: films.dice, lambda films: np.ones(len(films))),
    "dice_positive": (lambda films: films.dice, lambda films: films.positive.astype(float)),
    "iou": (lambda films: films.iou, lambda films: np.ones(len(films))),
}


def paired(one: Outcomes, other: Outcomes, count: int, seed: int = 0) -> dict[str, Difference]:
    """Differences of ``dice``, ``dice_positive`` and ``iou`` on the same films, in the same order.

    Patients are drawn with replacement, with all their films.
    """
    assert one.ids == other.ids
    gaps = {name: of(one) - of(other) for name, (of, _) in COMPARED.items()}
    counted = {name: which(one) for name, (_, which) in COMPARED.items()}
    spread: dict[str, np.ndarray] = {}
    if several(one.patients):

        def drawn(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {name: mean(gaps[name], weights * counted[name]) for name in gaps}

        spread = resampled(one.patients, count, seed, drawn)
    nothing = np.full(0, np.nan)
    return {
        name: difference(
            float(mean(gap, counted[name][None])[0]),
            spread.get(name, nothing) if counted[name].any() else nothing,
        )
        for name, gap in gaps.items()
    }


def difference(centre: float, spread: np.ndarray) -> Difference:
    """A difference with the interval and the p of its resamples (b,), NaN without any.

    The interval is that of the middle 95 %; p is twice the share on the other side of zero, so that
    it is below .05 where the interval leaves zero out, but never below 2 / (count + 1) (Efron and
    Tibshirani 1993, chapters 13 and 16).
    """
    known = spread[np.isfinite(spread)]
    if not len(known):
        return Difference(centre, float("nan"), float("nan"), float("nan"))
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return Difference(centre, *middle(known), min(1.0, 2 * (1 + beyond) / (len(known) + 1)))


def aligned(films: Outcomes, like: Outcomes) -> Outcomes:
    """The same films in the order of ``like``. Raises PneumoError if films or truth differ."""
    place = {image: row for row, image in enumerate(films.ids)}
    if set(place) != set(like.ids):
        raise PneumoError(
            "the two runs were not judged on the same films, so they cannot be compared film "
            "by film"
        )
    ordered = films[np.array([place[image] for image in like.ids], np.int64)]
    if not np.array_equal(ordered.truth, like.truth):
        raise PneumoError(
            "the two runs were judged by different truths of the same films, so they cannot be "
            "compared"
        )
    return ordered


def groups(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """Rows of each group that has films, by what is known of them.

    By size of the mask (the challenge's quartiles), view, sex, site, chest tube and age.
    """
    found = {}
    if outcomes.known is Truth.masks:
        found = {
            f"size {name}": np.flatnonzero((outcomes.truth >= low) & (outcomes.truth <= high))
            for name, low, high in SIZES
        }
    tubes = [None if tube is None else ("no", "yes")[tube] for tube in outcomes.tubes]
    told = (
        ("view", outcomes.views),
        ("sex", outcomes.sexes),
        ("site", outcomes.sites),
        ("tube", tubes),
    )
    for title, values in told:
        for value in sorted({value for value in values if value}):
            rows = [row for row, one in enumerate(values) if one == value]
            found[f"{title} {value}"] = np.array(rows, np.int64)
    ages = np.array([np.nan if age is None else age for age in outcomes.ages], np.float64)
    for name, low, high in AGES:
        found[f"age {name}"] = np.flatnonzero((ages >= low) & (ages < high))
    return {name: rows for name, rows in found.items() if len(rows)}
