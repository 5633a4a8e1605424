"""A model beside second readers of the same films, and its scores by whose word is the truth.

The challenge's masks, a reader's and the model's are compared film by film, at 1024². A reader is
judged by the challenge's masks as the model is, on the films that both have; the model is judged by
the reader's, and by what both say. Nobody's word is the truth, so films on which no two of the
three agree are listed for somebody who can judge.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pneumo import files
from pneumo.data import csv_files, dicom
from pneumo.data.sources.readers import Reader, Reading
from pneumo.errors import PneumoError
from pneumo.evaluation import agreement, scores
from pneumo.evaluation.agreement import SCORED, Bootstrap, Value
from pneumo.evaluation.results import plain_values
from pneumo.evaluation.scores import Difference
from pneumo.evaluation.settings import ReaderFiles
from pneumo.inference.maps import Predictions
from pneumo.masks import pictures, rle
from pneumo.masks.overlap import dice
from pneumo.masks.scores import Films, Weights
from pneumo.masks.settings import Postprocess
from pneumo.masks.truth import Truth
from pneumo.tables import Table

AGREE = 0.5  # Dice from which two masks agree
CHALLENGE, BOTH = "the challenge", "the challenge, where both agree"


class Counts(NamedTuple):
    """Pixels at 1024² of the masks of n films, and of what they share, int64 (n,) each."""

    model: Any
    challenge: Any
    reader: Any
    model_challenge: Any
    model_reader: Any
    challenge_reader: Any
    all_three: Any
    model_either: Any  # the model's that challenge or reader mark


@dataclass
class Against:
    """The model's scores by one truth."""

    truth: str
    films: int
    positives: int
    values: list[Value]


@dataclass
class Disagreement:
    """A film on which no two of challenge, reader and model agree: pixels at 1024², and Dice."""

    id: str
    challenge_px: int
    reader_px: int
    model_px: int
    challenge_reader: float
    challenge_model: float
    reader_model: float
    part: int  # which of the maps it is of, and its row there
    row: int
    picture: str = ""  # its file, where there is one


@dataclass
class Opinion:
    """A model and a second reader on the films that both have."""

    reader: str
    kind: Truth
    films: int
    patients: int
    positives: int  # by the challenge
    share: float  # of positive films, to which Dice is re-weighted
    alone: list[Value]  # the reader by the challenge
    model: list[Value]  # the model by the challenge
    minus: dict[str, Difference]  # the model minus the reader, both by the challenge
    by_truth: list[Against]
    disagreed: list[Disagreement]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        plain = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        for key in ("alone", "model", "by_truth", "disagreed"):
            plain[key] = [_plain(value) for value in plain[key]]
        plain["minus"] = {key: plain_values(value) for key, value in self.minus.items()}
        return {**plain, "kind": self.kind.name}


def _plain(found: Any) -> Any:
    told = plain_values(found)
    if "values" in told:
        told["values"] = [plain_values(value) for value in told["values"]]
    return told


def judge(
    parts: Sequence[Predictions],
    rule: Postprocess,
    tta: bool,
    reader: Reader,
    asked: ReaderFiles,
    count: int,
    seed: int,
) -> Opinion:
    """A model's maps under a rule beside one reader.

    Args:
        parts: its maps; the films have masks for their truth.
        rule: makes masks of the maps.
        tta: whether the maps are means with the mirror images'.
        reader: what the reader says, by image id.
        asked: the share of positives to which Dice is re-weighted.
        count, seed: resamples by patient, 0 for none.

    Raises:
        PneumoError: the reader has read none of the films.
    """
    measured: list[tuple[int, int, Counts]] = []
    for number, part in enumerate(parts):
        work = functools.partial(_counts, rule=rule, tta=tta, reader=reader)
        of_row = dict(part.each(work, f"Comparing with {reader.name}"))
        measured += [(number, row, found) for row, found in sorted(of_row.items()) if found]
    if not measured:
        raise PneumoError(
            f"reader: {reader.name} has read none of these {sum(map(len, parts)):,} films"
        )
    n = Counts(*np.array([found for *_, found in measured], np.int64).T)
    cases = [parts[number].cases[row] for number, row, _ in measured]
    patients = [case.patient for case in cases]
    drawn_anew = agreement.bootstrap(patients, count, seed)
    keys = SCORED[reader.kind]
    by_challenge = Films(n.model, n.challenge, n.model_challenge)
    alone = Films(n.reader, n.challenge, n.challenge_reader)
    share = asked.share
    truths = {CHALLENGE: by_challenge, reader.name: Films(n.model, n.reader, n.model_reader)}
    if reader.kind is Truth.masks:
        either = n.challenge + n.reader - n.challenge_reader
        truths["both together"] = Films(n.model, either, n.model_either)
        truths["what both mark"] = Films(n.model, n.challenge_reader, n.all_three)
    every = np.ones(len(measured), bool)
    alike = (n.challenge > 0) == (n.reader > 0)
    chosen = {name: (films, every) for name, films in truths.items()}
    if reader.kind is not Truth.boxes:
        chosen[BOTH] = (by_challenge, alike)
    return Opinion(
        reader.name,
        reader.kind,
        len(measured),
        len({patient or f"#{place}" for place, patient in enumerate(patients)}),
        int((n.challenge > 0).sum()),
        share,
        agreement.values_of(keys, alone, drawn_anew, share),
        agreement.values_of(keys, by_challenge, drawn_anew, share),
        _minus(by_challenge, alone, keys, drawn_anew, share),
        [
            _against(name, films, which, keys, drawn_anew, share)
            for name, (films, which) in chosen.items()
        ],
        _disagreed(measured, [case.id for case in cases], n) if reader.kind is Truth.masks else [],
    )


