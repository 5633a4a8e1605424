"""CSV files that people have: of ids, of patients; plain or gzipped, with or without a header."""

import csv
import io
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pneumo import files
from pneumo.errors import PneumoError

# what columns of image ids and of patients are called, in lower case
IMAGE_COLUMNS = (
    "image index",
    "image_id",
    "imageid",
    "sopinstanceuid",
    "anon_sopuid",
    "path",
    "file_name",
    "filename",
    "nih_name",
    "image",
    "id",
)
PATIENT_COLUMNS = ("patient id", "patientid", "patient_id", "patient")


def read_ids(path: Path) -> list[str]:
    """The distinct ids of a sample submission, in order."""
    return list(dict.fromkeys(image_id(cells[0]) for _, cells in rows(path)))


def read_names(path: Path) -> dict[str, str]:
    """Read a two-column CSV of image id and another name, such as an NIH file name's stem."""
    names = {}
    for line, cells in rows(path, table=False):
        if len(cells) < 2 or not cells[1].strip():
            raise PneumoError(
                f"{path}, line {line}: expected image id and patient (or name), "
                f"got {','.join(cells)[:60]!r}"
            )
        names[image_id(cells[0])] = image_id(cells[1])
    return names


def read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each image: of a CSV of two columns, or of columns named so.

    An NIH file name such as 00028864_007.png stands for its patient, 00028864.
    """
    of_image, of_patient = _named(path)
    if of_image and of_patient:
        found = {
            image_id(cells[of_image]): cells[of_patient]
            for _, cells in records(path)
            if cells.get(of_image) and cells.get(of_patient)
        }
    else:
        found = read_names(path)
    return {
        image: _nih_patient(image) or _nih_patient(name) or name for image, name in found.items()
    }


def _named(path: Path) -> tuple[str | None, str | None]:
    """The columns of image and patient, of a CSV of three or more whose names say so."""
    names = [cell.strip().lower() for cell in header(path) or []]
    if len(names) < 3:
        return None, None
    of_image = next((name for name in names if name in IMAGE_COLUMNS), None)
    return of_image, next((name for name in names if name in PATIENT_COLUMNS), None)


def patient_in(name: str) -> str | None:
    """The patient that a film's name tells, of NIH (00028864_007) and CheXpert (patient64541)."""
    chexpert = re.search(r"(?:^|/)(patient\d+)(?:_|/)", name)
    return _nih_patient(name) or (chexpert[1] if chexpert else None)


def _nih_patient(name: str) -> str | None:
    nih = re.fullmatch(r"(\d{8})_\d{3}", name)
    return nih[1] if nih else None


def read_sites(path: Path) -> dict[str, str]:
    """The third column of that CSV, the site of each film, where it has one.

    Of a CSV whose columns are named, the one called site.
    """
    of_image, of_patient = _named(path)
    if of_image and of_patient:
        return {
            image_id(cells[of_image]): cells["site"]
            for _, cells in records(path)
            if cells.get(of_image) and cells.get("site")
        }
    return {
        image_id(cells[0]): cells[2].strip()
        for _, cells in rows(path, table=False)
        if len(cells) > 2 and cells[2].strip()
    }


def header(path: Path) -> list[str] | None:
    """The names of a table's columns, if its first line is a header. Raises PneumoError."""
    for number, cells in _lines(path):
        return cells if number == 1 and _is_header(cells, True) else None
    return None


def columns(path: Path) -> list[str]:
    """The names of a table's columns, in lower case. Raises PneumoError for a table without."""
    for _, cells in _lines(path):
        # a first column without a name is one of row numbers
        if _is_header(cells if cells and cells[0].strip() else cells[1:2], False):
            return [cell.strip().lower() for cell in cells]
        break
    raise PneumoError(f"{path}: its first line must name its columns")


def records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a CSV with their numbers, each as cells by the names of its header, in lower case.

    Raises PneumoError for a file without a header. A line may have fewer cells than the header.
    """
    names = columns(path)
    for number, cells in itertools.islice(_lines(path), 1, None):
        if any(cell.strip() for cell in cells):
            yield number, dict(zip(names, map(str.strip, cells), strict=False))


def rows(path: Path, table: bool = True) -> Iterable[tuple[int, list[str]]]:
    """Lines of a CSV with their numbers, without header and blank lines. Raises PneumoError."""
    for number, cells in _lines(path):
        is_blank = not any(cell.strip() for cell in cells)
        if not is_blank and not (number == 1 and _is_header(cells, table)):
            yield number, cells


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """All lines with their numbers; cells may be set apart by commas, semicolons or tabs."""
    try:
        text = files.read_text_bytes(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise PneumoError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PneumoError(f"{path}: a folder, not a CSV file") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise PneumoError(f"{path}: not a readable CSV file ({error})") from None
    csv.field_size_limit(2**31 - 1)
    first = text.partition("\n")[0]
    delimiter = next((one for one in ",;\t" if one in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise PneumoError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def image_id(cell: str) -> str:
    """An image id without blanks and without a file's suffix."""
    return re.sub(r"\.(dcm|dicom|png|jpe?g)$", "", cell.strip(), flags=re.IGNORECASE)


def _is_header(cells: list[str], table: bool) -> bool:
    """Whether a first line is a header.

    In a ``table`` of run lengths a header's second cell begins with a letter, where other lines
    have run lengths or -1. In other files its first cell holds letters only, where ids have digits.
    """
    if table:
        second = cells[1].strip() if len(cells) > 1 else ""
        return bool(re.match(r"[A-Za-z]", second))
    return bool(cells and re.fullmatch(r"[A-Za-z_ ]+", cells[0].strip()))
