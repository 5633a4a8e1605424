"""What a bundle finds on one film."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pneumo.data import dicom
from pneumo.data.dicom import Film
from pneumo.data.films import name_of
from pneumo.data.spacing import Entry, read_table
from pneumo.errors import PneumoError
from pneumo.inference.bundle import Bundle
from pneumo.inference.dicom_objects import NOTICE, Maker
from pneumo.inference.probability import Platt
from pneumo.inference.settings import Polarity, Spacings, Unsuitable, Use
from pneumo.masks import pictures
from pneumo.masks.histograms import film_score
from pneumo.masks.resize import enlarge
from pneumo.masks.rule import to_mask
from pneumo.masks.settings import Postprocess

RADIOGRAPHS = ("", "CR", "DX", "RG", "OT", "SC", "XC")  # modalities that may hold a film
WIDEST = 1024  # longest side of an overlay in pixels


@dataclass
class Reading:
    """A film as it was read: upright, with dark lungs, and notes on how that came about."""

    film: Film
    notes: list[str] = field(default_factory=list)
    # why a model of frontal chest films was not made for it, if it is judged all the same
    unsuitable: str = ""


@dataclass
class Finding:
    """What was found on one film. Arrays are over the upright film, uint8 (rows, columns)."""

    reading: Reading
    levels: np.ndarray  # probability in levels of 1/255
    mask: np.ndarray
    # the image-level score: the highest threshold at which the rule would still find something
    score: float
    probability: float  # what the model makes of the score: the score itself, if not calibrated
    presence: float | None = None  # what the networks say of the whole film, if they do

    @property
    def film(self) -> Film:
        """The film itself."""
        return self.reading.film

    @property
    def notes(self) -> list[str]:
        """How the film was read, and what could not be written of it."""
        return self.reading.notes

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return cv2.countNonZero(self.mask)

    @property
    def area_mm2(self) -> float | None:
        """Square millimetres of the mask, if a spacing is known and believed; see ``mm_plane``."""
        spacing = self.film.spacing
        return self.area * spacing.rows * spacing.columns if spacing else None

    @property
    def mm_plane(self) -> str:
        """Where these millimetres are true: in the patient, or at the detector, which magnifies.

        Empty without a spacing.
        """
        return self.film.spacing.plane.value if self.film.spacing else ""

    @property
    def mm_remark(self) -> str:
        """What a reader of the millimetres must know, or why there are none; empty if unknown."""
        if self.film.doubt:
            return f"No mm²: {self.film.doubt}."
        return f"mm²: {self.mm_plane}." if self.mm_plane else ""

    @property
    def image_side(self) -> str:
        """The side of the upright image that holds at least nine tenths of the mask, or both."""
        left, total = cv2.countNonZero(self.mask[:, : self.mask.shape[1] // 2]), self.area
        if not total:
            return ""
        if left >= 0.9 * total:
            return "left"
        if left <= 0.1 * total:
            return "right"
        return "both"

    @property
    def patient_side(self) -> str:
        """The patient's side, if the film is upright: the image's left is the patient's right."""
        return {"left": "right", "right": "left"}.get(self.image_side, self.image_side)

    @property
    def oriented(self) -> bool:
        """Whether the film's tags say which side is the patient's left."""
        return dicom.is_frontal(self.film) is True

    @property
    def side(self) -> str:
        """Where the mask is, in words; the image's side beside it where tags do not tell."""
        if not self.image_side:
            return ""
        whose = "both sides" if self.image_side == "both" else f"patient's {self.patient_side}"
        if self.oriented or self.image_side == "both":
            return whose
        return f"{whose} if upright as usual, image {self.image_side}"

    def maker(self, model: Bundle) -> Maker:
        """What DICOM objects of this finding say of their making."""
        return Maker(model.name, model.experience, self.reading.unsuitable)

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
        picture = pictures.heat(film, levels, mask)
        if self.reading.unsuitable:
            pictures.write(picture, f"NOT SUITABLE: {self.reading.unsuitable}", row=1)
        return picture

    def capture(self) -> np.ndarray:
        """The overlay with the notice that it is no diagnosis burnt in."""
        picture = self.overlay()
        pictures.write(picture, NOTICE)
        return picture


