"""What a bundle finds on one film."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pneumo.data import dicom
from pneumo.data.dicom import Film
from pneumo.inference.bundle import Bundle
from pneumo.inference.settings import Polarity
from pneumo.masks import pictures
from pneumo.masks.histograms import Histograms, histogram
from pneumo.masks.resize import enlarge
from pneumo.masks.rule import removal_pixels, to_mask
from pneumo.masks.settings import Postprocess, Removal

RADIOGRAPHS = ("", "CR", "DX", "RG", "OT", "SC", "XC")  # modalities that may hold a film
WIDEST = 1024  # longest side of an overlay in pixels


@dataclass
class Finding:
    """What was found on one film. Arrays are over the upright film, uint8 (rows, columns)."""

    film: Film
    levels: np.ndarray  # probability in levels of 1/255
    mask: np.ndarray
    # the image-level score: the highest threshold at which the rule would still find something
    probability: float
    notes: list[str] = field(default_factory=list)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def area_mm2(self) -> float | None:
        """Square millimetres of the mask, if the header gives a spacing.

        The spacing is that of the detector, on which the body is magnified.
        """
        spacing = self.film.spacing
        return self.area * spacing[0] * spacing[1] if spacing else None

    @property
    def side(self) -> str:
        """The side of the image that holds at least nine tenths of the mask, or both.

        On an upright frontal film the image's left is the patient's right.
        """
        columns = self.mask.sum(0, dtype=np.int64)
        left, total = int(columns[: len(columns) // 2].sum()), int(columns.sum())
        if not total:
            return ""
        if left >= 0.9 * total:
            return "left"
        if left <= 0.1 * total:
            return "right"
        return "both"

    @property
    def stored_mask(self) -> np.ndarray:
        """The mask over the pixels as the file stores them, uint8 of 0 and 1."""
        return dicom.stored(self.mask, self.film.orientation)

    def overlay(self) -> np.ndarray:
        """The film with probability heat and the mask's outline.

        RGB uint8, its longest side at most 1024 pixels.
        """
        rows, columns = self.film.pixels.shape
        factor = min(1.0, WIDEST / max(rows, columns))
        size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
        film = cv2.resize(self.film.pixels, size, interpolation=cv2.INTER_AREA)
        levels = cv2.resize(self.levels, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(self.mask, size, interpolation=cv2.INTER_NEAREST)
        return pictures.heat(film, levels, mask)


def read(
    name: str, content: bytes, polarity: Polarity, colour: bool, max_pixels: int
) -> tuple[Film, list[str]]:
    """One film's bytes → the film, and notes on how it was read.

    Raises FilmError.
    """
    film = dicom.read(Path(name), max_pixels, content, colour)
    modality = str(film.header.get("Modality", "") or "") if film.header is not None else ""
    if modality not in RADIOGRAPHS:
        allowed = ", ".join(filter(None, RADIOGRAPHS))
        raise dicom.FilmError(f"{name}: modality {modality}, not a radiograph ({allowed})")
    notes = []
    if polarity is Polarity.auto and dicom.looks_inverted(film.pixels):
        film.pixels = 255 - film.pixels
        notes.append(
            "inverted: its tags say otherwise, but the lungs were bright "
            "(polarity=tags keeps the tags' way)"
        )
    if dicom.is_turned(film.orientation):
        orientation = "\\".join(film.orientation or ())
        notes.append(f"turned upright by its tags (PatientOrientation {orientation})")
    frontal = dicom.is_frontal(film)
    if frontal is False:
        notes.append("NOT A FRONTAL FILM by its tags; models know frontal films only")
    elif frontal is None and film.header is not None:
        notes.append("orientation unknown, taken as upright")
    return film, notes


def find(film: Film, model: Bundle, rule: Postprocess, tta: bool | None = None) -> Finding:
    """What a bundle finds on one film."""
    rows, columns = film.pixels.shape
    return judged(film, enlarge(model.levels(film.pixels, tta), (rows, columns)), rule)


def judged(film: Film, levels: np.ndarray, rule: Postprocess) -> Finding:
    """What a rule makes of a film's map, levels uint8 of the film's shape."""
    mask = to_mask(levels, rule)
    return Finding(film, levels, mask, _highest(levels, rule))


def _highest(levels: np.ndarray, rule: Postprocess) -> float:
    """The highest probability that enough pixels reach.

    Enough is the removal threshold, at least one pixel, counted in all or in one component as the
    rule says.
    """
    least = max(1.0, removal_pixels(rule, (levels.shape[0], levels.shape[1])))
    if rule.removal is Removal.total:
        total, inside = histogram(levels, np.zeros_like(levels))
        return float(Histograms(total[None], inside[None]).score(least)[0])
    # the largest component shrinks as the level rises, so that bisection finds the highest level
    low, high = 0, 256
    while high - low > 1:
        middle = (low + high) // 2
        _, _, stats, _ = cv2.connectedComponentsWithStats(
            (levels >= middle).astype(np.uint8), connectivity=8
        )
        largest = stats[1:, cv2.CC_STAT_AREA].max(initial=0)  # row 0 is the background
        if largest >= least:
            low = middle
        else:
            high = middle
    return low / 255
