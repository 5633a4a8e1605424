"""Second readers of the challenge's films, judged by the same rules as a run.

Only films that both the challenge and the reader have read are compared, with intervals by patient.
Neither is the truth: the challenge's masks merely stand where they stand for a run. What can be
scored follows from what a reader says: masks give everything, labels sensitivity and specificity,
boxes whether they meet the mask.
"""

import dataclasses
import glob
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.data import csv_files
from pneumo.data.sources import readers, siim
from pneumo.data.sources.readers import SIDE, Box, Reader
from pneumo.errors import PneumoError
from pneumo.evaluation.scores import middle, resampled, several
from pneumo.evaluation.settings import Readings, SecondReaders
from pneumo.masks import rle
from pneumo.masks.scores import LABELS, Films, Weights, mean, summary
from pneumo.masks.truth import Truth, box_mask
from pneumo.tables import Table, counted

SCORED = {
    Truth.masks: (
        *("sensitivity", "specificity"),
        *("dice_positive", "dice_found", "dice", "dice_reweighted"),
    ),
    Truth.labels: ("sensitivity", "specificity"),
    Truth.boxes: ("box_met",),
}
EVERY = slice(None)  # all of the films
Scores = dict[str, np.ndarray]  # by key, (b,) each
# a function of bootstrap weights (b, n) → its scores in all resamples, see ``scores.resampled``
Bootstrap = Callable[[Callable[[Weights], Scores]], Scores]


@dataclass
class Value:
    """A score with its 95 % interval, NaN where there is none, and over how many films it goes."""

    key: str
    label: str
    value: float
    low: float
    high: float
    films: int


@dataclass
class Agreement:
    """A reader beside the challenge's table, on the films that both have read."""

    reader: str
    kind: Truth
    films: int
    patients: int
    positive: int  # films with a mask in the table
    marked: int  # films in which the reader sees pneumothorax
    both: int
    share: float  # of positive films, to which Dice is re-weighted
    values: list[Value]
    left_aside: dict[str, list[str]]

    def as_json(self) -> dict[str, Any]:
        """Plain values; null for a number that does not exist."""
        plain = dataclasses.asdict(self) | {"kind": self.kind.value}
        plain["values"] = [
            {key: None if value != value else value for key, value in vars(one).items()}
            for one in self.values
        ]
        plain["left_aside"] = {reason: len(cases) for reason, cases in self.left_aside.items()}
        return plain


def compare(settings: SecondReaders) -> list[Agreement]:
    """Judge every reader whose files are given. Raises PneumoError."""
    assert settings.annotations is not None
    assert settings.patients is not None
    table = siim.read_table(Path(settings.annotations), settings.on_error)
    nih_names = csv_files.read_names(Path(settings.patients))
    patients = csv_files.read_patients(Path(settings.patients))
    share = settings.share
    if share is None:
        share = sum(bool(table.masks(image)) for image in table.rows) / len(table.rows)
    count, seed = settings.resamples, settings.seed
    return [
        judge(one, table, patients, share=share, count=count, seed=seed)
        for one in read(settings, nih_names)
    ]


def read(given: Readings, nih_names: Mapping[str, str]) -> list[Reader]:
    """The readers whose files are given; ``nih_names`` by image id. Raises PneumoError."""
    sources = (
        (readers.chestx_det, given.chestx_det),
        (readers.google_labels, given.google),
        (readers.nih_boxes, given.nih_boxes),
    )
    return [
        source(_files(named), nih_names, given.on_error)
        for source, named in sources
        if named is not None
    ]


def judge(
    reader: Reader,
    table: siim.Table,
    patients: dict[str, str],
    *,
    share: float,
    count: int,
    seed: int = 0,
) -> Agreement:
    """A reader beside the table, on the films that both have.

    Args:
        reader: its readings by image id.
        table: what stands for the truth.
        patients: the patient of each image; an image that is not in it is its own.
        share: of positive films, to which the mean Dice is re-weighted.
        count: of resamples; 0 leaves intervals out.
        seed: of the resamples.
    """
    images = [image for image in reader.readings if image in table.rows]
    if not images:
        raise PneumoError(
            f"{reader.name}: none of its {len(reader.readings)} films is in {table.path} "
            f"(ids such as {next(iter(reader.readings))}); is this the right table?"
        )
    pixels = [_pixels(reader, table, image) for image in images]
    films = Films(*np.array(pixels, np.int64).T)
    names = [patients.get(image) for image in images]
    left_aside = dict(reader.left_aside)
    absent = [image for image in reader.readings if image not in table.rows]
    if absent:
        left_aside["films without a row in the table (not annotated, so not negative)"] = absent
    return Agreement(
        reader.name,
        reader.kind,
        len(images),
        len({name or f"#{place}" for place, name in enumerate(names)}),
        int(films.positive.sum()),
        int(films.marked.sum()),
        int((films.positive & films.marked).sum()),
        share,
        values_of(SCORED[reader.kind], films, bootstrap(names, count, seed), share),
        left_aside,
    )


def _pixels(reader: Reader, table: siim.Table, image: str) -> tuple[int, int, int]:
    """Pixels of the reading, of the truth and of both; a label, which has none, counts as one."""
    reading = reader.readings[image]
    annotations = table.masks(image)
    if reader.kind is Truth.labels:
        return int(reading.positive), int(bool(annotations)), 0
    try:
        truth = rle.union(annotations)
    except rle.RLEError as error:
        raise PneumoError(f"{table.path} ({image}): {error}; readers count 1024²") from None
    mask = rle.decode(reading.runs) if reader.kind is Truth.masks else drawn(reading.boxes)
    # several times as fast as a sum
    predicted, both = np.count_nonzero(mask), np.count_nonzero(mask & truth)
    return int(predicted), int(np.count_nonzero(truth)), int(both)


