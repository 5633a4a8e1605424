"""A film's score → a calibrated probability, by a logistic curve fitted on other films.

The score ranks films. It is read off the probability map, where nearly every film reaches the
highest level somewhere, so it is no probability by itself. Platt (1999, "Probabilistic outputs for
support vector machines") fits a logistic curve to it: a temperature and a shift on its logit.
"""

from dataclasses import dataclass

import numpy as np

LEAST = 1 / 510  # half a level: what a score of 0, or of 1, may stand for


@dataclass(frozen=True)
class Platt:
    """``1 / (1 + exp(-(slope * logit(score) + intercept)))``; by default the score itself."""

    slope: float = 1.0  # 1 / temperature
    intercept: float = 0.0

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """Probabilities of scores, 0 to 1, of any shape."""
        if self == Platt():
            return score
        return sigmoid(self.slope * logit(score) + self.intercept)


def fit(score: np.ndarray, positive: np.ndarray) -> Platt | None:
    """The curve of highest likelihood for scores float (n,) and labels bool (n,).

    With Platt's targets: a positive counts as (p + 1) / (p + 2) of one, where p is their number, so
    that there is a curve also where scores tell both classes apart. A slope below 0 would turn the
    ranking round; it is set to 0. None without both classes: their shares are then unknown.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    target = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    curve = _newton(np.column_stack([logit(score), np.ones(len(score))]), target)
    if curve[0] < 0:
        share = target.mean()
        return Platt(0.0, float(np.log(share / (1 - share))))
    return Platt(float(curve[0]), float(curve[1]))


def _newton(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression, by Newton's method with halved steps."""

    def loss(weights: np.ndarray) -> float:
        return float((np.logaddexp(0, x @ weights) - target * (x @ weights)).sum())

    weights = np.zeros(x.shape[1])
    for _ in range(100):
        probability = sigmoid(x @ weights)
        gradient = x.T @ (probability - target)
        # scores that are all equal leave one direction undetermined
        curvature = (x.T * (probability * (1 - probability))) @ x + 1e-9 * np.eye(x.shape[1])
        step = np.linalg.solve(curvature, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step /= 2
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def logit(score: np.ndarray) -> np.ndarray:
    """The log odds of scores, 0 to 1, of any shape; those of 0 and 1 as of half a level inside."""
    inside = np.clip(score, LEAST, 1 - LEAST)
    return np.log(inside / (1 - inside))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The probabilities of log odds of any shape."""
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))
