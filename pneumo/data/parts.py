"""Image ids → training and validation parts.

A hold-out or k folds, stratified by label, grouped by patient; drawn at random from ``split.seed``,
and the same on every machine.
"""

import random
from bisect import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from pneumo.data.settings import Grouping, Split, SplitKind
from pneumo.errors import PneumoError
from pneumo.tables import counted

DEALS = 20  # random deals that are tried before the best balanced of them has to do


@dataclass
class Parts:
    """Sorted row numbers of the two parts, and what a reader of the scores must know of them."""

    training: np.ndarray  # int64
    validation: np.ndarray  # int64
    grouped: bool  # by patient
    # share of validation positives whose patient is in training too; None if patients are unknown
    shared: float | None
    unknown: int = 0  # films whose patient is not known, each its own group

    def describe(self, positive: Sequence[bool]) -> str:
        """One line: sizes, positives, and how far patients are shared."""
        counts = []
        for part in (self.training, self.validation):
            positives = sum(bool(positive[i]) for i in part)
            counts.append(f"{counted(len(part), 'film')} ({positives:,} positive)")
        if self.shared is None:
            leak = "patients unknown (data.patients=), so how many are in both parts is unknown"
        else:
            how = "split by patient" if self.grouped else "split by image"
            leak = f"{how}: {self.shared:.1%} of validation positives have a patient in training"
            if self.unknown:
                leak += f", not counting {self.unknown:,} films of unknown patients"
        return f"Training on {counts[0]}, validating on {counts[1]}; {leak}"


def divide(
    positive: Sequence[bool], patients: Sequence[str | None], split: Split, fold: int
) -> Parts:
    """Divide films into training and validation, at random.

    Each group has the same chance of any place. Each part is less than one film away from its
    share of positive films, of negative films and of all films. Where groups are too large for
    that, the division is the best balanced of ``DEALS`` random ones.

    Args:
        positive: label of each film; both parts get their share of positives.
        patients: patient of each film, None where unknown; a film of an unknown patient is its own
            group.
        split: hold-out or k-fold; ``group`` auto and patient keep a patient's films together, image
            does not. Other values of ``seed`` divide otherwise; every fold of one seed belongs to
            the same division.
        fold: which part of a k-fold is validation; for a hold-out, which of many random divisions.

    Raises:
        PneumoError: grouping by patient without patients, or too few films for the parts asked for.
    """
    labels = np.asarray(positive, bool)
    grouped = _is_grouped(patients, split)
    # films of the same name form a group; a film without a patient is a group of its own
    names = [f"#{i}" for i in range(len(labels))]
    if grouped:
        names = [patient or name for patient, name in zip(patients, names, strict=True)]
    totals = np.array([(~labels).sum(), labels.sum()])
    if split.kind is SplitKind.kfold:
        places = np.tile(totals / split.folds, (split.folds, 1))
        held = _deal(labels, names, places, f"{split.seed}") == fold
    else:
        # a film of each label at least, on either side, or no score of that label could be had
        validation = np.clip(split.validation * totals, 1, np.maximum(totals - 1, 0))
        places = np.stack([totals - validation, validation])
        held = _deal(labels, names, places, f"{split.seed} {fold}") == 1
    return _parts(held, labels, patients, grouped)


def restore(
    recorded: Mapping[str, Collection[str]],
    ids: Sequence[str],
    positive: Sequence[bool],
    patients: Sequence[str | None],
    split: Split,
) -> Parts | None:
    """The division that a run recorded, whatever code dealt it; None if it is of other films.

    Args:
        recorded: ids of the films of ``training`` and of ``validation``.
        ids: image id of each film there is now.
        positive: label of each film.
        patients: patient of each film, None where unknown.
        split: the settings that the division was made with.
    """
    training, validation = set(recorded["training"]), set(recorded["validation"])
    if training | validation != set(ids):
        return None
    held = np.array([image in validation for image in ids])
    return _parts(held, np.asarray(positive, bool), patients, _is_grouped(patients, split))


