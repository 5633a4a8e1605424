"""A table of labels of whole films → films of which only these are known, and not where it is.

The tables of CheXpert (``Path``, a column a finding; -1 is uncertain), of Google's readers (YES and
NO), of VinDr-CXR (a row a reader) and of NIH (``Finding Labels``, names with ``|`` between) are
such, and any other with a column of ids and one of labels. Whatever says neither yes nor no is
unknown.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from pneumo.data import csv_files, joining
from pneumo.data.csv_files import image_id, patient_in
from pneumo.data.films import Index, Item
from pneumo.data.settings import Agreement, LabelsData
from pneumo.errors import PneumoError
from pneumo.masks.truth import WHOLE, WHOLE_SHAPE, Truth

FINDING = "pneumothorax"
LISTED = "finding labels"  # a column of this name lists all findings of a film
POSITIVE = ("1", "1.0", "yes", "true", "positive")
NEGATIVE = ("0", "0.0", "no", "false", "negative")
VIEW = "frontal/lateral"  # CheXpert's column, which labels all films of a study alike
LATERAL = "films from the side"
UNKNOWN = "films whose label says neither yes nor no (unknown, so not negative)"
UNDECIDED = "films of which as many readers say yes as no (unknown, so not negative)"


@dataclass
class Labels:
    """The labels of a table by image id, and the images of which it tells nothing, by reason."""

    positive: dict[str, bool]
    unknown: dict[str, list[str]] = field(default_factory=dict)


def read_index(data: LabelsData) -> Index:
    """Join films and labels. Raises PneumoError."""
    data.check_places()
    assert data.annotations is not None
    found = read(Path(data.annotations), data.column, data.readers)
    aside = [image for images in found.unknown.values() for image in images]
    joined = joining.join(data, list(found.positive), aside)
    items = [
        Item(
            image.replace("/", "-"),
            path,
            list(WHOLE) if found.positive[image] else [],
            patient_in(image),
            shape=WHOLE_SHAPE,
            truth=Truth.labels,
        )
        for image, path in joined.films.items()
    ]
    return Index(joining.with_patients(data, items), {**found.unknown, **joined.left_aside})


def read(path: Path, column: str, readers: Agreement) -> Labels:
    """Read a table of labels. Raises PneumoError if it has no such column, or no label in it."""
    names = csv_files.columns(path)
    wanted = column.strip().lower()
    if wanted not in names:
        raise PneumoError(f"{path}: no column {column}; it has {', '.join(names)} (data.column)")
    of_image = next((name for name in csv_files.IMAGE_COLUMNS if name in names), names[0])
    told: dict[str, list[bool]] = {}
    unknown: dict[str, list[str]] = {}
    for line, cells in csv_files.records(path):
        if not cells.get(of_image):
            raise PneumoError(
                f"{path}, line {line}: no image id (column {of_image or 'without name'})"
            )
        image = image_id(cells[of_image])
        if cells.get(VIEW, "").lower() == "lateral":
            unknown.setdefault(LATERAL, []).append(image)
            continue
        votes = told.setdefault(image, [])
        label = _label(cells.get(wanted, ""), wanted)
        if label is not None:
            votes.append(label)
    positive: dict[str, bool] = {}
    for image, votes in told.items():
        decided = agreed(votes, readers)
        if decided is None:
            unknown.setdefault(UNDECIDED if votes else UNKNOWN, []).append(image)
        else:
            positive[image] = decided
    if not positive:
        raise PneumoError(
            f"{path}: column {column} says yes or no of none of its {len(told):,} images; yes is "
            f"one of {', '.join(POSITIVE)}, no one of {', '.join(NEGATIVE)}"
        )
    return Labels(positive, unknown)


def _label(text: str, column: str) -> bool | None:
    """What a cell says; None: neither yes nor no."""
    word = text.strip().lower()
    if column == LISTED:
        return FINDING in [name.strip() for name in word.split("|")] if word else None
    if word in POSITIVE:
        return True
    return False if word in NEGATIVE else None


def agreed(votes: Collection[bool], readers: Agreement) -> bool | None:
    """What several readers say of a film together; None if that is not decided."""
    count, yes = len(votes), sum(votes)
    if not count:
        return None
    match readers:
        case Agreement.any:
            return yes > 0
        case Agreement.all:
            return yes == count
        case Agreement.majority:
            return None if 2 * yes == count else 2 * yes > count
