"""A folder of films and a table of run lengths → an index of images, masks and patients, tolerant of every layout met so far.

``python -m pneumo.siim data=siim data.root=… data.annotations=…`` checks a data set and prints Table I of the paper for it.
"""

import csv
import gzip
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pneumo.data import dicom
from pneumo.data.films import Item, find_films, name_of
from pneumo.data.settings import Data, OnError
from pneumo.errors import PneumoError
from pneumo.masks import rle

TABLE_I = {  # images, rows, positive images of the paper's Table I (training sets)
    "round 1": (10_675, 11_582, 2_379),
    "round 2": (12_047, 12_954, 2_669),
}


@dataclass
class Row:
    """One row of the table: where it stands and its run lengths, empty for "no pneumothorax"."""

    line: int
    text: str


@dataclass
class Table:
    """The annotation table: rows by image id, in the file's order, and the rows left aside with their reasons."""

    path: Path
    rows: dict[str, list[Row]]
    left_aside: list[str] = field(default_factory=list)

    def masks(self, image: str) -> list[str]:
        """The non-empty annotations of an image."""
        return [row.text for row in self.rows[image] if row.text]


@dataclass
class Index:
    """What a data set holds, and what was left aside and why (reason → cases)."""

    items: list[Item]
    table: Table
    left_aside: dict[str, list[str]]


def read_index(data: Data) -> Index:
    """Join films and table. Raises PneumoError where nothing can be joined, or for a bad row unless ``data.on_error=skip``."""
    if not data.root:
        raise PneumoError("data.root is not set: give the folder of the films, data.root=<folder>")
    if not data.annotations:
        raise PneumoError(
            "data.annotations is not set: give the table of run lengths, data.annotations=<file.csv>"
        )
    table = read_table(Path(data.annotations), data.on_error)
    left_aside: dict[str, list[str]] = {}
    if table.left_aside:
        left_aside["rows that are malformed"] = table.left_aside
    if data.round == 1:
        assert data.round1_test is not None
        test = set(read_ids(Path(data.round1_test)))
        left_aside["images of the round-1 test set (data.round=1)"] = [
            image for image in table.rows if image in test
        ]
        if not test & set(table.rows):
            raise PneumoError(
                f"{data.round1_test}: names none of the images of {data.annotations}; is it the round-1 sample submission?"
            )
        table.rows = {image: rows for image, rows in table.rows.items() if image not in test}
    files, unannotated, twice = _match(Path(data.root), table.rows)
    left_aside["films without a row in the table (not annotated, so not negative)"] = unannotated
    left_aside["films whose id stands on disk more than once (the first is used)"] = twice
    left_aside["images of the table that are not on disk"] = [
        image for image in table.rows if image not in files
    ]
    if not files:
        first = next(iter(table.rows))
        raise PneumoError(
            f"{data.root}: none of its {len(unannotated)} films is in {data.annotations} (ids such as {first}); "
            "is this the right table for this folder?"
        )
    patients = read_patients(Path(data.patients)) if data.patients else {}
    items = [
        Item(image, files[image], table.masks(image), patients.get(image))
        for image in table.rows
        if image in files
    ]
    if data.patients and not any(item.patient for item in items):
        raise PneumoError(
            f"{data.patients}: names none of the images; its first column must hold their ids"
        )
    return Index(items, table, {reason: cases for reason, cases in left_aside.items() if cases})


def read_table(path: Path, on_error: OnError = OnError.stop) -> Table:
    """Read a table of run lengths: plain or gzipped; with or without header, byte-order mark, carriage returns, blanks.

    Raises:
        PneumoError: a missing or empty file, or (unless ``on_error`` is skip) the first malformed row, by line number.
    """
    table = Table(path, {})
    for line, cells in _rows(path):
        image, text = cells[0].strip(), cells[1].strip() if len(cells) > 1 else ""
        try:
            if len(cells) != 2 or not image:
                raise rle.RLEError(f"expected image id and run lengths, got {len(cells)} columns")
            rle.runs(text, rle.SHAPE[0] * rle.SHAPE[1])
        except rle.RLEError as error:
            message = f"{path}, line {line} ({image or 'no id'}): {error}"
            if on_error is OnError.stop:
                raise PneumoError(
                    f"{message}; correct the row, or leave it out with data.on_error=skip"
                ) from None
            table.left_aside.append(message)
            continue
        table.rows.setdefault(_id(image), []).append(Row(line, "" if rle.is_empty(text) else text))
    if not table.rows:
        raise PneumoError(f"{path}: no annotations in it")
    return table


def read_ids(path: Path) -> list[str]:
    """The distinct ids of a sample submission, in order."""
    return list(dict.fromkeys(_id(cells[0]) for _, cells in _rows(path)))


def read_patients(path: Path) -> dict[str, str]:
    """A two-column CSV of image id and patient. An NIH file name such as 00028864_007.png stands for its patient, 00028864."""
    patients = {}
    for line, cells in _rows(path, table=False):
        if len(cells) < 2 or not cells[1].strip():
            raise PneumoError(
                f"{path}, line {line}: expected image id and patient, got {','.join(cells)[:60]!r}"
            )
        nih = re.fullmatch(r"(\d{8})_\d{3}(\.png)?", cells[1].strip())
        patients[_id(cells[0])] = nih[1] if nih else cells[1].strip()
    return patients


