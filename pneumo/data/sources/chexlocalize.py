"""CheXlocalize → annotated films (Saporta et al. 2022, doi:10.1038/s42256-022-00536-x).

A JSON file tells of each film and finding either run lengths (COCO's, with ``size`` [H, W]), or
polygons on the film of ``img_size`` [H, W]. A file of run lengths has every finding of every film,
so that a film without one for pneumothorax is unknown. A file of polygons lists only what
radiologists drew, so that a film without one for pneumothorax shows none. Films that a file does
not name at all are unknown. ``patient64541_study1_view1_frontal`` is the film
``patient64541/study1/view1_frontal.jpg`` of CheXpert, at any size.
"""

import re
from pathlib import Path
from typing import Any

from pneumo import files
from pneumo.data import joining
from pneumo.data.csv_files import patient_in
from pneumo.data.films import Index, Item
from pneumo.data.settings import ChexlocalizeData
from pneumo.errors import PneumoError
from pneumo.masks import coco, rle

FINDING = "Pneumothorax"
UNKNOWN = "films without run lengths of pneumothorax (unknown, so not negative)"


def read_index(data: ChexlocalizeData) -> Index:
    """Join films and masks. Raises PneumoError."""
    data.check_places()
    assert data.annotations is not None
    told = files.read_json(Path(data.annotations))
    if not isinstance(told, dict) or not all(isinstance(film, dict) for film in told.values()):
        raise PneumoError(
            f"{data.annotations}: expected films by name, each with its findings (run lengths or "
            "polygons)"
        )
    unknown = [name for name, film in told.items() if FINDING not in film and not _is_drawn(film)]
    names = {_path_of(name): name for name in told if name not in set(unknown)}
    joined = joining.join(data, list(names), [_path_of(name) for name in unknown])
    items: list[Item] = []
    malformed: list[str] = []
    for path_name, path in joined.films.items():
        name = names[path_name]
        try:
            annotations, shape = _annotations(told[name], path)
        except ValueError as error:
            malformed.append(f"{name}: {error}")
            continue
        items.append(Item(name, path, annotations, patient_in(name), shape=shape))
    left_aside = {UNKNOWN: unknown} if unknown else {}
    joining.refuse(data, {"films whose mask is malformed": malformed}, left_aside)
    return Index(joining.with_patients(data, items), {**left_aside, **joined.left_aside})


def _is_drawn(film: dict[str, Any]) -> bool:
    """Whether a film's findings are polygons."""
    return "img_size" in film


def _path_of(name: str) -> str:
    """The path of a film in CheXpert, without suffix; other names as they are."""
    found = re.fullmatch(r"(patient\d+)_(study\d+)_(.+)", name)
    return "/".join(found.groups()) if found else name


def _annotations(film: dict[str, Any], path: Path) -> tuple[list[str], tuple[int, int]]:
    """A film's run lengths, and the shape that they count. Raises ValueError."""
    finding = film.get(FINDING, [])
    shape = size_of(film["img_size"] if _is_drawn(film) else finding, "img_size, size")
    fault = joining.shape_fault(path, shape)
    if fault:
        raise ValueError(fault)
    if _is_drawn(film):
        polygons = [coco.polygon(points, shape) for points in finding]
        text = rle.encode(coco.filled(polygons, shape)) if polygons else rle.EMPTY
    else:
        text = coco.from_counts(finding.get("counts"), shape)
    return [] if rle.is_empty(text) else [text], shape


def size_of(told: Any, keys: str) -> tuple[int, int]:
    """Rows and columns that a list, or the ``size`` of run lengths, states. Raises ValueError."""
    size = told.get("size") if isinstance(told, dict) else told
    if isinstance(size, list) and len(size) == 2:
        rows, columns = size
        if type(rows) is int and type(columns) is int and rows > 0 and columns > 0:
            return rows, columns
    raise ValueError(f"its size is not known ({keys} must be two whole numbers, [H, W])")
