"""What other readers said of the challenge's films, by the challenge's image ids.

The challenge's films are of NIH ChestX-ray14, and so are those that others have read. A reader's
file names NIH films, or, in ChestX-Det, serial numbers. The table of names in this folder leads
from those to NIH, and the user's table of ids from NIH to the challenge:

- ChestX-Det (https://github.com/Deepwise-AILab/ChestX-Det-Dataset): polygons of three radiologists
  at 1024². Its first edition (Deepwise-AILab/ChestX-Det10-Dataset, commit 117ba79) still has the
  NIH names, of the same films with the same boxes in the same order; ``chestx_det_names.csv``
  holds those 3,543 pairs and nothing else of either. 35 films were added later; their NIH names
  are not known.
- NIH's own boxes (``BBox_List_2017.csv``, Wang et al., CVPR 2017), pixels at 1024².
- Google's adjudicated labels (Majkowska et al., Radiology 2020, doi:10.1148/radiol.2019191293).

What a reader did not say is unknown, never negative: a film without an NIH box may well show
pneumothorax.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumo import files
from pneumo.data import csv_files
from pneumo.data.csv_files import image_id
from pneumo.data.settings import OnError
from pneumo.errors import PneumoError
from pneumo.masks import coco, rle
from pneumo.masks.coco import Polygon
from pneumo.masks.truth import Truth

NAMES = Path(__file__).with_name("chestx_det_names.csv")
FINDING = "Pneumothorax"
SIDE = rle.SHAPE[0]  # all these readers count pixels at the challenge's size


@dataclass(frozen=True)
class Box:
    """A box in pixels at 1024²."""

    x: float
    y: float
    width: float
    height: float


@dataclass
class Reading:
    """What a reader says of one film."""

    positive: bool
    runs: str = rle.EMPTY  # of masks: run lengths at 1024²
    boxes: list[Box] = field(default_factory=list)  # of boxes


@dataclass
class Reader:
    """A reader's readings by image id, and what was left aside: cases by reason."""

    name: str
    kind: Truth
    readings: dict[str, Reading]
    left_aside: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class _Found:
    """A reader's readings by NIH name, and what is wrong with others: a message by name."""

    readings: dict[str, Reading] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    left_aside: dict[str, list[str]] = field(default_factory=dict)


def chestx_det(
    paths: Sequence[Path], nih_names: Mapping[str, str], on_error: OnError = OnError.stop
) -> Reader:
    """The polygons of ChestX-Det's files (JSON, plain or gzipped), filled with their outlines.

    ``nih_names`` leads from the challenge's image ids to NIH names. Raises PneumoError.
    """
    known = csv_files.read_names(NAMES)
    found = _Found()
    unknown: list[str] = []
    seen: dict[str, Path] = {}
    for path in paths:
        for film in _json(path):
            name, polygons, fault = _polygons(film, path)
            if name in seen:
                raise _twice("ChestX-Det", name, seen[name], path)
            seen[name] = path
            nih = known.get(name)
            if nih is None:
                unknown.append(name)
            elif fault:
                found.faults[nih] = f"{path}, {film['file_name']}: {fault}"
            else:
                # most films have none, and encoding an empty mask takes as long as any other
                runs = rle.encode(coco.filled(polygons)) if polygons else rle.EMPTY
                found.readings[nih] = Reading(bool(polygons), runs)
    if unknown:
        found.left_aside["films whose NIH name is not known"] = unknown
    return _joined("ChestX-Det", Truth.masks, paths, found, nih_names, on_error)


def nih_boxes(
    paths: Sequence[Path], nih_names: Mapping[str, str], on_error: OnError = OnError.stop
) -> Reader:
    """NIH's boxes, of the films that have one for pneumothorax. Raises PneumoError."""
    found = _Found()
    seen: dict[tuple[str, Box], Path] = {}
    for path in paths:
        for line, cells in csv_files.records(path):
            name = _nih_name(path, line, cells)
            # a table may hold this finding alone, and then need not say so
            if cells.get("finding label", FINDING) != FINDING:
                continue
            box, fault = _box(cells)
            if box is None:
                found.faults[name] = f"{path}, line {line} ({name}): {fault}"
                continue
            if (name, box) in seen:
                raise _twice("NIH boxes", name, seen[name, box], path)
            seen[name, box] = path
            found.readings.setdefault(name, Reading(True)).boxes.append(box)
    return _joined("NIH boxes", Truth.boxes, paths, found, nih_names, on_error)


def google_labels(
    paths: Sequence[Path], nih_names: Mapping[str, str], on_error: OnError = OnError.stop
) -> Reader:
    """Google's labels: YES and NO; anything else leaves the film unknown. Raises PneumoError."""
    found = _Found()
    seen: dict[str, Path] = {}
    column = FINDING.lower()
    for path in paths:
        for line, cells in csv_files.records(path):
            name = _nih_name(path, line, cells)
            if column not in cells:
                raise PneumoError(f"{path}, line {line}: no column {FINDING} (YES or NO)")
            if name in seen:
                raise _twice("Google", name, seen[name], path)
            seen[name] = path
            label = cells[column].upper()
            if label in ("YES", "NO"):
                found.readings[name] = Reading(label == "YES")
            else:
                reason = "films without YES or NO (unknown, so not negative)"
                found.left_aside.setdefault(reason, []).append(name)
    return _joined("Google", Truth.labels, paths, found, nih_names, on_error)


