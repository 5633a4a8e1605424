"""CSV files that people have: of ids, of patients; plain or gzipped, with or without a header."""

import csv
import gzip
import io
import re
from collections.abc import Iterable
from pathlib import Path

from pneumo.errors import PneumoError


def read_ids(path: Path) -> list[str]:
    """The distinct ids of a sample submission, in order."""
    return list(dict.fromkeys(image_id(cells[0]) for _, cells in rows(path)))


def read_patients(path: Path) -> dict[str, str]:
    """Read a two-column CSV of image id and patient.

    An NIH file name such as 00028864_007.png stands for its patient, 00028864.
    """
    patients = {}
    for line, cells in rows(path, table=False):
        if len(cells) < 2 or not cells[1].strip():
            raise PneumoError(
                f"{path}, line {line}: expected image id and patient, got {','.join(cells)[:60]!r}"
            )
        nih = re.fullmatch(r"(\d{8})_\d{3}(\.png)?", cells[1].strip())
        patients[image_id(cells[0])] = nih[1] if nih else cells[1].strip()
    return patients


def read_sites(path: Path) -> dict[str, str]:
    """The third column of that CSV, the site of each film, where it has one."""
    return {
        image_id(cells[0]): cells[2].strip()
        for _, cells in rows(path, table=False)
        if len(cells) > 2 and cells[2].strip()
    }


def rows(path: Path, table: bool = True) -> Iterable[tuple[int, list[str]]]:
    """Lines of a CSV with their numbers, without header and blank lines."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise PneumoError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PneumoError(f"{path}: a folder, not a CSV file") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PneumoError(f"{path}: not a readable CSV file ({error})") from None
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for number, cells in enumerate(reader):
            is_blank = not any(cell.strip() for cell in cells)
            if is_blank or (number == 0 and _is_header(cells, table)):
                continue
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
    return bool(re.fullmatch(r"[A-Za-z_ ]+", cells[0].strip()))
