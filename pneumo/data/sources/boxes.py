"""Boxes around findings → annotated films. The layout is known by the file's columns or keys.

- VinDr-CXR (``annotations_train.csv``, Nguyen et al., arXiv:2012.15029): ``image_id, rad_id,
  class_name, x_min, y_min, x_max, y_max`` in the film's own pixels, or those of ``width`` and
  ``height`` where the table has them. Several readers looked at each film, and each has a row of
  it, if only "No finding": a film without a box of pneumothorax shows none by that reader.
- NIH (``BBox_List_2017.csv``, Wang et al., CVPR 2017): ``Image Index, Finding Label,
  Bbox [x,y,w,h]`` in pixels at 1024². It lists only films with a box, so that all others are
  unknown, unless a table of labels (``data.labels``) says no.
- PadChest-GR (``grounded_reports_*.json``, Castro et al., arXiv:2411.05085): of each film
  ``ImageID`` and ``findings`` with ``labels`` and ``boxes``, [x_min, y_min, x_max, y_max] as shares
  of the film; the second reader's ``extra_boxes`` are not read. Every sentence was labelled, so
  that a film without pneumothorax shows none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pneumo import files
from pneumo.data import csv_files, dicom, joining
from pneumo.data.csv_files import image_id, patient_in
from pneumo.data.films import Index, Item
from pneumo.data.settings import BoxesData
from pneumo.data.sources import labels
from pneumo.data.sources.labels import agreed
from pneumo.data.sources.readers import nih_box
from pneumo.errors import PneumoError
from pneumo.masks import rle
from pneumo.masks.truth import Truth, of_box

FINDING = "pneumothorax"
VINDR = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
ROUNDED = 0.5  # pixels by which a box may reach beyond its film's edge and be cut there
OF_OTHERS = "films with boxes of other findings alone (unknown, so not negative)"
WITHOUT_BOX = "films with pneumothorax but no box of it"
CONTRARY = "films with a box whose label says no"
Edges = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max


@dataclass
class _Film:
    """What is told of one film: boxes, none of a negative."""

    boxes: list[Edges] = field(default_factory=list)
    shape: tuple[int, int] | None = None  # whose pixels they count; None: the film's own
    are_shares: bool = False  # of the film's sides, instead of pixels


@dataclass
class _Told:
    """The films of a file, and what was left aside or is wrong: cases by reason."""

    films: dict[str, _Film] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    malformed: dict[str, str] = field(default_factory=dict)  # a message by image id

    def leave(self, reason: str, image: str) -> None:
        """Leave an image aside."""
        self.unknown.setdefault(reason, []).append(image)


def read_index(data: BoxesData) -> Index:
    """Join films and boxes. Raises PneumoError."""
    data.check_places()
    assert data.annotations is not None
    path = Path(data.annotations)
    if path.name.lower().endswith((".json", ".json.gz")):
        told = _padchest(path)
    elif set(VINDR) <= set(csv_files.columns(path)):
        told = _vindr(path, data)
    else:
        told = _nih(path, data)
    unknown = [image for images in told.unknown.values() for image in images]
    aside = {*unknown, *told.malformed}
    known = [image for image in told.films if image not in aside]
    left_aside = dict(told.unknown)
    faults = {"films whose box is malformed": list(told.malformed.values())}
    joining.refuse(data, faults, left_aside)
    joined = joining.join(data, known, sorted(aside))
    items: list[Item] = []
    outside: list[str] = []
    for image, place in joined.films.items():
        film = told.films[image]
        try:
            annotations, shape = _annotations(film, place)
        except ValueError as error:
            outside.append(f"{image}: {error}")
            continue
        items.append(
            Item(image, place, annotations, patient_in(image), shape=shape, truth=Truth.boxes)
        )
    joining.refuse(data, {"films whose box is outside of them": outside}, left_aside)
    return Index(joining.with_patients(data, items), {**left_aside, **joined.left_aside})


def _annotations(film: _Film, path: Path) -> tuple[list[str], tuple[int, int] | None]:
    """Run lengths of a film's boxes, and the shape that they count. Raises ValueError."""
    if not film.boxes:
        return [], film.shape
    shape = film.shape or dicom.read_tags(path).stored_shape
    rows, columns = shape
    if film.shape:
        fault = joining.shape_fault(path, shape) if shape != rle.SHAPE else None
        if fault:
            raise ValueError(fault)
    texts = []
    for box in film.boxes:
        across, down = (columns, rows) if film.are_shares else (1, 1)
        left, right = (_cut(x * across, columns) for x in (box[0], box[2]))
        top, bottom = (_cut(y * down, rows) for y in (box[1], box[3]))
        texts.append(of_box((left, top, right - left, bottom - top), shape))
    return texts, shape


def _cut(value: float, side: int) -> float:
    """A coordinate, at the film's edge if rounding has put it a little beyond."""
    if -ROUNDED <= value < 0:
        return 0.0
    return float(side) if side < value <= side + ROUNDED else value


# --- VinDr-CXR ------------------------------------------------------------------------------------


