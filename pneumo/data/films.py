"""Films on disk: which files they are, what one annotated film is, and an index of many."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pneumo.data import dicom
from pneumo.errors import PneumoError
from pneumo.masks import rle
from pneumo.masks.truth import Truth, least

# what is known of films, for people
KNOWN = {
    Truth.masks: "masks",
    Truth.boxes: "boxes alone",
    Truth.labels: "labels of whole films alone",
}
# patients whom several sets know by the same name: NIH's (30,805 of them) and CheXpert's
SHARED_PATIENT = re.compile(r"000[0-3]\d{4}|patient\d{5}")
FILMS = (".dcm", ".dicom", *dicom.IMAGES)


@dataclass
class Item:
    """One annotated film on disk.

    ``annotations`` are the regions that ``masks.truth`` tells of: run lengths, none for a negative.
    ``shape`` (rows, columns) is that of the image whose pixels they count; None: the film's own, as
    stored.
    """

    id: str
    path: Path
    annotations: list[str]
    patient: str | None = None
    site: str | None = None
    shape: tuple[int, int] | None = None
    truth: Truth = Truth.masks
    tube: bool | None = None  # whether a chest tube is seen, where that is known

    @property
    def positive(self) -> bool:
        """Whether the film shows pneumothorax."""
        return bool(self.annotations)

    def mask(self, stored: tuple[int, int]) -> np.ndarray:
        """The union of its annotations, uint8 of 0 and 1; ``stored`` is the film's own shape.

        Raises PneumoError if a run does not fit.
        """
        return read_mask(self.path, self.annotations, self.shape or stored)


def read_mask(film: Path, annotations: list[str], shape: tuple[int, int]) -> np.ndarray:
    """The union of a film's run lengths, uint8 of 0 and 1, (rows, columns).

    Raises PneumoError, with the film and the size, if a run does not fit.
    """
    try:
        return rle.union(annotations, shape)
    except rle.RLEError as error:
        hint = ""
        if shape == rle.SHAPE and film.suffix.lower() in dicom.IMAGES:
            hint = "; if they count this picture's own pixels, say data.mask_size=film"
        raise PneumoError(
            f"{film}: its run lengths do not fit {shape[0]} × {shape[1]} pixels: {error}{hint}"
        ) from None


@dataclass
class Index:
    """What a data set holds, and what was left aside and why (reason → cases)."""

    items: list[Item]
    left_aside: dict[str, list[str]] = field(default_factory=dict)
    set_of: dict[str, str] = field(default_factory=dict)  # by id, where there are several sets

    def counts(self) -> list[tuple[str, int]]:
        """What a user checks first: how many films, positives and patients."""
        counts = [
            ("films on disk", len(self.items)),
            ("of them positive", sum(item.positive for item in self.items)),
        ]
        patients = {item.patient for item in self.items if item.patient}
        if patients:
            counts.append(("patients on disk", len(patients)))
        sites = {item.site for item in self.items if item.site}
        if sites:
            counts.append(("sites", len(sites)))
        tubes = [item.tube for item in self.items if item.tube is not None]
        if tubes:
            counts.append((f"with a chest tube, of {len(tubes):,} where it is known", sum(tubes)))
        return counts

    def describe(self, cases: int = 5) -> str:
        """The counts, and what was left aside with the reason.

        Of each reason ``cases`` are shown, or all if ``cases`` is 0.
        """
        counts = self.counts()
        width = max(len(f"{number:,}") for _, number in counts)
        lines = [f"{number:>{width},}  {name}" for name, number in counts]
        truth = least(item.truth for item in self.items)
        if truth is not Truth.masks:
            lines.append(f"Known of them: {KNOWN[truth]}")
        for reason, left_aside in self.left_aside.items():
            lines.append(f"\nLeft aside, {reason}: {len(left_aside):,}")
            shown = left_aside[:cases] if cases else left_aside
            lines += [f"  {case}" for case in shown]
            hidden = len(left_aside) - len(shown)
            if hidden:
                lines.append(f"  … and {hidden:,} more (all with verbose=true)")
        return "\n".join(lines)


def read_folder(root: Path) -> list[Item]:
    """The films of a folder without a table, each under its file name.

    Raises PneumoError for none, or for a name met twice.
    """
    items: dict[str, Item] = {}
    for path in find_films(root):
        image = name_of(path)
        if image in items:
            raise PneumoError(
                f"{path}: has the same name as {items[image].path}, "
                "so their masks could not be told apart"
            )
        items[image] = Item(image, path, [])
    return list(items.values())


def name_of(path: Path) -> str:
    """A film's file name without its suffix; what follows the last dot of a UID is no suffix."""
    return path.stem if path.suffix.lower() in FILMS else path.name


def find_films(root: Path) -> list[Path]:
    """All films below a folder, sorted."""
    if not root.is_dir():
        raise PneumoError(f"{root}: no such folder (data.root)")
    films = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and (path.suffix.lower() in FILMS or dicom.is_marked(path))
    )
    if not films:
        raise PneumoError(
            f"{root}: no films in it (looked for {', '.join(FILMS)} in all folders below)"
        )
    return films


def across_sets(patient: str, name: str) -> str:
    """A patient as no other set's may be called: with the name of the set, unless sets share it."""
    if SHARED_PATIENT.fullmatch(patient) or ": " in patient:  # it has a set's name already
        return patient
    return f"{name}: {patient}"


def patients_from_films(items: Iterable[Item]) -> dict[str, str]:
    """PatientID of DICOM films by image id, if it tells patients apart; else nothing.

    The challenge's files have an id of their own each, which says nothing of patients.
    """
    ids = {}
    for item in items:
        if item.path.suffix.lower() not in dicom.IMAGES:
            try:
                ids[item.id] = str(dicom.read_header(item.path).get("PatientID", ""))
            except dicom.FilmError:
                continue  # decoding will say so
    counts = Counter(filter(None, ids.values()))
    most = max(counts.values(), default=0)
    repeats = most > 1
    # a placeholder such as ANON stands in nearly all films, and at most one other id beside it
    not_one_placeholder = most <= len(ids) / 2 or len(counts) > 2
    if not (repeats and not_one_placeholder):
        return {}
    return {image: patient for image, patient in ids.items() if patient}