def drawn(boxes: Sequence[Box]) -> np.ndarray:
    """The union of boxes → uint8 mask of 0 and 1, 1024²: every pixel that a box touches."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for box in boxes:
        mask |= box_mask((box.x, box.y, box.width, box.height), (SIDE, SIDE))
    return mask


def bootstrap(patients: Sequence[str | None], count: int, seed: int) -> Bootstrap | None:
    """A bootstrap by patient; None if ``count`` is 0, or of fewer than two patients."""
    if not count or not several(patients):
        return None
    return lambda compute: resampled(patients, count, seed, compute)


def scored(films: Films, share: float, weights: Weights | None = None) -> Scores:
    """The scores of ``summary`` and two more, by rows of ``weights`` → (b,) each.

    ``dice_reweighted`` is the mean Dice if this share of the films were positive. By the
    challenge's rule the Dice of a negative film is 1 if nothing is marked in it, else 0, so its
    mean over negatives is the specificity. ``box_met`` is the share of positive films in which
    what is marked shares a pixel with the mask.
    """
    scores = summary(films, weights)
    scores["dice_reweighted"] = (
        share * scores["dice_positive"] + (1 - share) * scores["specificity"]
    )
    each = np.ones((1, len(films.truth))) if weights is None else weights
    scores["box_met"] = mean(films.overlap > 0, each * films.positive)
    return scores


def values_of(
    keys: Sequence[str],
    films: Films,
    drawn_anew: Bootstrap | None,
    share: float,
    which: np.ndarray | slice = EVERY,
) -> list[Value]:
    """Some scores of these films, or of ``which``, with intervals where all are drawn anew."""
    some = Films(films.predicted[which], films.truth[which], films.overlap[which])
    scores = scored(some, share)
    spread: Scores = {}
    if drawn_anew is not None:
        spread = drawn_anew(lambda weights: scored(some, share, weights[:, which]))
    every = len(some.truth)
    positive = int(some.positive.sum())
    rows = {
        "sensitivity": (LABELS["sensitivity"], positive),
        "specificity": (LABELS["specificity"], every - positive),
        "dice_positive": ("Dice on positives", positive),
        "dice_found": ("Dice where both mark", int((some.positive & some.marked).sum())),
        "dice": ("Dice", every),
        "dice_reweighted": (f"Dice at {100 * share:.2f} % positive", every),
        "box_met": ("a box meets the mask", positive),
    }
    values = []
    for key in keys:
        label, number = rows[key]
        # a single film says nothing of others
        interval = middle(spread[key]) if key in spread and number > 1 else (math.nan, math.nan)
        values.append(Value(key, label, float(scores[key][0]), *interval, number))
    return values


def _files(given: Any) -> list[Path]:
    """The files that are named: one, a pattern, or a list of these."""
    named = given if isinstance(given, list) else [given]
    paths: list[Path] = []
    for name in map(str, named):
        matches = sorted(glob.glob(name)) if not Path(name).exists() else [name]
        if not matches:
            raise PneumoError(f"{name}: no such file")
        paths += map(Path, matches)
    return paths


def table_of(agreements: Sequence[Agreement]) -> Table:
    """All scores of all readers."""
    rows = [
        [one.reader, value.label, _number(value.value), _interval(value), f"{value.films:,}"]
        for one in agreements
        for value in one.values
    ]
    head = ["reader", "score", "value", "95 % interval", "films"]
    return Table("readers", "Second readers beside the challenge's table", head, rows)


def described(one: Agreement) -> list[str]:
    """The counts of a reader in words, and what was left aside."""
    of = f"{counted(one.films, 'film')} of {counted(one.patients, 'patient')}"
    negative = one.films - one.positive
    match one.kind:
        case Truth.masks:
            lines = [
                f"{one.reader}: {of} are in both; with a mask in the table {one.positive:,}, by "
                f"the reader {one.marked:,}, by both {one.both:,}",
                f"  {100 * one.positive / one.films:.0f} % of them are positive: they were chosen. "
                f"Dice at {100 * one.share:.2f} % positive weighs positive and negative films "
                f"anew (empty masks alone: {1 - one.share:.4f}), which does not undo other ways in "
                "which they differ",
            ]
        case Truth.labels:
            lines = [
                f"{one.reader}: {of} are in both; {one.positive - one.both:,} of the table's "
                f'{one.positive:,} positives are called "no", {one.marked - one.both:,} of its '
                f'{negative:,} negatives "yes"'
            ]
        case Truth.boxes:
            lines = [
                f"{one.reader}: {of} have a box; {negative:,} of them have an empty mask in the "
                "table. Films without a box are unknown, not negative"
            ]
    lines += [f"  left aside: {len(cases):,} {reason}" for reason, cases in one.left_aside.items()]
    return lines


def told(value: Value) -> str:
    """A score with its interval in a cell."""
    if not math.isfinite(value.low):
        return _number(value.value)
    return f"{_number(value.value)} [{value.low:.3f}, {value.high:.3f}]"


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _interval(value: Value) -> str:
    if not math.isfinite(value.low):
        return "–"
    return f"{value.low:.3f} to {value.high:.3f}"
