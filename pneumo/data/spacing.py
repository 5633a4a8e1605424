"""How many millimetres a film's pixels measure: by its header, by a table, and what to believe.

The standard's section is PS3.3 10.7.1, "Basic Pixel Spacing Calibration Macro":
https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_10.7.html
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from pneumo.data import csv_files
from pneumo.errors import PneumoError

# Widths of a frontal chest film in mm that are believed. Of the challenge's 12,047 films, whose
# true widths follow from the sizes of the NIH's originals, all but three small children's have 332
# to 480 mm (median 420). By their headers' spacing, which shrinking to 1024² left as it was, they
# would have 118 to 199 mm.
BELIEVED = (250, 600)
# names of columns in a table of spacings, without what is not a letter; NIH's own come first
WIDTH = ("originalimagewidth", "width")
HEIGHT = ("originalimageheight", "height")
ACROSS = ("originalimagepixelspacingx", "columnspacing", "spacing", "spacingmm")
DOWN = ("originalimagepixelspacingy", "y", "rowspacing", "spacing", "spacingmm")


class Plane(Enum):
    """Where the millimetres are true. A body is magnified on the detector behind it."""

    patient = "in the patient"
    detector = "at the detector"
    unstated = "plane not stated"


@dataclass(frozen=True)
class Spacing:
    """Distances between the centres of neighbouring pixels, in mm."""

    rows: float
    columns: float
    plane: Plane = Plane.unstated

    @property
    def transposed(self) -> "Spacing":
        """That of a film whose rows have become columns."""
        return Spacing(self.columns, self.rows, self.plane)


def by_header(dataset: Dataset) -> Spacing | None:
    """What a film's tags say; None if they say nothing possible.

    PixelSpacing that differs from the detector's spacing, or whose calibration is declared, was
    corrected for magnification. Where they are equal it was not; the spacing is then divided by
    EstimatedRadiographicMagnificationFactor, if that is known. PixelSpacing alone does not say.
    """
    pixel = _pair(dataset.get("PixelSpacing"))
    receptor = _pair(dataset.get("ImagerPixelSpacing"))
    receptor = receptor or _pair(dataset.get("NominalScannedPixelSpacing"))
    is_declared = bool(dataset.get("PixelSpacingCalibrationType"))
    differs = pixel is not None and receptor is not None and not _same(pixel, receptor)
    if pixel and (is_declared or differs):
        return Spacing(*pixel, Plane.patient)
    if receptor:
        factor = _magnification(dataset)
        if factor is None:
            return Spacing(*receptor, Plane.detector)
        return Spacing(receptor[0] / factor, receptor[1] / factor, Plane.patient)
    return Spacing(*pixel) if pixel else None


def doubt(spacing: Spacing, columns: int) -> str:
    """Why the spacing of a frontal chest film is not believed; empty if it is."""
    least, most = BELIEVED
    width = columns * spacing.columns
    if least <= width <= most:
        return ""
    return f"by its header it is {width:.0f} mm wide, and {least} to {most} mm are believed"


@dataclass(frozen=True)
class Entry:
    """What a table says of one film: a spacing in mm, and the size it belongs to.

    ``shape`` (rows, columns) is that of the original; None: that of the film itself.
    """

    rows: float
    columns: float
    shape: tuple[int, int] | None = None

    def at(self, shape: tuple[int, int]) -> Spacing:
        """The spacing of the original shrunk or enlarged to another shape (rows, columns)."""
        of_rows, of_columns = self.shape or shape
        return Spacing(self.rows * of_rows / shape[0], self.columns * of_columns / shape[1])


def read_table(path: Path, names: Path | None = None) -> dict[str, Entry]:
    """Read a CSV of spacings by film.

    Its first column is the film's id, the others are known by their names: ``spacing`` (mm), or
    ``row_spacing`` and ``column_spacing``; and ``width`` and ``height`` in pixels where the
    spacing is that of an original of this size. NIH's Data_Entry_2017 has such columns.

    Args:
        path: the table.
        names: CSV of a film's id and its name in the table, such as nih_id.csv.

    Raises:
        PneumoError: a column that is missing, or the line of a value that is none.
    """
    places = _places(path)
    entries = {}
    for line, cells in csv_files.rows(path):
        try:
            entries[csv_files.image_id(cells[0])] = _entry(cells, places)
        except (ValueError, IndexError):
            raise PneumoError(
                f"{path}, line {line}: no spacing in mm, or no size in pixels: "
                f"{','.join(cells)[:80]!r}"
            ) from None
    if names:
        for film, name in csv_files.read_names(names).items():
            if name in entries:
                entries[film] = entries[name]
    return entries


def _places(path: Path) -> dict[str, int]:
    """Which column of a table holds what: across, down and perhaps width and height."""
    header = csv_files.header(path) or []
    letters = [re.sub("[^a-z]", "", name.lower()) for name in header]
    known = {"across": ACROSS, "down": DOWN, "width": WIDTH, "height": HEIGHT}
    places = {}
    for what, names in known.items():
        there = [letters.index(name) for name in names if name in letters]
        if there:
            places[what] = there[0]
    if not {"across", "down"} <= places.keys() or ("width" in places) != ("height" in places):
        raise PneumoError(
            f"{path}: columns {', '.join(header) or 'without names'}; expected id, spacing (mm) "
            "and, where that is the spacing of an original of another size, width and height (px)"
        )
    return places


def _entry(cells: list[str], places: dict[str, int]) -> Entry:
    """One line of a table. Raises ValueError or IndexError."""
    spacing = _pair((cells[places["down"]], cells[places["across"]]))
    if spacing is None:
        raise ValueError
    if "width" not in places:
        return Entry(*spacing)
    shape = int(cells[places["height"]]), int(cells[places["width"]])
    if min(shape) < 1:
        raise ValueError
    return Entry(*spacing, shape)


def _pair(value: Sequence[Any] | None) -> tuple[float, float] | None:
    """A tag's (mm between rows, mm between columns); None if it is missing or impossible."""
    try:
        rows, columns = (float(distance) for distance in value or ())
    except (TypeError, ValueError):
        return None
    if not (0.01 <= rows <= 10 and 0.01 <= columns <= 10):
        return None
    return rows, columns


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(one, other, strict=True))


def _magnification(dataset: Dataset) -> float | None:
    try:
        factor = float(dataset.get("EstimatedRadiographicMagnificationFactor"))
    except (TypeError, ValueError):
        return None
    return factor if 1 <= factor <= 3 else None
