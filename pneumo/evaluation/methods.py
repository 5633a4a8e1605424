"""Two methods compared over several fits of each, not two networks.

A network is one draw of its method: another seed, or another part of the films, gives another. So
fits are drawn too, not only patients. Fits that were judged on the same films form a cell (seeds on
one validation part); several cells are the folds of a cross-validation, or several divisions.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pneumo.errors import PneumoError
from pneumo.evaluation import scores
from pneumo.evaluation.scores import Difference, Outcomes

# The simulation is that of tests/evaluation/test_methods.py, with 300 draws: intervals of two fits
# each held the truth in 77 % of draws, of 3 in 89 %, of 5 and of 10 in 92 %, of five folds in 88 %;
# those between the first network of each in 13 %.
HIERARCHICAL = (
    "between methods: hierarchical bootstrap of divisions, fits and patients; 95 % interval "
    "(percentiles), and two-sided p from the same resamples; too narrow with fewer than five fits"
)


def compare(
    ours: Sequence[Outcomes], theirs: Sequence[Outcomes], count: int, seed: int = 0
) -> dict[str, Difference]:
    """Mean differences of two methods, ours minus theirs, as ``scores.paired`` has them.

    Raises PneumoError unless both have fits on the same films, and more than one fit each.
    """
    drawn = values([ours, theirs], count, seed)
    gaps = {name: first - second for name, (first, second) in drawn.items()}
    return {name: scores.difference(float(gap[0]), gap[1:]) for name, gap in gaps.items()}


def values(
    methods: Sequence[Sequence[Outcomes]], count: int, seed: int = 0, paired: bool = False
) -> dict[str, np.ndarray]:
    """The scores that are compared of each method, (methods, 1 + count): as it is, and resampled.

    A film's score is the mean over the fits of its cell. Every resample draws patients, the same
    for all methods and cells; cells, if there are several; and the fits of each method in each
    cell. Because a bootstrap of n shows only (n - 1) / n of their variance, the deviations of drawn
    cells and fits are stretched by the root of n / (n - 1). Where each cell has a single fit of a
    method, its noise is seen between cells alone.

    Args:
        methods: the fits of each.
        count: of resamples.
        seed: of resampling.
        paired: fits come in the same order of seeds, and what is drawn are seeds, the same of all
            methods; so what one training gives to two methods (with and without averaging, with
            and without TTA) is no difference.

    Raises PneumoError unless all have fits on the same films, and more than one fit each.
    """
    cells = _cells(methods)
    rng = np.random.default_rng(seed)
    names = sorted({name for cell in cells for name in _names(cell[0][0])})
    number = {name: place for place, name in enumerate(names)}
    patients = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)
    drawn = _stretched(rng, len(cells), count) * len(cells)
    totals = {name: np.zeros((len(methods) + 1, count + 1)) for name in scores.COMPARED}
    for cell, times in zip(cells, drawn.T, strict=True):
        place = [number[name] for name in _names(cell[0][0])]
        films = np.vstack([np.ones(len(place)), patients[:, place] * times[:, None]])
        fits: list[np.ndarray] = []
        for side in cell:
            same = paired and bool(fits)
            if same and len(side) != fits[0].shape[1]:
                raise PneumoError("methods have different numbers of fits on the same films")
            drawn_fits = [np.full(len(side), 1 / len(side)), _stretched(rng, len(side), count)]
            fits.append(fits[0] if same else np.vstack(drawn_fits))
        for name, (of, counted) in scores.COMPARED.items():
            weights = films * counted(cell[0][0])
            means = [
                ((weights @ _values(side, of).T) * fit).sum(1)
                for side, fit in zip(cell, fits, strict=True)
            ]
            totals[name] += np.stack([*means, weights.sum(1)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            name: np.where(total[-1] > 0, total[:-1] / total[-1], np.nan)
            for name, total in totals.items()
        }


def _cells(methods: Sequence[Sequence[Outcomes]]) -> list[list[list[Outcomes]]]:
    """The fits of all methods by the films they were judged on, all in the same order of films."""
    if min(map(len, methods)) < 2:
        raise PneumoError("methods are compared over several fits of each; one of them has but one")
    sides: list[dict[frozenset[str], list[Outcomes]]] = [{} for _ in methods]
    for side, fits in zip(sides, methods, strict=True):
        for fit in fits:
            side.setdefault(frozenset(fit.ids), []).append(fit)
    if any(set(side) != set(sides[0]) for side in sides):
        raise PneumoError(
            "the fits of the methods were not judged on the same films (the same folds or "
            "divisions of each), so they cannot be compared"
        )
    return [
        [[scores.aligned(fit, fits[0]) for fit in side[films]] for side in sides]
        for films, fits in sides[0].items()
    ]


def _names(films: Outcomes) -> list[str]:
    """The patient of each film; a film of unknown patient is its own in every fit."""
    return [name or f"#{image}" for name, image in zip(films.patients, films.ids, strict=True)]


def _values(fits: Sequence[Outcomes], of: Callable[[Outcomes], np.ndarray]) -> np.ndarray:
    """A score of each film by each fit, (fits, n)."""
    return np.stack([of(fit) for fit in fits])


def _stretched(rng: np.random.Generator, n: int, count: int) -> np.ndarray:
    """Weights (count, n) of n things drawn with replacement, of sum 1."""
    if n == 1:
        return np.ones((count, 1))
    weights = rng.multinomial(n, np.full(n, 1 / n), size=count) / n
    return 1 / n + (weights - 1 / n) * np.sqrt(n / (n - 1))
