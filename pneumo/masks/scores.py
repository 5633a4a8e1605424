"""The table of scores: what each is called, how it is shown, and the function that computes it.

Training, sweeps, tables, pages and Weights & Biases all read ``SCORES``: a new score is one entry
and one function of ``Counted``. Every mean takes weights, so that a bootstrap is one matrix
product: row b of ``weights`` says how often each film stands in resample b.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.masks.overlap import dice, iou
from pneumo.masks.truth import Truth, least

IOU_STEPS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass
class Shapes:
    """Lesions and boundaries of n films, (n,) each: see ``masks.lesions`` and ``masks.boundaries``.

    Lesions are counted, int64. Boundary scores are float, NaN where they do not exist: NSD of films
    with both masks empty, HD95 of films with one or both empty, millimetres of films whose spacing
    is not known. ``pointed`` is float, NaN of negative films.
    """

    hits: np.ndarray  # lesions that were found
    false: np.ndarray  # candidates that are no lesion
    missed: np.ndarray  # lesions that were not found
    nsd_px: np.ndarray  # 0 where one mask is empty
    nsd_mm: np.ndarray
    hd95_px: np.ndarray  # pixels at 1024²
    hd95_mm: np.ndarray
    pointed: np.ndarray  # share of the map's most probable pixels that lie in the true mask
    boxes: np.ndarray  # true boxes, int64; 0 of other kinds of truth
    boxes_hit: np.ndarray  # of them, those that a component's box overlaps enough
    boxes_iou: np.ndarray  # sum over them of the best IoU with a component's box, float

    def __getitem__(self, rows: np.ndarray) -> "Shapes":
        return Shapes(*(values[rows] for values in vars(self).values()))

    @staticmethod
    def join(sets: Sequence["Shapes"]) -> "Shapes":
        """The films of several sets, one set after the other."""
        columns = zip(*(vars(one).values() for one in sets), strict=True)
        return Shapes(*(np.concatenate(column) for column in columns))


class Counted:
    """What scores are computed from: pixels of n films at one size, int64 (n,) each.

    ``score`` is the image-level score of each film, float (n,), where it is known, and ``shapes``
    what is known of lesions and boundaries. ``truths`` are the kinds of truth; none: masks.
    """

    predicted: np.ndarray
    truth: np.ndarray
    overlap: np.ndarray
    score: np.ndarray | None
    shapes: Shapes | None
    truths: Sequence[Truth] = ()

    @property
    def known(self) -> Truth:
        """What is known of all of these films."""
        return least(self.truths)

    @property
    def positive(self) -> np.ndarray:
        """Which films show pneumothorax, bool (n,)."""
        return self.truth > 0

    @property
    def marked(self) -> np.ndarray:
        """Which films have a predicted mask, bool (n,)."""
        return self.predicted > 0

    @property
    def dice(self) -> np.ndarray:
        """Dice of each film by the challenge's rule, float (n,)."""
        return dice(self.overlap, self.predicted, self.truth)

    @property
    def iou(self) -> np.ndarray:
        """IoU of each film, 1 if both masks are empty, float (n,)."""
        return iou(self.overlap, self.predicted, self.truth)


@dataclass
class Films(Counted):
    """Pixel counts alone, as validation while training has them."""

    predicted: np.ndarray
    truth: np.ndarray
    overlap: np.ndarray
    score: np.ndarray | None = None
    shapes: Shapes | None = None


Weights = np.ndarray  # float (b, n)
Compute = Callable[[Counted, Weights], np.ndarray]  # → (b,)
Counts = Callable[[Shapes], np.ndarray]  # → (n,)


@dataclass(frozen=True)
class Score:
    """One score: its key in files, its label for people, and how it is computed."""

    key: str
    label: str
    compute: Compute
    higher_is_better: bool = True
    main: bool = True  # shown in every table, not only in full listings
    needs: str = ""  # what of ``Counted`` must be known: score or shapes
    varies: bool = True  # depends on the prediction, so that an interval tells something
    of: tuple[Truth, ...] = (Truth.masks,)  # kinds of truth that give it


def mean(values: np.ndarray, weights: Weights) -> np.ndarray:
    """Weighted means of values (n,) by weights (b, n) → (b,); NaN where all weights are 0."""
    total = weights.sum(1)
    some = np.where(total > 0, total, 1)
    return np.where(total > 0, weights @ values.astype(np.float64) / some, np.nan)