def read(
    name: str,
    content: bytes,
    use: Use,
    model: Bundle | None = None,
    spacings: Mapping[str, Entry] | None = None,
) -> Reading:
    """One film's bytes → the film, and notes on how it was read.

    Args:
        name: as the user gave it, for messages.
        content: a DICOM file, or a PNG or JPEG picture.
        use: what is accepted, and how it is read.
        model: what will judge the film; None: nothing is known of its training films.
        spacings: by film, used instead of the header's.

    Raises:
        FilmError: what is wrong with it; also a film that the model was not made for, unless
            ``use.unsuitable`` says that it is judged all the same.
    """
    film = dicom.read(Path(name), use.max_megapixels * 1_000_000, content, use.colour)
    modality = film.modality or ""
    if modality not in RADIOGRAPHS:
        allowed = ", ".join(filter(None, RADIOGRAPHS))
        raise dicom.FilmError(f"{name}: modality {modality}, not a radiograph ({allowed})")
    reading = Reading(film)
    if use.polarity is Polarity.auto and dicom.looks_inverted(film.pixels):
        film.pixels = 255 - film.pixels
        reading.notes.append(
            "inverted: its tags say otherwise, but the lungs were bright "
            "(polarity=tags keeps the tags' way)"
        )
    if dicom.is_turned(film.orientation):
        orientation = "\\".join(film.orientation or ())
        reading.notes.append(f"turned upright by its tags (PatientOrientation {orientation})")
    if dicom.is_frontal(film) is None and film.header is not None:
        reading.notes.append("orientation unknown, taken as upright")
    if entry := _entry(name, film, spacings or {}):
        film.spacing = dicom.upright_spacing(entry.at(film.stored_shape), film.orientation)
        film.doubt = ""
    if film.doubt:
        reading.notes.append(f"no mm²: {film.doubt} (spacing=<table> gives the true spacing)")
    reading.unsuitable = _unsuitable(film, model)
    if reading.unsuitable and use.unsuitable is Unsuitable.refuse:
        raise dicom.FilmError(
            f"{name}: {reading.unsuitable}; unsuitable=use judges it all the same, and marks it"
        )
    if reading.unsuitable:
        reading.notes.insert(0, f"NOT SUITABLE: {reading.unsuitable}")
    if model is not None and model.knows_phantoms_only and not dicom.is_phantom(film):
        reading.notes.append("the model was trained on drawn phantoms, not on X-rays")
    return reading


def spacings(settings: Spacings) -> dict[str, Entry]:
    """The table of spacings that the settings name, by film. Raises PneumoError."""
    if not settings.spacing:
        return {}
    names = Path(settings.spacing_names) if settings.spacing_names else None
    return read_table(Path(settings.spacing), names)


def _entry(name: str, film: Film, spacings: Mapping[str, Entry]) -> Entry | None:
    """What the table says of a film, under its file's name or its UID."""
    return spacings.get(name_of(Path(name))) or spacings.get(film.uid or "")


def _unsuitable(film: Film, model: Bundle | None) -> str:
    """Why a model of frontal chest films was not made for a film; empty if it may have been."""
    part = dicom.other_body_part(film)
    if part:
        return f"not a chest by its tags (BodyPartExamined {part})"
    if dicom.is_frontal(film) is False:
        return "not a frontal film by its tags"
    if model is not None and (unlike := model.unlike(film.pixels)):
        return unlike
    return ""


def find(reading: Reading, model: Bundle, rule: Postprocess, tta: bool | None = None) -> Finding:
    """What a bundle finds on one film."""
    return told(reading, model.says(reading.film.pixels, tta), model, rule)


def told(
    reading: Reading, said: tuple[np.ndarray, float | None], model: Bundle, rule: Postprocess
) -> Finding:
    """What a rule makes of what a bundle said of a film: its map and presence."""
    levels, presence = said
    shape = (reading.film.pixels.shape[0], reading.film.pixels.shape[1])
    return judged(reading, enlarge(levels, shape), rule, _curve(model, rule), presence)


def _curve(model: Bundle, rule: Postprocess) -> Platt:
    """The bundle's curve, if the rule's scores are of the kind that it was fitted on."""
    gates = [one.presence_threshold is not None for one in (rule, model.rule)]
    return model.curve if gates[0] == gates[1] else Platt()


def judged(
    reading: Reading,
    levels: np.ndarray,
    rule: Postprocess,
    curve: Platt | None = None,
    presence: float | None = None,
) -> Finding:
    """What a rule makes of a film's map, levels uint8 of the film's shape.

    ``curve`` makes the film's probability of its score; without one they are the same. Where the
    rule has a gate, the score is that of presence. Raises PneumoError for a gate without one.
    """
    if rule.presence_threshold is None:
        score = film_score(levels, rule)
    elif presence is None:
        raise PneumoError(
            f"postprocess.presence_threshold={rule.presence_threshold:g}: this model has no "
            "presence score, so it can have no gate"
        )
    else:
        score = presence
    probability = float((curve or Platt())(np.array(score)))
    mask = to_mask(levels, rule, presence)
    return Finding(reading, levels, mask, score, probability, presence)