def _json(path: Path) -> list[dict[str, Any]]:
    """The films of one of ChestX-Det's files."""
    films = files.read_json(path)
    wanted = ("file_name", "syms", "polygons")
    if not isinstance(films, list) or not all(
        isinstance(film, dict) and all(key in film for key in wanted) for film in films
    ):
        raise PneumoError(f"{path}: expected a list of films with {', '.join(wanted)}")
    return films


def _polygons(film: dict[str, Any], path: Path) -> tuple[str, list[Polygon], str | None]:
    """A film's name, its polygons of pneumothorax, and what is wrong with them, if anything is."""
    name = image_id(str(film["file_name"]))
    if len(film["syms"]) != len(film["polygons"]):
        counts = f"{len(film['syms'])} findings, {len(film['polygons'])} polygons"
        return name, [], f"{counts}; there must be one for each"
    polygons: list[Polygon] = []
    for finding, points in zip(film["syms"], film["polygons"], strict=True):
        if finding != FINDING:
            continue
        try:
            polygons.append(coco.polygon(points, rle.SHAPE))
        except ValueError as error:
            return name, [], str(error)
    return name, polygons, None


def nih_box(cells: Mapping[str, str]) -> tuple[float, float, float, float]:
    """The box of a line of NIH's table: x, y, width and height, pixels at 1024².

    Its header ends in ``Bbox [x,y,w,h]``, which its commas cut into four names. Raises ValueError.
    """
    values = []
    for names in (("x", "bbox [x"), ("y",), ("w",), ("h", "h]")):
        text = next((cells[name] for name in names if name in cells), "")
        try:
            values.append(float(text))
        except ValueError:
            raise ValueError(
                f"expected a box x, y, w, h in pixels, got {text!r} for {names[0]}"
            ) from None
    x, y, width, height = values
    return x, y, width, height


def _box(cells: Mapping[str, str]) -> tuple[Box | None, str]:
    """The box of a line, or None and what is wrong."""
    try:
        x, y, width, height = nih_box(cells)
    except ValueError as error:
        return None, str(error)
    inside = x >= 0 and y >= 0 and x + width <= SIDE and y + height <= SIDE
    if not (inside and width > 0 and height > 0):
        box = f"{x:g}, {y:g}, {width:g}, {height:g}"
        return None, f"the box {box} is not inside the film of {SIDE}²"
    return Box(x, y, width, height), ""


def _nih_name(path: Path, line: int, cells: Mapping[str, str]) -> str:
    """The NIH name of a line."""
    for key in ("image index", "nih_name"):
        if cells.get(key):
            return image_id(cells[key])
    raise PneumoError(f"{path}, line {line}: no NIH file name (column Image Index or nih_name)")


def _twice(reader: str, name: str, first: Path, second: Path) -> PneumoError:
    where = f"{first}" if first == second else f"{first} and in {second}"
    return PneumoError(
        f"{reader}: the film {name} stands more than once, in {where}; are these two readers "
        "under one name? Give each film once"
    )


def _joined(
    reader: str,
    kind: Truth,
    paths: Sequence[Path],
    found: _Found,
    nih_names: Mapping[str, str],
    on_error: OnError,
) -> Reader:
    """Readings by the challenge's ids instead of NIH's names.

    Raises PneumoError where no film joins, and, unless ``on_error`` is skip, for films that join
    to several of the challenge's and for readings that are wrong.
    """
    names = ", ".join(map(str, paths))
    images: dict[str, list[str]] = {}
    for image, name in nih_names.items():
        images.setdefault(name, []).append(image)
    readings: dict[str, Reading] = {}
    elsewhere, several = [], []
    for name in _without_faults(found):
        to = images.get(name, [])
        if len(to) == 1:
            readings[to[0]] = found.readings[name]
        elif to:
            several.append(f"{name} to {' and '.join(to)}")
        else:
            elsewhere.append(name)
    left_aside = dict(found.left_aside)
    for reason, cases in (
        ("films whose reading is malformed", list(found.faults.values())),
        ("films that join to several of the challenge's", several),
    ):
        if cases and on_error is OnError.stop:
            raise PneumoError(
                f"{reader}: {len(cases)} {reason}, e.g. {cases[0]}; correct the table, or leave "
                "them out with on_error=skip"
            )
        if cases:
            left_aside[reason] = cases
    if elsewhere:
        left_aside["films that are not the challenge's"] = elsewhere
    if not readings:
        example = f" (names such as {elsewhere[0]})" if elsewhere else ""
        raise PneumoError(
            f"{reader}: none of the {len(elsewhere)} films of {names} joins to a film of the "
            f"challenge{example}; does patients= lead from image ids to NIH file names?"
        )
    return Reader(reader, kind, readings, left_aside)


def _without_faults(found: _Found) -> Iterator[str]:
    """Names of the films all of whose readings are right."""
    return (name for name in found.readings if name not in found.faults)