def _is_grouped(patients: Sequence[str | None], split: Split) -> bool:
    """Whether a patient's films stay together. Raises PneumoError where that cannot be."""
    known = any(patients)
    if split.group is Grouping.patient and not known:
        raise PneumoError(
            "split.group=patient, but no patient is known: "
            "give data.patients=<file.csv>, or split.group=auto"
        )
    return known and split.group is not Grouping.image


def _parts(
    held: np.ndarray, labels: np.ndarray, patients: Sequence[str | None], grouped: bool
) -> Parts:
    """Both parts, and how far they share patients. Raises PneumoError if one is empty."""
    training, validation = np.flatnonzero(~held), np.flatnonzero(held)
    for name, part in (("training", training), ("validation", validation)):
        if not len(part):
            raise PneumoError(
                f"the {name} part is empty: {len(labels)} films are too few for this split "
                "(see split.* and fold)"
            )
    shared = None
    unknown = 0
    if any(patients):
        seen = {patients[i] for i in training.tolist() if patients[i]}
        held_positive = [patients[i] in seen for i in validation.tolist() if labels[i]]
        shared = float(np.mean(held_positive)) if held_positive else 0.0
        unknown = sum(not patient for patient in patients)
    return Parts(training, validation, grouped, shared, unknown)


def _deal(labels: np.ndarray, names: Sequence[str], places: np.ndarray, seed: str) -> np.ndarray:
    """Deal whole groups to parts at random, as often as it takes; returns the part of each film.

    Args:
        labels: bool (films,).
        names: group of each film.
        places: how many negatives and how many positives each part should get, (parts, 2).
        seed: text that decides everything that is drawn.
    """
    _, group = np.unique(names, return_inverse=True)
    counts = np.stack([np.bincount(group, ~labels), np.bincount(group, labels)], 1)
    # Of all generators, Python's own promises that its numbers will stay what they are:
    # https://docs.python.org/3/library/random.html#notes-on-reproducibility
    draw = random.Random(seed).random
    best, least = np.zeros(len(counts), np.int64), np.inf
    for _ in range(DEALS):
        part = _deal_once(counts, places, draw)
        off = _imbalance(counts, part, places)
        if off < least:
            best, least = part, off
        if off == 0:
            break
    return best[group]


def _deal_once(counts: np.ndarray, places: np.ndarray, draw: Callable[[], float]) -> np.ndarray:
    """The part of each group: one after another, groups draw one of the places still free.

    The largest groups draw first, and the small ones fill up what these leave. Films that are all
    groups of their own get exactly the places there are.
    """
    # few positives shall be dealt as evenly as many negatives, so each weighs by its label's total
    weights = (counts / np.maximum(counts.sum(0), 1)).tolist()
    groups, free = counts.tolist(), places.tolist()
    part = np.empty(len(groups), np.int64)
    for g in sorted(range(len(groups)), key=lambda g: (-sum(groups[g]), draw())):
        negative, positive = weights[g]
        chances = [negative * max(n, 0) + positive * max(p, 0) for n, p in free]
        bounds = list(accumulate(chances))
        chosen = bisect(bounds, draw() * bounds[-1], hi=len(bounds) - 1)
        part[g] = chosen
        free[chosen][0] -= groups[g][0]
        free[chosen][1] -= groups[g][1]
    return part


def _imbalance(counts: np.ndarray, part: np.ndarray, places: np.ndarray) -> float:
    """How far the parts are from their places, in each label and in all films.

    0 if all are less than one film off; infinite if a part is empty.
    """
    got = np.stack([counts[part == number].sum(0) for number in range(len(places))])
    if not got.sum(1).all():
        return np.inf
    off = got - places
    off = np.c_[off, off.sum(1)]
    if np.abs(off).max() < 1 - 1e-9:  # less than one film, for all the rounding of sums
        return 0.0
    totals = np.maximum(counts.sum(0), 1)
    return float(np.square(off / [*totals, totals.sum()]).sum())
