"""Stacking: whether a film shows pneumothorax, by a classifier of what several networks say of it.

Wolpert (1992, "Stacked generalization"). The classifier is a logistic regression of each network's
presence score and a few statistics of its map. It is kept as numbers, never pickled.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pneumo.errors import PneumoError
from pneumo.inference.probability import logit, sigmoid
from pneumo.masks.histograms import Histograms

AREAS_ABOVE = (0.1, 0.5, 0.9)  # probabilities above which a map's pixels are counted


def features(said: Histograms, presence: np.ndarray | None) -> tuple[list[str], np.ndarray]:
    """What one network says of n films, in numbers: names, float64 (n, names).

    Args:
        said: pixels by level of its maps at 1024²; what is inside the true masks does not count.
        presence: its presence scores, (n,), if it tells them.
    """
    names = ["highest probability", *(f"log pixels above {t:g}" for t in AREAS_ABOVE)]
    columns = [logit(said.score(1)), *np.log1p(said.predicted(AREAS_ABOVE)).T]
    if presence is not None:
        names.append("presence")
        columns.append(logit(presence.astype(np.float64)))
    return names, np.column_stack(columns)


@dataclass(frozen=True)
class Stack:
    """A fitted classifier: 1 / (1 + exp(-((x - mean) / std · weights + intercept)))."""

    names: list[str]
    mean: list[float]
    std: list[float]
    weights: list[float]
    intercept: float
    films: int  # it was fitted on
    positives: int  # among them

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Features float (n, names) → probabilities of pneumothorax, float32 (n,)."""
        scaled = (x - np.array(self.mean)) / np.array(self.std)
        logits = scaled @ np.array(self.weights) + self.intercept
        return sigmoid(logits).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a record or a bundle's card."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Stack":
        """Of plain values. Raises ValueError if they do not fit together."""
        made = cls(**values)
        lengths = {len(made.names), len(made.mean), len(made.std), len(made.weights)}
        if len(lengths) > 1 or min(made.std, default=0) <= 0:
            raise ValueError("a stack of numbers that do not fit together")
        return made


def fit(names: Sequence[str], x: np.ndarray, positive: np.ndarray) -> Stack:
    """The logistic regression of features float (n, names) on labels bool (n,).

    Features are standardised; the penalty is scikit-learn's default (L2, C = 1). Raises PneumoError
    without films of both kinds.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second

    if positive.all() or not positive.any():
        raise PneumoError(
            f"a stack needs films with and without pneumothorax; of {len(positive):,} films "
            f"{int(positive.sum()):,} show it"
        )
    mean, std = x.mean(0), x.std(0)
    std[std == 0] = 1
    fitted = LogisticRegression(max_iter=1000).fit((x - mean) / std, positive)
    return Stack(
        list(names),
        mean.tolist(),
        std.tolist(),
        fitted.coef_[0].tolist(),
        float(fitted.intercept_[0]),
        len(positive),
        int(positive.sum()),
    )


def out_of_group(
    names: Sequence[str], x: np.ndarray, positive: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, list[Stack]]:
    """Each film's probability by the classifier of all other groups, and these classifiers.

    No film is ever judged by a classifier that was fitted on it.
    """
    probability, fitted = np.zeros(len(x), np.float32), []
    for number in np.unique(group):
        own = group == number
        fitted.append(fit(names, x[~own], positive[~own]))
        probability[own] = fitted[-1](x[own])
    return probability, fitted
