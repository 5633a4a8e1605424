"""The challenge's submission file, verified by decoding it again."""

import csv
import zlib
from collections.abc import Container
from pathlib import Path

import numpy as np

from pneumo import files
from pneumo.data import dicom
from pneumo.data.films import find_films, name_of
from pneumo.data.settings import OnError
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.inference.maps import Predictions
from pneumo.masks import rle
from pneumo.masks.settings import Postprocess
from pneumo.tables import cell

HEADER = ("ImageId", "EncodedPixels")


def write(
    out: Path,
    parts: list[Predictions],
    rule: Postprocess,
    tta: bool,
    wanted: list[str] | None = None,
    on_error: OnError | None = None,
) -> tuple[int, list[str]]:
    """Write one row an image, ``-1`` for an empty mask.

    Masks are at 1024², as the files store them, not turned upright.

    Args:
        out: the CSV file; written whole or not at all.
        parts: probability maps.
        rule: how a map becomes a mask.
        tta: whether to use the mean with the mirror image.
        wanted: ids to write, in this order; by default all films.
        on_error: skip gives ids without a film an empty mask; else they are an error.

    Returns:
        How many images have a mask, and the ids without a film. Raises PneumoError.
    """
    place = {image: (part, row) for part in parts for row, image in enumerate(part.ids)}
    ids = list(place) if wanted is None else wanted
    absent = _absent(ids, place, on_error)
    formulas = [image for image in ids if cell(image) != image]
    if formulas:
        raise PneumoError(f"{formulas[0]}: a spreadsheet would run this id as a formula; rename it")
    checksums: dict[str, int] = {}
    with files.replacing(out) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for image in ids:
                mask = np.zeros(rle.SHAPE, np.uint8)
                if image in place:
                    mask = stored_mask(*place[image], rule, tta)
                checksums[image] = zlib.crc32(mask.tobytes())
                writer.writerow((image, rle.encode(mask)))
        table = siim.read_table(temporary)
        for image, checksum in checksums.items():
            rows = table.rows.get(image, [])
            if len(rows) != 1 or zlib.crc32(rle.decode(rows[0].text).tobytes()) != checksum:
                raise PneumoError(
                    f"{out}: image {image} did not come back as it was written; nothing was kept"
                )
    return sum(bool(table.masks(image)) for image in ids), absent


def check_ids(wanted: list[str], folder: Path, on_error: OnError | None) -> None:
    """Raise PneumoError for ids without a film of that name, before anything is predicted."""
    _absent(wanted, {name_of(path) for path in find_films(folder)}, on_error)


def _absent(ids: list[str], there: Container[str], on_error: OnError | None) -> list[str]:
    """The ids without a film; raises PneumoError unless they may be left out."""
    absent = [image for image in ids if image not in there]
    if absent and (on_error is not OnError.skip or len(absent) == len(ids)):
        raise PneumoError(
            f"{len(absent):,} of the {len(ids):,} ids of the sample submission have no film "
            f"here, e.g. {absent[0]}; "
            "give the folder that holds them (on=…), or write empty masks for them with "
            "on_error=skip"
        )
    return absent


def stored_mask(part: Predictions, row: int, rule: Postprocess, tta: bool) -> np.ndarray:
    """A film's mask at 1024², over the pixels as its file stores them, uint8 of 0 and 1."""
    return dicom.stored(part.mask(row, rule, tta), part.cases[row].orientation)