def _counts(
    part: Predictions, row: int, rule: Postprocess, tta: bool, reader: Reader
) -> Counts | None:
    """The counts of one film; None if the reader has not read it."""
    case = part.cases[row]
    reading = reader.readings.get(case.id)
    if reading is None:
        return None
    masks = [part.mask(row, rule, tta), case.mask(), drawn(reading, reader.kind, case.orientation)]
    if reader.kind is Truth.labels:  # whether there is any is all that is compared
        masks = [np.full((1, 1), mask.any(), np.uint8) for mask in masks]
    model, challenge, theirs = (mask > 0 for mask in masks)
    shared = [model & challenge, model & theirs, challenge & theirs]
    more = [model & challenge & theirs, model & (challenge | theirs)]
    return Counts(*map(np.count_nonzero, (model, challenge, theirs, *shared, *more)))


def drawn(reading: Reading, kind: Truth, orientation: tuple[str, str] | None) -> np.ndarray:
    """A reading as a mask of the upright film at 1024², uint8 of 0 and 1.

    Of a label that is positive it is the whole film.
    """
    if kind is Truth.labels:
        return np.full(rle.SHAPE, reading.positive, np.uint8)
    mask = rle.decode(reading.runs) if kind is Truth.masks else agreement.drawn(reading.boxes)
    return dicom.upright(mask, orientation)


def _minus(
    model: Films,
    reader: Films,
    keys: Sequence[str],
    drawn_anew: Bootstrap | None,
    share: float,
) -> dict[str, Difference]:
    """The model's scores minus the reader's, both by the challenge, patients drawn together."""

    def gaps(weights: Weights | None = None) -> agreement.Scores:
        ours, theirs = (agreement.scored(films, share, weights) for films in (model, reader))
        return {key: ours[key] - theirs[key] for key in keys}

    spread = {} if drawn_anew is None else drawn_anew(gaps)
    # a single film says nothing of others
    several = {one.key: one.films > 1 for one in agreement.values_of(keys, model, None, share)}
    none = np.full(0, np.nan)
    return {
        key: scores.difference(float(gap[0]), spread.get(key, none) if several[key] else none)
        for key, gap in gaps().items()
    }


def _against(
    name: str,
    films: Films,
    which: np.ndarray,
    keys: Sequence[str],
    drawn_anew: Bootstrap | None,
    share: float,
) -> Against:
    """The model's scores by one truth, on some of the films."""
    values = agreement.values_of(keys, films, drawn_anew, share, which)
    return Against(name, int(which.sum()), int(films.positive[which].sum()), values)


def _disagreed(
    measured: Sequence[tuple[int, int, Counts]], ids: Sequence[str], n: Counts
) -> list[Disagreement]:
    """Films on which no two of the three masks agree, those of least agreement first."""
    each = np.stack(
        [
            dice(n.challenge_reader, n.challenge, n.reader),
            dice(n.model_challenge, n.challenge, n.model),
            dice(n.model_reader, n.reader, n.model),
        ]
    )
    closest = each.max(axis=0)
    rows = [row for row in np.argsort(closest, kind="stable") if closest[row] < AGREE]
    found = []
    for row in rows:
        challenge, reader, model = (int(px[row]) for px in (n.challenge, n.reader, n.model))
        first, second, third = (round(float(value), 4) for value in each[:, row])
        part, place, _ = measured[row]
        found.append(
            Disagreement(ids[row], challenge, reader, model, first, second, third, part, place)
        )
    return found