def _vindr(path: Path, data: BoxesData) -> _Told:
    told = _Told()
    readers: dict[str, dict[str, list[Edges]]] = {}  # boxes by reader by film
    for line, cells in csv_files.records(path):
        image = image_id(cells["image_id"])
        boxes = readers.setdefault(image, {}).setdefault(cells.get("rad_id", ""), [])
        film = told.films.setdefault(image, _Film(shape=_stated_shape(cells)))
        if cells["class_name"].lower() != FINDING:
            continue
        try:
            boxes.append(_edges([cells.get(key, "") for key in VINDR[2:]]))
        except ValueError as error:
            told.malformed[image] = f"{path}, line {line} ({image}): {error}"
    for image, film in told.films.items():
        votes = [bool(boxes) for boxes in readers[image].values()]
        decided = agreed(votes, data.readers)
        if decided is None:
            told.leave(labels.UNDECIDED, image)
        elif decided:
            film.boxes = [box for boxes in readers[image].values() for box in boxes]
    return told


def _stated_shape(cells: Mapping[str, str]) -> tuple[int, int] | None:
    """Rows and columns of the image whose pixels are counted, where the table has them."""
    for rows, columns in (("height", "width"), ("image_height", "image_width")):
        sides = cells.get(rows, ""), cells.get(columns, "")
        if all(re.fullmatch(r"[1-9]\d*(\.0+)?", side) for side in sides):
            return int(float(sides[0])), int(float(sides[1]))
        if any(sides):
            raise PneumoError(
                f"{cells['image_id']}: {rows} {sides[0] or 'blank'}, {columns} "
                f"{sides[1] or 'blank'}; expected the sides of the film in pixels"
            )
    return None


def _edges(values: list[Any]) -> Edges:
    """Four edges of a box. Raises ValueError."""
    try:
        x_min, y_min, x_max, y_max = map(float, values)
    except (TypeError, ValueError):
        shown = ", ".join(map(str, values))
        raise ValueError(f"expected a box x_min, y_min, x_max, y_max, got {shown!r}") from None
    return x_min, y_min, x_max, y_max


# --- NIH ------------------------------------------------------------------------------------------


def _nih(path: Path, data: BoxesData) -> _Told:
    names = csv_files.columns(path)
    if not {"image index", "nih_name"} & set(names) or not ({"y"} & set(names)):
        raise PneumoError(
            f"{path}: columns {', '.join(names)}; expected those of VinDr-CXR "
            f"({', '.join(VINDR)}) or of NIH (Image Index, Finding Label, Bbox [x,y,w,h])"
        )
    told = _Told()
    others: dict[str, None] = {}
    for line, cells in csv_files.records(path):
        image = image_id(cells.get("image index") or cells.get("nih_name", ""))
        # a table may hold this finding alone, and then need not say so
        if cells.get("finding label", FINDING).lower() != FINDING:
            others[image] = None
            continue
        film = told.films.setdefault(image, _Film(shape=rle.SHAPE))
        try:
            film.boxes.append(_nih_box(cells))
        except ValueError as error:
            told.malformed[image] = f"{path}, line {line} ({image}): {error}"
    labelled = labels.Labels({})
    if data.labels:
        labelled = labels.read(Path(data.labels), data.column, data.readers)
    for image in others:
        if image not in told.films and image not in labelled.positive:
            told.leave(OF_OTHERS, image)
    for image, positive in labelled.positive.items():
        if not positive and image in told.films:
            told.leave(CONTRARY, image)
        elif positive and image not in told.films:
            told.leave(WITHOUT_BOX, image)
        elif not positive:
            told.films[image] = _Film(shape=rle.SHAPE)
    return told


def _nih_box(cells: Mapping[str, str]) -> Edges:
    """The box of a line. Raises ValueError."""
    x, y, width, height = nih_box(cells)
    return x, y, x + width, y + height


# --- PadChest-GR ----------------------------------------------------------------------------------


def _padchest(path: Path) -> _Told:
    studies = files.read_json(path)
    if not isinstance(studies, list) or not all(
        isinstance(study, dict)
        and study.get("ImageID")
        and isinstance(study.get("findings", []), list)
        for study in studies
    ):
        raise PneumoError(f"{path}: expected a list of films with ImageID and findings")
    told = _Told()
    for study in studies:
        image = image_id(str(study["ImageID"]))
        film = told.films.setdefault(image, _Film(are_shares=True))
        found = [finding for finding in study.get("findings", []) if _is_pneumothorax(finding)]
        try:
            film.boxes += [_edges(box) for finding in found for box in finding.get("boxes") or []]
        except ValueError as error:
            told.malformed[image] = f"{path} ({image}): {error}"
        if found and not film.boxes:
            told.leave(WITHOUT_BOX, image)
    return told


def _is_pneumothorax(finding: dict[str, Any]) -> bool:
    """Whether a sentence says so; hydropneumothorax, air beside fluid, is one too."""
    names = [str(name).strip().lower() for name in finding.get("labels") or []]
    return finding.get("abnormal", True) is not False and any(
        name.endswith(FINDING) for name in names
    )
