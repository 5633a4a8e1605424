"""CANDID-PTX → annotated films (Feng et al., Radiology: AI 2021, doi:10.1148/ryai.2021210136).

Its films are DICOM files named by their UID, at 1024². ``Pneumothorax_reports.csv`` has a row for
each annotation: ``SOPInstanceUID``, ``filename``, whose part before the ``_`` is the patient, and
``EncodedPixels``, run lengths as the challenge's; ``-1`` says "no pneumothorax", and a blank says
nothing. ``chest_tube.csv`` lists the films with a chest tube (``anon_SOPUID``, ``mask_rle``): its
authors marked tubes on all films, so that a film it does not list has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pneumo.data import csv_files, joining
from pneumo.data.csv_files import image_id
from pneumo.data.films import Index, Item
from pneumo.data.settings import CandidData, MaskSize
from pneumo.data.sources.siim import mask_shape
from pneumo.errors import PneumoError
from pneumo.masks import rle

UNKNOWN = "films with a blank for their run lengths (unknown, so not negative)"
UIDS = ("sopinstanceuid", "anon_sopuid")


@dataclass
class _Film:
    """What the rows of one film say."""

    masks: list[str] = field(default_factory=list)
    blank: bool = False
    malformed: bool = False
    patients: set[str] = field(default_factory=set)


def read_index(data: CandidData) -> Index:
    """Join films, run lengths and tubes. Raises PneumoError."""
    data.check_places()
    assert data.annotations is not None
    table = Path(data.annotations)
    films, malformed = _read_table(table)
    tubes = _read_tubes(Path(data.tubes)) if data.tubes else None
    if tubes and not tubes.keys() & films.keys():
        raise PneumoError(
            f"{data.tubes}: names none of the {len(films):,} images of {table}, e.g. "
            f"{next(iter(tubes))}"
        )
    left_aside: dict[str, list[str]] = {}
    torn = [
        f"{image} of {' and '.join(sorted(film.patients))}"
        for image, film in films.items()
        if len(film.patients) > 1
    ]
    faults = {"rows that are malformed": malformed, "films of several patients": torn}
    joining.refuse(data, faults, left_aside)
    unknown = {image for image, film in films.items() if film.blank and not film.masks}
    if unknown:
        left_aside[UNKNOWN] = sorted(unknown)
    aside = unknown | {
        image for image, film in films.items() if len(film.patients) > 1 or film.malformed
    }
    joined = joining.join(data, [image for image in films if image not in aside], aside)
    items = [
        Item(
            image,
            path,
            films[image].masks,
            next(iter(films[image].patients), None),
            shape=mask_shape(path, MaskSize.challenge),
            tube=None if tubes is None else tubes.get(image, False),
        )
        for image, path in joined.films.items()
    ]
    return Index(joining.with_patients(data, items), {**left_aside, **joined.left_aside})


def _read_table(path: Path) -> tuple[dict[str, _Film], list[str]]:
    """The films of the table of run lengths, and its malformed rows."""
    if "encodedpixels" not in csv_files.columns(path):
        raise PneumoError(f"{path}: no column EncodedPixels (run lengths, -1 or blank)")
    films: dict[str, _Film] = {}
    malformed: list[str] = []
    for line, cells in csv_files.records(path):
        image = _uid(path, line, cells)
        text = cells.get("encodedpixels", "")
        film = films.setdefault(image, _Film())
        patient = cells.get("filename", "").partition("_")[0]
        if patient:
            film.patients.add(patient)
        try:
            rle.runs(text)
        except rle.RLEError as error:
            malformed.append(f"{path}, line {line} ({image}): {error}")
            film.malformed = True
            continue
        if not text:
            film.blank = True
        elif not rle.is_empty(text):
            film.masks.append(text)
    return films, malformed


def _read_tubes(path: Path) -> dict[str, bool | None]:
    """Whether the films of a table of tubes have one; a blank says nothing."""
    tubes: dict[str, bool | None] = {}
    for line, cells in csv_files.records(path):
        image = _uid(path, line, cells)
        text = cells.get("mask_rle", "0 1")
        told = None if not text else not rle.is_empty(text)
        tubes[image] = told if tubes.get(image) is None else tubes[image] or told
    return tubes


def _uid(path: Path, line: int, cells: Mapping[str, str]) -> str:
    for name in UIDS:
        if cells.get(name):
            return image_id(cells[name])
    raise PneumoError(f"{path}, line {line}: no UID (column SOPInstanceUID or anon_SOPUID)")
