"""Ids of a table ↔ films on disk, for data sets that are a folder of films and one file of truth.

What is wrong is said in one line, with counts and an example; what is unknown is left aside.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pneumo.data import csv_files, dicom
from pneumo.data.films import Item, find_films, name_of
from pneumo.data.settings import Data, OnError, TableData
from pneumo.errors import PneumoError

MISSING = 0.05  # share of a table's images that may be missing unasked
UNANNOTATED = "films without a row in the table (not annotated, so not negative)"
ABSENT = "images of the table that are not on disk"
TOLERANCE = 0.02  # by which the ratio of sides of a film and of its truth may differ
Name = tuple[str, ...]  # the parts of a path


@dataclass
class Joined:
    """The film of each id, and what was left aside: cases by reason."""

    films: dict[str, Path]
    left_aside: dict[str, list[str]] = field(default_factory=dict)


def join(data: TableData, ids: Collection[str], aside: Collection[str] = ()) -> Joined:
    """Find the film of each id of a table; ``aside`` are ids whose rows are left aside already.

    An id is a film's file name, the end of its path below the folder, a longer path that ends with
    it, or its SOPInstanceUID. Raises PneumoError where none joins, or too many are missing, or an
    id names several films, unless ``data`` lets them be skipped.
    """
    assert data.root is not None
    root, table = Path(data.root), data.annotations
    paths = find_films(root)
    if not ids:
        raise PneumoError(f"{table}: tells of no film whether it shows pneumothorax")
    every = _matches(root, paths, [*ids, *aside])
    found = {image: every[image] for image in ids}
    joined = Joined({image: matches[0] for image, matches in found.items() if len(matches) == 1})
    missing = [image for image, matches in found.items() if not matches]
    if len(missing) == len(found):
        raise PneumoError(
            f"{root}: none of its {len(paths):,} films is in {table} (films such as "
            f"{paths[0].relative_to(root)}, ids such as {missing[0]}); is this the right table for "
            "this folder?"
        )
    several = [
        f"{image} names {' and '.join(str(path.relative_to(root)) for path in matches[:2])}"
        for image, matches in found.items()
        if len(matches) > 1
    ]
    refuse(data, {"ids that join to several films": several}, joined.left_aside)
    check_missing(data, missing, len(found))
    if missing:
        joined.left_aside[ABSENT] = missing
    _check_apart(data, joined)
    taken = {path for matches in every.values() for path in matches}
    unannotated = [str(path) for path in paths if path not in taken]
    if unannotated:
        joined.left_aside[UNANNOTATED] = unannotated
    return joined


def _matches(root: Path, paths: Collection[Path], ids: Iterable[str]) -> dict[str, list[Path]]:
    """The films that each id may name."""
    by_end: dict[Name, list[Path]] = {}
    whole: dict[Name, list[Path]] = {}
    for path in paths:
        name = (*path.relative_to(root).parts[:-1], name_of(path))
        whole.setdefault(name, []).append(path)
        for start in range(len(name)):
            by_end.setdefault(name[start:], []).append(path)
    found: dict[str, list[Path]] = {}
    for image in ids:
        name = tuple(image.split("/"))
        longer = (whole[name[start:]] for start in range(1, len(name)) if name[start:] in whole)
        found[image] = by_end.get(name) or next(longer, [])
    _by_uid(found, paths)
    return found


def _by_uid(found: dict[str, list[Path]], paths: Iterable[Path]) -> None:
    """Find films whose names say nothing by the UID in their headers."""
    if all(found.values()):
        return
    taken = {path for matches in found.values() for path in matches}
    for path in paths:
        if path in taken or dicom.is_picture(path):
            continue
        try:
            uid = str(dicom.read_header(path).get("SOPInstanceUID", ""))
        except dicom.FilmError:
            continue  # it stays without a row
        if uid in found:
            found[uid].append(path)


def _check_apart(data: TableData, joined: Joined) -> None:
    """Two ids of one film would give it two truths."""
    ids: dict[Path, list[str]] = {}
    for image, path in joined.films.items():
        ids.setdefault(path, []).append(image)
    shared = [names for names in ids.values() if len(names) > 1]
    cases = [f"{joined.films[names[0]]} is {' and '.join(names[:2])}" for names in shared]
    refuse(data, {"films that several ids join to": cases}, joined.left_aside)
    for names in shared:
        for image in names:
            del joined.films[image]


def check_missing(data: TableData, missing: Collection[str], count: int) -> None:
    """Raise PneumoError if more of a table's images are not on disk than may be unasked."""
    if len(missing) > MISSING * count and data.on_missing is OnError.stop:
        raise PneumoError(
            f"{data.root}: {len(missing):,} of the {count:,} images of {data.annotations} are not "
            f"there, e.g. {next(iter(missing))}; to go on with the {count - len(missing):,} that "
            "are: data.on_missing=skip"
        )


def refuse(
    data: TableData, faults: Mapping[str, list[str]], left_aside: dict[str, list[str]]
) -> None:
    """Raise PneumoError for the first kind of fault that has cases; or leave them aside.

    Args:
        data: its ``on_error`` decides.
        faults: cases by reason.
        left_aside: where they are noted if they are skipped.
    """
    for reason, cases in faults.items():
        if not cases:
            continue
        if data.on_error is OnError.stop:
            raise PneumoError(
                f"{data.annotations}: {len(cases):,} {reason}, e.g. {cases[0]}; correct them, or "
                "leave them out with data.on_error=skip"
            )
        left_aside[reason] = cases


def with_patients(data: Data, items: Iterable[Item]) -> list[Item]:
    """The films with the patients and sites of ``data.patients``, before those they have already.

    Raises PneumoError if it names none of them.
    """
    kept = list(items)
    if not data.patients:
        return kept
    patients = csv_files.read_patients(Path(data.patients))
    sites = csv_files.read_sites(Path(data.patients))
    for told in (patients, sites):  # ids that are paths are written with dashes
        told |= {image.replace("/", "-"): value for image, value in told.items()}
    if kept and not any(item.id in patients for item in kept):
        raise PneumoError(
            f"{data.patients}: names none of the images; its first column must hold their ids"
        )
    return [
        replace(
            item,
            patient=patients.get(item.id, item.patient),
            site=sites.get(item.id, item.site),
        )
        for item in kept
    ]


def shape_fault(film: Path, shape: tuple[int, int]) -> str | None:
    """Why the stated size of a truth (rows, columns) cannot be that of its film, if it cannot."""
    rows, columns = dicom.read_tags(film).stored_shape
    ratio = (shape[1] / shape[0]) / (columns / rows)
    if abs(ratio - 1) <= TOLERANCE:
        return None
    swapped = abs((shape[0] / shape[1]) / (columns / rows) - 1) <= TOLERANCE
    hint = "; are rows and columns exchanged?" if swapped else ""
    return f"{shape[0]} rows of {shape[1]} columns do not fit {film} of {rows} × {columns}{hint}"
