"""A folder of films and a table of run lengths → an index of images, masks and patients.

It accepts every layout of the challenge's data met so far. ``python -m pneumo.siim data=siim
data.root=… data.annotations=…`` checks a data set and prints Table I of the paper for it.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from pneumo.data import csv_files, dicom, joining
from pneumo.data.csv_files import image_id, read_ids, read_patients, read_sites
from pneumo.data.films import Index, Item, find_films, name_of
from pneumo.data.settings import MaskSize, OnError, SiimData
from pneumo.errors import PneumoError
from pneumo.masks import rle

# images, rows and positive images of the training sets in the paper's Table I
TABLE_I = {
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
    """The annotation table: rows by image id, in the file's order.

    ``left_aside`` holds the malformed rows with their reasons.
    """

    path: Path
    rows: dict[str, list[Row]]
    left_aside: list[str] = field(default_factory=list)

    def masks(self, image: str) -> list[str]:
        """The non-empty annotations of an image."""
        return [row.text for row in self.rows[image] if row.text]


@dataclass
class SiimIndex(Index):
    """An index with the table it was made from."""

    table: Table = field(kw_only=True)

    def counts(self) -> list[tuple[str, int]]:
        """The counts of Table I, and what else a reader of the table must get right."""
        texts = {image: self.table.masks(image) for image in self.table.rows}
        multiple = [annotations for annotations in texts.values() if len(annotations) > 1]
        return [
            ("images in the table", len(texts)),
            ("rows", sum(len(rows) for rows in self.table.rows.values())),
            ("positive images", sum(bool(annotations) for annotations in texts.values())),
            ("multi-row images", len(multiple)),
            ("of them overlapping", sum(overlapping(annotations) for annotations in multiple)),
            *super().counts(),
        ]

    def verdict(self) -> str:
        """Whether these are the challenge's own annotations, complete."""
        facts = tuple(number for _, number in self.counts()[:3])
        same = [name for name, known in TABLE_I.items() if known == facts]
        if same:
            return f"These are the challenge's {same[0]} training annotations (Table I)."
        return "Not one of the challenge's two tables."


def read_index(data: SiimData) -> SiimIndex:
    """Join films and table.

    Raises PneumoError where nothing can be joined, or for a bad row unless ``data.on_error=skip``.
    """
    data.check_places()
    assert data.root is not None
    assert data.annotations is not None
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
                f"{data.round1_test}: names none of the images of {data.annotations}; "
                "is it the round-1 sample submission?"
            )
        table.rows = {image: rows for image, rows in table.rows.items() if image not in test}
    files, unannotated, twice = _match(Path(data.root), table.rows)
    left_aside[joining.UNANNOTATED] = unannotated
    left_aside["films whose id stands on disk more than once (the first is used)"] = twice
    missing = [image for image in table.rows if image not in files]
    left_aside[joining.ABSENT] = missing
    if not files:
        first = next(iter(table.rows))
        raise PneumoError(
            f"{data.root}: none of its {len(unannotated)} films is in {data.annotations} "
            f"(ids such as {first}); is this the right table for this folder?"
        )
    joining.check_missing(data, missing, len(table.rows))
    patients = read_patients(Path(data.patients)) if data.patients else {}
    sites = read_sites(Path(data.patients)) if data.patients else {}
    items = [
        Item(
            image,
            files[image],
            table.masks(image),
            patients.get(image),
            sites.get(image),
            mask_shape(files[image], data.mask_size),
        )
        for image in table.rows
        if image in files
    ]
    if data.patients and not any(item.patient for item in items):
        raise PneumoError(
            f"{data.patients}: names none of the images; its first column must hold their ids"
        )
    kept = {reason: cases for reason, cases in left_aside.items() if cases}
    return SiimIndex(items, kept, table=table)


def mask_shape(film: Path, size: MaskSize) -> tuple[int, int] | None:
    """The shape of the image that a film's run lengths refer to; None: the film's own."""
    is_mirror = size is MaskSize.challenge and dicom.is_picture(film)
    return rle.SHAPE if is_mirror else None


def read_table(path: Path, on_error: OnError = OnError.stop) -> Table:
    """Read a table of run lengths.

    It may be plain or gzipped, with or without header, byte-order mark, carriage returns or blanks.
    Whether a run fits its film is seen when the film is read.

    Raises:
        PneumoError: a missing or empty file, or (unless ``on_error`` is skip) the first malformed
            row, by line number.
    """
    table = Table(path, {})
    for line, cells in csv_files.rows(path):
        image = cells[0].strip()
        text = cells[1].strip() if len(cells) > 1 else ""
        try:
            if len(cells) != 2 or not image:
                raise rle.RLEError(f"expected image id and run lengths, got {len(cells)} columns")
            rle.runs(text)
        except rle.RLEError as error:
            header = csv_files.header(path)
            if header is not None and not table.rows:
                names = ", ".join(cell.strip() for cell in header)
                raise PneumoError(
                    f"{path}: columns {names}; expected ImageId, EncodedPixels (run lengths)"
                ) from None
            message = f"{path}, line {line} ({image or 'no id'}): {error}"
            if on_error is OnError.stop:
                raise PneumoError(
                    f"{message}; correct the row, or leave it out with data.on_error=skip"
                ) from None
            table.left_aside.append(message)
            continue
        row = Row(line, "" if rle.is_empty(text) else text)
        table.rows.setdefault(image_id(image), []).append(row)
    if not table.rows:
        raise PneumoError(f"{path}: no annotations in it")
    return table


def overlapping(annotations: list[str]) -> bool:
    """Whether the annotations of one image share pixels."""
    ranges: list[tuple[int, int]] = []
    for text in annotations:
        starts, ends = rle.runs(text)
        ranges += zip(starts.tolist(), ends.tolist(), strict=True)
    ranges.sort()
    return any(start < end for (_, end), (start, _) in itertools.pairwise(ranges))


def _match(
    root: Path, wanted: dict[str, list[Row]]
) -> tuple[dict[str, Path], list[str], list[str]]:
    """Find the films below ``root`` by id: by file name, else by SOPInstanceUID.

    Returns the file of each id, the files without annotations, and those whose id was there before.
    """
    files: dict[str, Path] = {}
    unannotated, twice = [], []
    for path in find_films(root):
        image = name_of(path)
        if image not in wanted and path.suffix.lower() not in dicom.IMAGES:
            try:
                image = str(dicom.read_header(path).get("SOPInstanceUID", image))
            except dicom.FilmError:
                # reported as not annotated, by its file name
                image = name_of(path)
        if image not in wanted:
            unannotated.append(str(path))
        elif image in files:
            twice.append(str(path))
        else:
            files[image] = path
    return files, unannotated, twice