def tables(found: Mapping[str, Sequence[Opinion]]) -> list[Table]:
    """Models, by their names, and readers by the challenge; models by whose word is the truth."""
    beside, by_truth = [], []
    for name, opinions in found.items():
        for one in opinions:
            for theirs, ours in zip(one.alone, one.model, strict=True):
                gap = _difference(one.minus[ours.key])
                cells = [agreement.told(theirs), agreement.told(ours), gap, f"{ours.films:,}"]
                beside.append([name, one.reader, ours.label, *cells])
            if one.kind is not Truth.masks:
                continue
            for against in one.by_truth:
                told = {value.key: agreement.told(value) for value in against.values}
                films = f"{against.films:,} ({against.positives:,})"
                by_truth.append(
                    [name, one.reader, against.truth, films, *(told[key] for key in SHOWN)]
                )
    note = (
        "All by the challenge's masks, on the films that the reader has read, with 95 % intervals "
        "by patient. These films were chosen, so Dice is also weighed to the challenge's share of "
        "positives, and neither reading is the truth."
    )
    head = ["model", "reader", "score", "reader alone", "model alone", "difference", "films"]
    made = [Table("readers", "Second readers on the same films", head, beside, note)]
    if by_truth:
        head = ["model", "reader", "truth", "films (positive)", *SHOWN.values()]
        note = "The same masks of the model, judged by different truths."
        made.append(Table("truths", "The model by whose word is the truth", head, by_truth, note))
    return made


# scores of the table of truths
SHOWN = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "dice_positive": "Dice on positives",
    "dice": "Dice",
}


def _difference(gap: Difference) -> str:
    if not np.isfinite(gap.p):
        return f"{gap.mean:+.3f}" if np.isfinite(gap.mean) else "–"
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], p = {gap.p:.3f}"


LISTED = (
    *("id", "challenge_px", "reader_px", "model_px"),
    *("dice_challenge_reader", "dice_challenge_model", "dice_reader_model"),
    *("picture", "verdict"),
)


def write_disagreements(
    folder: Path,
    opinion: Opinion,
    parts: Sequence[Predictions],
    rule: Postprocess,
    tta: bool,
    reader: Reader,
    count: int,
) -> Path:
    """A table of the films on which all disagree, the first ``count`` with a picture.

    The column ``verdict`` is left for somebody who can judge. Returns the table's path.
    """
    rows = [",".join(LISTED)]
    for place, one in enumerate(opinion.disagreed):
        picture = ""
        if place < count:
            drawn_film = outlined(parts[one.part], one.row, rule, tta, reader)
            if drawn_film is not None:
                picture = f"{place + 1:02d}-{one.id[-24:]}.png"
                with files.replacing(folder / picture) as temporary:
                    temporary.write_bytes(pictures.png(drawn_film))
                one.picture = str(folder / picture)
        pixels = (one.challenge_px, one.reader_px, one.model_px)
        pairs = (one.challenge_reader, one.challenge_model, one.reader_model)
        rows.append(",".join(map(str, (one.id, *pixels, *pairs, picture, ""))))
    path = folder / "disagreements.csv"
    files.write_text(path, "\n".join(rows) + "\n")
    return path


def outlined(
    part: Predictions, row: int, rule: Postprocess, tta: bool, reader: Reader
) -> np.ndarray | None:
    """A film with the three outlines, RGB uint8 (1024, 1024, 3); None if it is not there."""
    case = part.cases[row]
    try:
        film = dicom.read(Path(case.path)).pixels
    except PneumoError:
        return None
    small = cv2.resize(film, rle.SHAPE, interpolation=cv2.INTER_AREA)
    theirs = drawn(reader.readings[case.id], reader.kind, case.orientation)
    picture = pictures.overlay(small, case.mask(), part.mask(row, rule, tta), width=2)
    pictures.outline(picture, theirs, pictures.READER, width=2)
    pictures.write(picture, f"cyan: the challenge, yellow: {reader.name}, orange: the model")
    return picture


def names_of(asked: ReaderFiles, others: Sequence[str | None]) -> dict[str, str]:
    """NIH file names by image id: of ``reader.names``, else of the data set's own table.

    Raises PneumoError.
    """
    path = asked.names or next(filter(None, others), None)
    if path is None:
        raise PneumoError(
            "reader.names is not set: readers know films by NIH's file names; give the CSV of "
            "image id and NIH file name, reader.names=nih_id.csv"
        )
    return csv_files.read_names(Path(path))
