"""Image ids → training and validation parts.

A hold-out or k folds, stratified by label, grouped by patient, and the same every time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.data.settings import Split, SplitKind
from pneumo.errors import PneumoError
from pneumo.tables import counted


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
    positive: Sequence[bool], patients: Sequence[str | None], split: Split, fold: int, seed: int
) -> Parts:
    """Divide films into training and validation.

    Args:
        positive: label of each film; both parts get their share of positives.
        patients: patient of each film, None where unknown; a film of an unknown patient is its own
            group.
        split: hold-out or k-fold; ``group`` auto and patient keep a patient's films together, image
            does not.
        fold: which part of a k-fold is validation; for a hold-out, which of many random divisions.
        seed: other seeds shuffle otherwise; every fold of one seed belongs to the same division.

    Raises:
        PneumoError: grouping by patient without patients, or too few films for the parts asked for.
    """
    labels = np.asarray(positive, bool)
    known = any(patients)
    if split.group.value == "patient" and not known:
        raise PneumoError(
            "split.group=patient, but no patient is known: "
            "give data.patients=<file.csv>, or split.group=auto"
        )
    grouped = known and split.group.value != "image"
    # films of the same name form a group; a film without a patient is a group of its own
    names = [f"#{i}" for i in range(len(labels))]
    if grouped:
        names = [patient or name for patient, name in zip(patients, names, strict=True)]
    if split.kind is SplitKind.kfold:
        shares = np.full(split.folds, 1 / split.folds)
        held = _deal(labels, names, shares, [seed]) == fold
    else:
        shares = np.array([1 - split.validation, split.validation])
        held = _deal(labels, names, shares, [seed, fold]) == 1
    training, validation = np.flatnonzero(~held), np.flatnonzero(held)
    for name, part in (("training", training), ("validation", validation)):
        if not len(part):
            raise PneumoError(
                f"the {name} part is empty: {len(labels)} films are too few for this split "
                "(see split.* and fold)"
            )
    shared = None
    unknown = 0
    if known:
        seen = {patients[i] for i in training.tolist() if patients[i]}
        held_positive = [patients[i] in seen for i in validation.tolist() if labels[i]]
        shared = float(np.mean(held_positive)) if held_positive else 0.0
        unknown = sum(not patient for patient in patients)
    return Parts(training, validation, grouped, shared, unknown)


def _deal(
    labels: np.ndarray, names: Sequence[str | None], shares: np.ndarray, seed: list[int]
) -> np.ndarray:
    """Deal whole groups to parts; returns the part of each film.

    The largest groups come first. Each goes to the part that is furthest below its share of
    positives and negatives.
    """
    groups: dict[str | None, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        groups[name].append(i)
    members = list(groups.values())
    np.random.default_rng(seed).shuffle(members)
    counts = np.array([[(~labels[m]).sum(), labels[m].sum()] for m in members])
    totals = np.maximum(counts.sum(0), 1)
    part = np.empty(len(labels), np.int64)
    have = np.zeros((len(shares), 2))
    # most positives first, then most films; groups alike in both stay in their shuffled order
    order = np.lexsort((-counts.sum(1), -counts[:, 1]))
    for g in order:
        # both labels weigh by their own total, so that few positives are spread as evenly as many
        # negatives
        missing = (shares[:, None] - have / totals) @ (counts[g] / totals) / shares
        choice = int(np.argmax(missing))
        part[members[g]] = choice
        have[choice] += counts[g]
    return part