def iou_stepped(values: np.ndarray) -> np.ndarray:
    """IoU in steps of a tenth from .5 on, 0 below: floor(20 (IoU - .45)) / 10, at most 1.

    For a single object the mean over the IoU thresholds .5, .55, …, .95 of "IoU reaches the
    threshold"; a stand-in for it in many kernels of 2018 and 2019 (which give 1.1 to a perfect
    mask).
    """
    return np.minimum(np.floor(np.maximum(0, (values - 0.45) * 20) + 1e-9) / 10, 1)


def iou_mean_precision(values: np.ndarray) -> np.ndarray:
    """Mean over .5, .55, …, .95 of "IoU exceeds the threshold", the mask taken as one object."""
    return np.mean([values > step for step in IOU_STEPS], axis=0)


def ranked(
    score: np.ndarray, positive: np.ndarray, weights: Weights
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, highest first, and the weights of positives and negatives at or above each.

    Shapes (m,), (b, m), (b, m).
    """
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    above = [
        np.cumsum((weights * part)[:, order], axis=1)[:, last] for part in (positive, ~positive)
    ]
    return score[order][last], above[0], above[1]


def roc_auc(score: np.ndarray, positive: np.ndarray, weights: Weights) -> np.ndarray:
    """Area under the ROC curve, ties counted half; NaN without both classes. (b,)."""
    _, found, wrong = ranked(score, positive, weights)
    zero = np.zeros((len(weights), 1))
    y, x = np.hstack([zero, found]), np.hstack([zero, wrong])
    area = (np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1]) / 2).sum(1)
    total = found[:, -1] * wrong[:, -1]
    return np.where(total > 0, area / np.where(total > 0, total, 1), np.nan)


def average_precision(score: np.ndarray, positive: np.ndarray, weights: Weights) -> np.ndarray:
    """Area under the precision-recall curve, as steps; NaN without positives. (b,)."""
    _, found, wrong = ranked(score, positive, weights)
    precision = found / np.maximum(found + wrong, 1e-300)
    gained = np.diff(found, axis=1, prepend=0)
    total = found[:, -1]
    return np.where(total > 0, (precision * gained).sum(1) / np.where(total > 0, total, 1), np.nan)


def _roc_auc(films: Counted, weights: Weights) -> np.ndarray:
    assert films.score is not None
    return roc_auc(films.score, films.positive, weights)


def _pr_auc(films: Counted, weights: Weights) -> np.ndarray:
    assert films.score is not None
    return average_precision(films.score, films.positive, weights)


def _shapes(films: Counted) -> Shapes:
    assert films.shapes is not None
    return films.shapes


def _lesions(films: Counted, weights: Weights, right: Counts, wrong: Counts) -> np.ndarray:
    """The share right / (right + wrong) over the lesions of all films; NaN without any. (b,)."""
    shapes = _shapes(films)
    found = weights @ right(shapes).astype(np.float64)
    total = found + weights @ wrong(shapes).astype(np.float64)
    return np.where(total > 0, found / np.where(total > 0, total, 1), np.nan)


def _boxes(films: Counted, weights: Weights, values: Counts) -> np.ndarray:
    """The sum of values of boxes over the number of boxes, of all films; NaN without any. (b,)."""
    shapes = _shapes(films)
    total = weights @ shapes.boxes.astype(np.float64)
    found = weights @ values(shapes).astype(np.float64)
    return np.where(total > 0, found / np.where(total > 0, total, 1), np.nan)


def _mean_known(films: Counted, key: str, weights: Weights) -> np.ndarray:
    """The mean of a column of shapes over the films of which it exists. (b,)."""
    values = getattr(_shapes(films), key)
    return mean(np.nan_to_num(values), weights * np.isfinite(values))


ANY = tuple(Truth)
SCORES = (
    # Dice by the challenge's rule: 1 where both masks are empty
    Score("dice", "Dice", lambda f, w: mean(f.dice, w)),
    Score("dice_positive", "on positives", lambda f, w: mean(f.dice, w * f.positive)),
    Score(
        "dice_found",
        "where found",
        lambda f, w: mean(f.dice, w * (f.positive & f.marked)),
        main=False,
    ),
    Score("iou", "IoU", lambda f, w: mean(f.iou, w)),
    # two variants of the challenge's public kernels under which IoU was published at the time
    Score("iou_stepped", "IoU, stepped", lambda f, w: mean(iou_stepped(f.iou), w), main=False),
    Score(
        "iou_mean_precision",
        "IoU, mean precision",
        lambda f, w: mean(iou_mean_precision(f.iou), w),
        main=False,
    ),
    # of finding any pneumothorax in a film
    Score("sensitivity", "sensitivity", lambda f, w: mean(f.marked, w * f.positive), of=ANY),
    Score("specificity", "specificity", lambda f, w: mean(~f.marked, w * ~f.positive), of=ANY),
    Score("roc_auc", "ROC AUC", _roc_auc, needs="score", of=ANY),
    Score("pr_auc", "PR AUC", _pr_auc, needs="score", of=ANY),
    # of lesions: all films' together, so that a film without any counts by its false ones alone
    Score(
        "lesion_f1",
        "lesion F1",
        lambda f, w: _lesions(f, w, lambda s: 2 * s.hits, lambda s: s.false + s.missed),
        main=False,
        needs="shapes",
    ),
    Score(
        "lesion_sensitivity",
        "lesion sensitivity",
        lambda f, w: _lesions(f, w, lambda s: s.hits, lambda s: s.missed),
        main=False,
        needs="shapes",
    ),
    Score(
        "lesion_precision",
        "lesion precision",
        lambda f, w: _lesions(f, w, lambda s: s.hits, lambda s: s.false),
        main=False,
        needs="shapes",
    ),
    Score(
        "lesion_false",
        "false lesions a film",
        lambda f, w: mean(_shapes(f).false, w),
        higher_is_better=False,
        main=False,
        needs="shapes",
    ),
    # of boundaries: NSD on positive films, 0 where nothing is marked; HD95 where both masks are
    # non-empty
    *(
        Score(
            f"nsd_{unit}",
            f"NSD on positives, {unit}",
            lambda f, w, key=f"nsd_{unit}": _mean_known(f, key, w * f.positive),  # type: ignore[misc]
            main=False,
            needs="shapes",
        )
        for unit in ("px", "mm")
    ),
    *(
        Score(
            f"hd95_{unit}",
            f"HD95 where found, {unit}",
            lambda f, w, key=f"hd95_{unit}": _mean_known(f, key, w),  # type: ignore[misc]
            higher_is_better=False,
            main=False,
            needs="shapes",
        )
        for unit in ("px", "mm")
    ),
    # of maps, not of masks: whether the most probable pixel of a positive film lies in its mask
    Score(
        "pointing",
        "pointing game",
        lambda f, w: _mean_known(f, "pointed", w),
        main=False,
        needs="shapes",
        of=(Truth.masks, Truth.boxes),
    ),
    # of boxes: all films' together
    Score(
        "box_hit",
        "boxes hit",
        lambda f, w: _boxes(f, w, lambda s: s.boxes_hit),
        main=False,
        needs="shapes",
        of=(Truth.boxes,),
    ),
    Score(
        "box_iou",
        "box IoU",
        lambda f, w: _boxes(f, w, lambda s: s.boxes_iou),
        main=False,
        needs="shapes",
        of=(Truth.boxes,),
    ),
    # what empty masks alone would score
    Score("all_empty_dice", "all-empty", lambda f, w: mean(~f.positive, w), varies=False),
)
LABELS = {score.key: score.label for score in SCORES}
MAIN = tuple(score.key for score in SCORES if score.main)
SHAPES = tuple(score.key for score in SCORES if score.needs == "shapes")
TRAINING = tuple(score.key for score in SCORES if score.main and not score.needs)


def summary(films: Counted, weights: Weights | None = None) -> dict[str, np.ndarray]:
    """All scores of a set of films; with ``weights`` (b, n) one value a row, else of shape (1,).

    A mean over no films is NaN. Scores that need what is not known, or what the films' truth does
    not give, are left out.
    """
    w = np.ones((1, len(films.truth))) if weights is None else weights
    known = films.known
    given = [one for one in SCORES if not one.needs or getattr(films, one.needs) is not None]
    return {one.key: one.compute(films, w) for one in given if known in one.of}


def number(value: float | None) -> str:
    """A score for people; a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.4f}"