def patients_from_films(items: Iterable[Item]) -> dict[str, str]:
    """PatientID of DICOM films, if it tells anything: some patient must have two films (the challenge gives each its own)."""
    found = {}
    for item in items:
        if item.path.suffix.lower() not in dicom.IMAGES:
            try:
                found[item.id] = str(dicom.read_header(item.path).get("PatientID", ""))
            except dicom.FilmError:
                continue  # decoding will say so
    counts = Counter(filter(None, found.values()))
    most = max(counts.values(), default=0)
    telling = 1 < most <= len(found) / 2 or (
        most > 1 and len(counts) > 2
    )  # not one name such as ANON for nearly all
    return {image: patient for image, patient in found.items() if patient} if telling else {}


def overlapping(annotations: list[str]) -> bool:
    """Whether the annotations of one image share pixels."""
    ranges = sorted(
        (start, end)
        for text in annotations
        for start, end in zip(*rle.runs(text, 2**62), strict=True)
    )
    return any(start < end for (_, end), (start, _) in itertools.pairwise(ranges))


def _rows(path: Path, table: bool = True) -> Iterable[tuple[int, list[str]]]:
    """Lines of a CSV with their numbers, without header and blank lines."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise PneumoError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PneumoError(f"{path}: a folder, not a CSV file") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PneumoError(f"{path}: not a readable CSV file ({error})") from None
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for first, cells in enumerate(reader):
            if any(cell.strip() for cell in cells) and not (
                first == 0 and _is_header(cells, table)
            ):
                yield reader.line_num, cells
    except csv.Error as error:
        raise PneumoError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _id(cell: str) -> str:
    """An image id without blanks and without a file's suffix."""
    return re.sub(r"\.(dcm|dicom|png|jpe?g)$", "", cell.strip(), flags=re.IGNORECASE)


def _is_header(cells: list[str], table: bool) -> bool:
    """A first line whose second cell begins with a letter, where run lengths or -1 would stand; or one that names an id."""
    second = cells[1].strip() if len(cells) > 1 else ""
    return (
        bool(re.match(r"[A-Za-z]", second))
        if table
        else bool(re.fullmatch(r"[A-Za-z_ ]+", cells[0].strip()))
    )


def _match(
    root: Path, wanted: dict[str, list[Row]]
) -> tuple[dict[str, Path], list[str], list[str]]:
    """Films below ``root`` by id: by file name, else by SOPInstanceUID. Returns (id → file, unannotated, repeated)."""
    files: dict[str, Path] = {}
    unannotated, twice = [], []
    for path in find_films(root):
        image = name_of(path)
        if image not in wanted and path.suffix.lower() not in dicom.IMAGES:
            try:
                image = str(dicom.read_header(path).get("SOPInstanceUID", image))
            except dicom.FilmError:
                image = name_of(
                    path
                )  # reported as unannotated; if it were annotated, reading it would fail later
        if image not in wanted:
            unannotated.append(str(path))
        elif image in files:
            twice.append(str(path))
        else:
            files[image] = path
    return files, unannotated, twice


def summary(index: Index) -> list[tuple[str, int]]:
    """The counts of Table I, and what else a reader of the table must get right."""
    texts = {image: index.table.masks(image) for image in index.table.rows}
    multiple = [t for t in texts.values() if len(t) > 1]
    patients = {item.patient for item in index.items if item.patient}
    return [
        ("images in the table", len(texts)),
        ("rows", sum(len(rows) for rows in index.table.rows.values())),
        ("positive images", sum(bool(t) for t in texts.values())),
        ("multi-row images", len(multiple)),
        ("of them overlapping", sum(overlapping(t) for t in multiple)),
        ("images on disk", len(index.items)),
        ("of them positive", sum(item.positive for item in index.items)),
        *([("patients on disk", len(patients))] if patients else []),
    ]


def describe(index: Index, cases: int = 5) -> str:
    """Table I for this data set, and every film or row left aside with the reason (all of them if ``cases`` is 0)."""
    counts = summary(index)
    width = max(len(f"{number:,}") for _, number in counts)
    lines = [f"{number:>{width},}  {name}" for name, number in counts]
    same = [
        name
        for name, known in TABLE_I.items()
        if known == tuple(number for _, number in counts[:3])
    ]
    lines.append(
        f"These are the challenge's {same[0]} training annotations (Table I)."
        if same
        else "Not one of the challenge's two tables."
    )
    for reason, found in index.left_aside.items():
        lines.append(f"\nLeft aside, {reason}: {len(found):,}")
        shown = found[:cases] if cases else found
        lines += [f"  {case}" for case in shown]
        if len(shown) < len(found):
            lines.append(f"  … and {len(found) - len(shown):,} more (all with verbose=true)")
    return "\n".join(lines)
