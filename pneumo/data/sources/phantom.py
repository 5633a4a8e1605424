"""Synthetic chest films with pneumothorax, in the challenge's own layout.

That layout is JPEG-baseline DICOM files and a table of run lengths.

A film is drawn as a sum of attenuations (soft tissue, lungs, mediastinum, bones, vessels, devices)
that a film curve turns into grey levels. Pneumothorax is drawn as radiologists describe it: a
crescent along the chest wall without vessels, a little darker than lung, bounded by the thin
bright line of the visceral pleura. Areas, components and places follow the statistics of the
challenge's training table (README, "Phantoms"). Every film depends on the seed, its number and
what ``plan`` gives it, not on the number of workers. Patients have several films with the same
anatomy. A film of either difficulty has the same anatomy, lesions, id and patient: only what is
seen of the lesions differs, and what else the film holds that may be taken for them.
"""

import csv
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage, generate_uid

from pneumo import files, pool, runs
from pneumo.data import dicom
from pneumo.data.settings import Difficulty, PhantomData, SiimData
from pneumo.errors import PneumoError, brief
from pneumo.masks import rle

SIZE = 1024  # films are square, as the challenge's
COARSE = 256  # smooth structures are drawn at this size and enlarged
FILMS, TABLE, PATIENTS = "dicom-images-train", "train-rle.csv", "patients.csv"
CONTENTS = "contents.csv"
# The version of the drawing: whoever changes what is drawn must raise it. The tests hold the digest
# of some films, so that a change does not go unnoticed. Version 2 draws the pixels of version 1 and
# gives their headers a spacing that can be believed.
VERSION = 2
SAME_PIXELS = (1, 2)
# Older data sets name the digest of the source that drew them instead of a version. This one drew
# the films of version 1.
UNVERSIONED = "6e023e4bfe3f6b7cbde6236f10f860264aaa2f77073c51d242a582e729f8e581"
# Those of the challenge's films at 1024² that are met most often, in mm: NIH's spacing × the width
# of its original / 1024. Films are then 344 to 428 mm wide.
SPACINGS = (0.336, 0.4102, 0.4148, 0.4178)
MANIFEST, JOURNAL = "phantom.json", "journal.jsonl"
# Mean and standard deviation of log10 of a film's total area in pixels at 1024², measured on the
# 2,669 positive films of the challenge's table.
LOG10_AREA = (3.924, 0.472)
AREA_RANGE = (120, 160_000)
# Attenuation → grey level, as two rows of the same length. Air is black at once, lungs lie in the
# flat middle, abdomen and mediastinum on the shoulder.
FILM_CURVE = ((-0.3, 0.0, 0.10, 0.25, 0.75, 1.0, 1.25, 1.7), (2, 6, 55, 84, 152, 206, 224, 234))
COMPONENTS = ((1, 0.69), (2, 0.20), (3, 0.07), (4, 0.04))  # how many a film has, and how often
TUBE, FOLD, CLOTHING, BULLA = HOLDINGS = ("chest_tube", "skin_fold", "clothing_line", "bulla")


@dataclass(frozen=True)
class Look:
    """What a difficulty changes in the drawing. Attenuations as in ``_expose``."""

    air: tuple[float, float, float, float]  # taken away by a lesion: mean, std, lowest, highest
    line: tuple[float, float]  # of the visceral pleura, from … to
    behind: tuple[float, float]  # share of the lung's vessels that is seen through a lesion
    tube: tuple[float, float]  # how often a side has a drain: with pneumothorax, without
    exposure: tuple[float, float]  # added to all attenuations: mean, std
    lookalikes: dict[str, tuple[float, float]]  # how often a film has one: view AP, view PA


# Lesions of hard films: fitted to those of real ones (README, "Phantoms"). Bullae: of ChestX-Det's
# 3,389 films without pneumothorax, radiologists saw emphysema on 164 (Lian et al. 2021). Other
# rates are assumed, no table of the challenge's films having them: tubes on .35 of films with
# pneumothorax and .02 of those without; folds and clothing commoner where patients lie.
LOOKS = {
    Difficulty.easy: Look(
        air=(0.23, 0.03, 0.15, 0.30),
        line=(0.10, 0.16),
        behind=(0.0, 0.0),
        tube=(0.18, 0.05),
        exposure=(0.0, 0.05),
        lookalikes={},
    ),
    Difficulty.hard: Look(
        air=(0.068, 0.080, 0.0, 0.25),
        line=(0.03, 0.11),
        behind=(0.2, 0.8),
        tube=(0.194, 0.010),
        exposure=(-0.04, 0.12),
        lookalikes={FOLD: (0.20, 0.04), CLOTHING: (0.20, 0.08), BULLA: (0.05, 0.05)},
    ),
}


@dataclass
class Film:
    """One drawn film, the masks of its annotations, and what its DICOM header says."""

    image: np.ndarray  # uint8 (1024, 1024)
    annotations: list[np.ndarray]  # uint8 of 0 and 1, each of the image's shape; may overlap
    view: str
    sex: str
    age: int
    spacing: float  # mm at the detector
    holds: list[str]  # of HOLDINGS, those that the film shows


@dataclass
class Side:
    """One lung as the film shows it. Coordinates in pixels at 1024², (n, 2) arrays of x, y."""

    # closed: the costal boundary from the medial apex outwards and down, then the diaphragm, then
    # the mediastinum
    outline: np.ndarray
    costal: np.ndarray  # the part of the outline along ribs and apex, 200 points evenly spaced
    hilum: np.ndarray
    outward: int  # -1 for the lung on the image's left, +1 on its right
    # visceral pleural lines of this film's pneumothoraces
    pleura: list[np.ndarray] = field(default_factory=list)


def draw(
    seed: int, patient: int, film: int, positive: bool, difficulty: Difficulty = Difficulty.easy
) -> Film:
    """Draw film number ``film`` of ``patient``.

    The same arguments give the same film on every machine of one kind.
    """
    anatomy = np.random.default_rng([seed, 1, patient])
    rng = np.random.default_rng([seed, 2, film])
    body = _Body(anatomy, rng)
    lesions = _pneumothorax(body, anatomy, rng) if positive else []
    # what hard films have of their own is drawn from a generator of its own, so that easy films
    # stay as they are
    image = _expose(body, lesions, LOOKS[difficulty], rng, np.random.default_rng([seed, 3, film]))
    annotations = _annotate(lesions, rng)
    return Film(image, annotations, body.view, body.sex, body.age, body.spacing, sorted(body.holds))


class _Body:
    """The geometry of one film.

    The generator ``anatomy`` draws what all films of a patient share, ``rng`` how the patient was
    positioned and had inhaled for this film. What is drawn that may be taken for pneumothorax is
    noted in ``holds``.
    """

    def __init__(self, anatomy: np.random.Generator, rng: np.random.Generator):
        self.sex = "M" if anatomy.random() < 0.56 else "F"
        self.age = int(np.clip(anatomy.normal(47, 17), 1, 95))
        self.spacing = float(anatomy.choice(SPACINGS))
        width, height = anatomy.normal(1, 0.07), anatomy.normal(1, 0.07)
        self.heart = anatomy.normal(1, 0.12)
        self.fat = anatomy.uniform(0, 1)
        self.rib_slope = anatomy.normal(1, 0.15)
        shape = anatomy.normal(0, 1, 6)

        self.view = "AP" if rng.random() < 0.4 else "PA"
        inspiration = rng.normal(1.0 if self.view == "PA" else 0.9, 0.06)
        self.centre = 512 + rng.normal(0, 18)
        self.top = 95 + rng.normal(0, 28)
        # half the thorax's inner width at the base
        self.half = np.clip(385 * width + rng.normal(0, 12), 290, 460)
        self.height = np.clip(735 * height * inspiration, 500, 850)
        self.tilt = rng.normal(0, 1.8)
        self.sides = [self._lung(-1, shape), self._lung(+1, shape)]
        self.holds: set[str] = set()

    def _lung(self, outward: int, shape: np.ndarray) -> Side:
        c, t, w, h = self.centre, self.top, self.half, self.height
        s = 1 + 0.03 * shape[0] * outward
        # the right hemidiaphragm (on the image's left) stands higher
        raised = 0.045 if outward < 0 else 0.0
        base = h * (1.0 - raised)
        costal = _spline(
            [
                (0.17, 0.13),
                (0.26, 0.025),
                (0.42, 0.0),
                (0.60, 0.075),
                (0.76 + 0.015 * shape[1], 0.22),
                (0.89, 0.42),
                (0.965 + 0.01 * shape[2], 0.65),
                (0.99, 0.84),
                (0.97, 1.0),
            ]
        )
        dome = 0.80 + 0.02 * shape[3]
        diaphragm = _spline(
            [(0.97, 1.0), (0.82, 0.91), (0.60, dome + 0.02), (0.40, dome), (0.24, dome + 0.05)]
        )
        bulge = (0.30 if outward < 0 else 0.46) * self.heart
        medial = _spline(
            [
                (0.24, dome + 0.05),
                (bulge, 0.76),
                (bulge * 0.8, 0.58),
                (0.20, 0.42),
                (0.16, 0.28),
                (0.17, 0.13),
            ]
        )
        scale = np.array([w * s * outward, 1.0])

        def place(points: np.ndarray) -> np.ndarray:
            return points * scale * (1, base) + (c, t)

        costal_px = _even(place(costal), 200)
        outline = np.concatenate([costal_px, place(diaphragm)[1:], place(medial)[1:]])
        hilum = np.array([c + outward * w * 0.27, t + h * 0.47])
        return Side(outline, costal_px, hilum, outward)


# --- the data set ---------------------------------------------------------------------------------


def generate(data: PhantomData, root: Path, workers: int = -1) -> None:
    """Draw the films of ``data`` into ``root`` unless they are there; continues interrupted work.

    Leaves ``dicom-images-train/<study>/<series>/<sop>.dcm``, ``train-rle.csv``, ``patients.csv``
    and ``contents.csv`` (of each film 0 or 1 for each of HOLDINGS); the manifest is written last.
    Raises PneumoError if ``root`` holds something else.
    """
    settings = {
        "images": data.images,
        "positive_rate": data.positive_rate,
        "seed": data.seed,
        "difficulty": data.difficulty.value,
        "version": VERSION,
    }
    with runs.lock(root):
        _generate(data, root, settings, workers)


def _generate(data: PhantomData, root: Path, settings: dict[str, Any], workers: int) -> None:
    manifest, journal = root / MANIFEST, root / JOURNAL
    if manifest.is_file():
        if _versioned(files.read_json(manifest)) != settings:
            raise PneumoError(
                f"{root}: holds phantoms of other settings; "
                "choose another data.root, or delete the folder"
            )
        journal.unlink(missing_ok=True)
        return
    files.remove_left(root)
    if any(path.name != runs.LOCK for path in root.iterdir()) and not journal.is_file():
        raise PneumoError(f"{root}: is not empty and holds no phantoms; choose another data.root")
    rows = _read_journal(journal, settings)
    todo = [(number, *who) for number, who in enumerate(plan(data)) if number not in rows]
    # anew: without a last line that was cut short, and never without its first
    lines = [json.dumps(one) for one in (settings, *rows.items())]
    files.write_text(journal, "".join(f"{line}\n" for line in lines))
    with open(journal, "a", encoding="utf-8") as file:
        work = functools.partial(_write_film, root / FILMS, data)
        for (number, *_), row in pool.each(work, todo, "Drawing phantoms", workers):
            rows[number] = row
            file.write(json.dumps([number, row]) + "\n")
            file.flush()
    ordered = [rows[number] for number in sorted(rows)]
    table = [(row["id"], text) for row in ordered for text in row["annotations"]]
    patients = [(row["id"], row["patient"]) for row in ordered]
    contents = [(row["id"], *(int(one in row["holds"]) for one in HOLDINGS)) for row in ordered]
    # the challenge's header has a blank before its second word, too
    _write_csv(root / TABLE, ("ImageId", " EncodedPixels"), table)
    _write_csv(root / PATIENTS, ("ImageId", "Patient"), patients)
    _write_csv(root / CONTENTS, ("ImageId", *HOLDINGS), contents)
    files.write_json(manifest, settings)
    journal.unlink()


def plan(data: PhantomData) -> list[tuple[int, bool]]:
    """Decide the patient of each film and whether it is positive.

    Exactly the asked share of films is positive, and positive films gather in few patients, as in
    the challenge (12,047 films of 6,171 patients; 2,669 positive films of 802).
    """
    rng = np.random.default_rng([data.seed, 0])
    patients: list[int] = []
    while len(patients) < data.images:
        films = 1 if rng.random() < 0.68 else 1 + int(rng.geometric(0.33))
        number = patients[-1] + 1 if patients else 0
        patients += [number] * films
    patients = patients[: data.images]
    leaning = rng.beta(0.15, 0.5, size=patients[-1] + 1)
    scores = leaning[patients] + 0.25 * rng.random(data.images)
    count = max(1, round(data.images * data.positive_rate))
    positive = np.zeros(data.images, bool)
    positive[np.argsort(-scores)[:count]] = True
    order = rng.permutation(data.images)
    return [(patients[i], bool(positive[i])) for i in order]


def _versioned(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings in a manifest, with today's version where it draws the same pixels.

    Older ones name no difficulty: all films were easy.
    """
    rest = {key: settings[key] for key in settings if key not in ("generator", "version")}
    rest = {"difficulty": Difficulty.easy.value, **rest}
    is_first = settings.get("generator") == UNVERSIONED
    version = 1 if is_first else settings.get("version")
    return (
        {"difficulty": "easy", **rest, "version": VERSION} if version in SAME_PIXELS else settings
    )


def _read_journal(journal: Path, settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Films finished by an interrupted call, without a last line that was cut short.

    Older versions did not note what a film holds: their films are drawn again.
    """
    if not journal.is_file():
        return {}
    try:
        values = [files.parse_json(line) for line in journal.read_text("utf-8").split("\n")[:-1]]
        drawn = {number: row for number, row in values[1:] if "holds" in row}
    except files.DAMAGE as error:
        raise PneumoError(f"{journal}: damaged ({brief(error)}); delete it to draw anew") from None
    if values and _versioned(values[0]) != settings:
        raise PneumoError(
            f"{journal.parent}: holds unfinished phantoms of other settings; "
            "choose another data.root, or delete the folder"
        )
    return drawn


def _write_csv(path: Path, header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    with (
        files.replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _write_film(root: Path, data: PhantomData, item: tuple[int, int, bool]) -> dict[str, Any]:
    """Draw one film and write its DICOM file; returns its row of the journal."""
    (number, patient, positive), seed = item, data.seed
    film = draw(seed, patient, number, positive, data.difficulty)
    study, series, sop = (
        generate_uid(entropy_srcs=["pneumo phantom", kind, str(seed), str(number)])
        for kind in ("study", "series", "sop")
    )
    picture = BytesIO()
    Image.fromarray(film.image).save(picture, "JPEG", quality=92)
    name = f"{dicom.PHANTOM}{seed}-{patient:06d}"

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = sop
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, sop
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "19010101", "000000.00", ""
    dataset.Modality, dataset.ConversionType, dataset.ReferringPhysicianName = "CR", "WSD", ""
    dataset.SeriesDescription = f"view: {film.view}"
    dataset.PatientName = dataset.PatientID = name
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = (
        "",
        film.sex,
        f"{film.age:03d}Y",
    )
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", film.view
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "", 1, 1
    dataset.PatientOrientation = ""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIZE
    # equal, since nothing is corrected for magnification (PS3.3 10.7.1.1)
    dataset.PixelSpacing = dataset.ImagerPixelSpacing = [film.spacing, film.spacing]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_10918_1"
    dataset.PixelData = encapsulate([picture.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    content = BytesIO()  # where pydicom itself writes a file, a full disk is many lines
    dataset.save_as(content, enforce_file_format=True)
    files.write_bytes(root / study / series / f"{sop}.dcm", content.getvalue())
    annotations = [rle.encode(mask) for mask in film.annotations] or [rle.EMPTY]
    return {"id": str(sop), "patient": name, "annotations": annotations, "holds": film.holds}


# --- pneumothorax ---------------------------------------------------------------------------------


def _pneumothorax(
    body: _Body, anatomy: np.random.Generator, rng: np.random.Generator
) -> list[np.ndarray]:
    """Choose and cut out the components.

    Returns their masks (uint8 of 0 and 1) and leaves the pleural lines in ``body.sides``.
    """
    total = float(np.clip(10 ** rng.normal(*LOG10_AREA), *AREA_RANGE))
    counts, weights = zip(*COMPONENTS, strict=True)
    count = int(rng.choice(counts, p=weights))
    first = 0 if anatomy.random() < 0.59 else 1
    shares = np.sort(rng.dirichlet(np.full(count, 1.5)))[::-1]
    masks: list[np.ndarray] = []
    for i, share in enumerate(shares):
        side = body.sides[first if i == 0 or rng.random() < 0.72 else 1 - first]
        mask = _crescent(side, max(total * share, 100.0), rng, masks)
        if mask is not None:
            masks.append(mask)
    return masks


def _crescent(
    side: Side, area: float, rng: np.random.Generator, taken: list[np.ndarray]
) -> np.ndarray | None:
    """A component of about ``area`` pixels between chest wall and visceral pleura.

    None if its place is taken. Its length and depth share the area as in the challenge's table
    (8,600 pixels are about 300 x 29 pixels).
    """
    n = len(side.costal)
    length = np.linalg.norm(np.diff(side.costal, axis=0), axis=1).sum()
    place = rng.choice(["apical", "lateral", "basal"], p=[0.72, 0.23, 0.05])
    for _ in range(12):
        centre = {
            "apical": rng.normal(0.19, 0.07),
            "lateral": rng.uniform(0.4, 0.75),
            "basal": rng.normal(0.9, 0.05),
        }[place]
        stretch = rng.lognormal(0, 0.25) * (1.35 if place == "lateral" else 1.0)
        span = np.clip(297 * (area / 8600) ** 0.52 * stretch / length, 0.05, 1.9)
        s = np.linspace(0, 1, n)
        profile = np.clip(1 - ((s - centre) / (span / 2)) ** 2, 0, None) ** rng.uniform(0.6, 1.1)
        profile *= 1 + 0.12 * np.sin(2 * np.pi * (s * rng.uniform(1, 4) + rng.random()))
        inside = np.flatnonzero(profile > 0)
        if len(inside) < 3:
            continue
        keep = slice(inside[0], inside[-1] + 1)
        wall, depth = side.costal[keep], profile[keep, None]
        toward = _inward(side)[keep]
        low, high = 0.0, 420.0
        # a deeper component has a larger area: find the depth that gives the area by bisection
        for _ in range(18):
            middle = (low + high) / 2
            polygon = np.concatenate([wall, (wall + toward * depth * middle)[::-1]])
            if abs(_polygon_area(polygon)) < area:
                low = middle
            else:
                high = middle
        pleura = wall + toward * depth * low
        mask = _fill(np.concatenate([wall, pleura[::-1]]))
        mask &= _fill(side.outline)
        grown = cv2.dilate(mask, np.ones((15, 15), np.uint8))
        touches_another = any((grown & other).any() for other in taken)
        if mask.sum() >= min(60, area / 2) and not touches_another:
            side.pleura.append(pleura)
            return mask
    return None


def _inward(side: Side) -> np.ndarray:
    """Directions (n, 2) in which the lung falls away from the chest wall.

    They are the inward normals of the wall, leaning toward the hilum.
    """
    tangent = np.gradient(side.costal, axis=0)
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]]) * side.outward
    hilum = side.hilum - side.costal
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (normal, hilum)]
    mixed = unit[0] + 0.6 * unit[1]
    # neighbouring points move in similar directions, so that the pleural line does not cross itself
    mixed = cv2.blur(mixed, (1, 41), borderType=cv2.BORDER_REPLICATE)
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def _annotate(lesions: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Annotations of the lesions as the challenge's readers left them.

    Most lesions have one row each; some are merged, some lie in two overlapping rows.
    """
    if len(lesions) > 1 and rng.random() < 0.3:
        return [np.maximum.reduce(lesions)]
    rows = []
    for mask in lesions:
        columns = np.flatnonzero(mask.any(0))
        if rng.random() < 0.07 and len(columns) > 40:
            left, right = mask.copy(), mask.copy()
            third = len(columns) // 3
            left[:, columns[2 * third] :] = 0
            right[:, : columns[third]] = 0
            rows += [left, right]
        else:
            rows.append(mask)
    return rows


# --- the film -------------------------------------------------------------------------------------


def _expose(
    body: _Body,
    lesions: list[np.ndarray],
    look: Look,
    rng: np.random.Generator,
    own: np.random.Generator,
) -> np.ndarray:
    """Draw the film, uint8, and turn ``lesions`` in place as the film is turned.

    The attenuations (about 0 is air, 1 the mediastinum) are summed and blurred; the film curve
    turns them into grey levels; noise and markers are added.
    """
    film = _soft_tissue(body, rng)
    lungs = [_fill(side.outline) for side in body.sides]
    lesion = np.maximum.reduce(lesions) if lesions else np.zeros((SIZE, SIZE), np.uint8)
    empty = _lookalikes(film, body, lesion, look, own)
    behind = np.float32(own.uniform(*look.behind))
    for side, lung in zip(body.sides, lungs, strict=True):
        film -= _aeration(lung, rng.uniform(0.40, 0.50))
        film += _vessels(side, (lung & ~empty) * (1 - lesion * (1 - behind)), rng)
    if lesions:
        air = cv2.GaussianBlur(lesion.astype(np.float32), (0, 0), 1.5)
        mean, std, lowest, highest = look.air
        film -= air * np.clip(rng.normal(mean, std), lowest, highest)
        line = np.zeros((SIZE, SIZE), np.float32)
        for side in body.sides:
            for pleura in side.pleura:
                _line(line, pleura, 4)
        film += cv2.GaussianBlur(line, (0, 0), 0.9) * rng.uniform(*look.line)
    film += _mediastinum(body, rng)
    film += _bones(body, rng)
    film += _devices(body, look.tube[0] if lesions else look.tube[1], rng)
    film = cv2.GaussianBlur(film, (0, 0), rng.uniform(0.7, 1.3))
    film = _turn(film, body.tilt)
    for i, lesion in enumerate(lesions):
        lesions[i] = (_turn(lesion.astype(np.float32), body.tilt) > 0.5).astype(np.uint8)

    exposure, gain = rng.normal(*look.exposure), np.clip(rng.normal(1, 0.10), 0.8, 1.25)
    seen = gain * (film - 0.45) + 0.45 + exposure
    grey = np.interp(seen, *FILM_CURVE).astype(np.float32)
    noise = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE), np.float32), (0, 0), 0.8)
    grey += noise * (rng.uniform(2, 5) * (1.2 - 0.6 * film.clip(0, 1)))
    image = grey.clip(0, 255).astype(np.uint8)
    _markers(image, body, rng)
    _collimate(image, rng)
    return image


def _soft_tissue(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Neck, shoulders and trunk, thinner to the sides; the abdomen below is thicker."""
    c, w, t, h = body.centre, body.half, body.top, body.height
    trunk = w * (1.13 + 0.25 * body.fat)
    half = np.array(
        [
            (-400, 0.34 * w),
            (t - 90, 0.36 * w),
            (t - 20, 0.62 * w),
            (t + 50, 1.25 * w),
            (t + 120, 1.62 * w),
            (t + 290, trunk * 1.36),
            (t + 420, trunk * 1.05),
            (t + h, trunk),
            (1500, trunk * 1.08),
        ]
    )
    rows = np.linspace(0, SIZE - 1, COARSE)
    width = np.interp(rows, half[:, 0], half[:, 1])[:, None]
    x = np.abs(np.linspace(0, SIZE - 1, COARSE)[None] - c) / width
    thickness = np.sqrt(np.clip(1 - x**2.6, 0, None)) ** 0.8
    thickness *= (0.80 + 0.06 * body.fat) * np.interp(
        rows, [0, t + 0.7 * h, t + h * 1.05, SIZE], [0.92, 0.97, 1.12, 1.15]
    )[:, None]
    patchy = cv2.resize(
        rng.standard_normal((9, 9), np.float32), (COARSE, COARSE), interpolation=cv2.INTER_CUBIC
    )
    thickness = (
        thickness * (1 + 0.035 * patchy) + 0.03 * rng.normal() * np.linspace(-1, 1, COARSE)[None]
    )
    return _enlarge(cv2.GaussianBlur(thickness.astype(np.float32), (0, 0), 2.5))


def _aeration(lung: np.ndarray, depth: float) -> np.ndarray:
    """How much lung takes away from the attenuation.

    It rises from the lung's edge inwards, as the thickness of a rounded body does.
    """
    small = cv2.resize(lung, (COARSE, COARSE), interpolation=cv2.INTER_AREA)
    distance = cv2.distanceTransform((small > 0).astype(np.uint8), cv2.DIST_L2, 5)
    rounded = 1 - np.exp(-distance / 22.0)
    taken = depth * (0.10 + 1.02 * rounded) * (small > 0)
    return _enlarge(cv2.GaussianBlur(taken.astype(np.float32), (0, 0), 0.9))


def _vessels(side: Side, where: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lung markings: vessels that branch from the hilum, thinner outwards, and a fine texture.

    ``where`` (1024, 1024) says how much of them is seen: 1 in expanded lung, 0 outside the lung.
    """
    tree = np.zeros((SIZE, SIZE), np.float32)

    def grow(point: np.ndarray, angle: float, width: float, length: float) -> None:
        steps = max(int(length / 14), 2)
        bends = angle + np.cumsum(rng.normal(0, 0.11, steps))
        strides = 14 * np.column_stack([np.cos(bends), np.sin(bends)])
        path = np.vstack([point, point + np.cumsum(strides, axis=0)])
        _line(tree, path, max(1, round(width)), 0.35 + 0.05 * width)
        if width > 1.6:
            for turn in (rng.uniform(0.2, 0.7), -rng.uniform(0.2, 0.7)):
                grow(
                    path[-1],
                    bends[-1] + turn,
                    width * rng.uniform(0.6, 0.78),
                    length * rng.uniform(0.68, 0.9),
                )

    outward = 0.0 if side.outward > 0 else np.pi
    for angle in np.linspace(-1.35, 1.35, 8) + rng.normal(0, 0.12, 8):
        grow(side.hilum, outward + angle, rng.uniform(5.5, 9), rng.uniform(90, 135))
    coarse = rng.standard_normal((COARSE, COARSE), np.float32)
    marking = _enlarge(
        cv2.GaussianBlur(coarse, (0, 0), 1.1) * 1.9 + cv2.GaussianBlur(coarse, (0, 0), 3) * 8
    )
    texture = 0.10 * cv2.GaussianBlur(tree, (0, 0), 1.2) + 0.012 * marking
    return texture * cv2.GaussianBlur(where.astype(np.float32), (0, 0), 1.2)


def _mediastinum(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Spine, great vessels, heart, hila and diaphragm shadows; brighter towards the middle."""
    c, w, t, h = body.centre, body.half, body.top, body.height
    q = COARSE / SIZE
    shadow = np.zeros((COARSE, COARSE), np.float32)

    def ellipse(x: float, y: float, a: float, b: float, angle: float, value: float) -> None:
        layer = np.zeros_like(shadow)
        cv2.ellipse(
            layer,
            (round(x * q), round(y * q)),
            (max(round(a * q), 1), max(round(b * q), 1)),
            angle,
            0,
            360,
            value,
            -1,
        )
        np.maximum(shadow, layer, out=shadow)

    cv2.rectangle(
        shadow, (round((c - 0.15 * w) * q), 0), (round((c + 0.15 * w) * q), COARSE), 0.20, -1
    )
    ellipse(c + 0.12 * w, t + 0.71 * h, 0.40 * w * body.heart, 0.19 * h, 28, 0.30)
    ellipse(c - 0.06 * w, t + 0.66 * h, 0.26 * w * body.heart, 0.17 * h, 0, 0.26)
    ellipse(c + 0.15 * w, t + 0.29 * h, 0.12 * w, 0.055 * h, 0, 0.24)
    for side in body.sides:
        ellipse(side.hilum[0] - side.outward * 0.06 * w, side.hilum[1], 0.09 * w, 0.10 * h, 0, 0.13)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 2.2)
    ellipse_y = round((t + 0.02 * h) * q)
    windpipe = np.zeros_like(shadow)
    cv2.line(
        windpipe,
        (round(c * q), 0),
        (round((c - 4) * q), ellipse_y + round(0.3 * h * q)),
        1.0,
        max(round(0.09 * w * q), 1),
    )
    shadow -= 0.12 * cv2.GaussianBlur(windpipe, (0, 0), 1.5)
    if rng.random() < 0.6:  # gas in the stomach, below the left hemidiaphragm
        gas = np.zeros_like(shadow)
        x, y = c + w * rng.uniform(0.35, 0.6), t + h * rng.uniform(1.0, 1.06)
        cv2.ellipse(
            gas,
            (round(x * q), round(y * q)),
            (round(0.15 * w * q), round(0.06 * h * q)),
            rng.normal(0, 12),
            0,
            360,
            1.0,
            -1,
        )
        shadow -= rng.uniform(0.1, 0.3) * cv2.GaussianBlur(gas, (0, 0), 2)
    return _enlarge(shadow)


def _bones(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Posterior and anterior ribs, clavicles, shoulder blades and vertebrae.

    Their edges are brighter than the marrow between them.
    """
    c, w, t, h = body.centre, body.half, body.top, body.height
    cortex = np.zeros((SIZE, SIZE), np.float32)
    marrow = np.zeros((SIZE, SIZE), np.float32)
    thick = 0.038 * h

    def bone(path: np.ndarray, width: float, strength: float) -> None:
        tangent = np.gradient(path, axis=0)
        normal = np.column_stack([-tangent[:, 1], tangent[:, 0]])
        normal *= (width / 2) / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        _line(marrow, path, max(round(width), 1), strength)
        for edge in (path + normal, path - normal):
            _line(cortex, edge, 2, strength)

    for side in body.sides:
        o = side.outward
        for k in range(10):
            y = t + h * (0.015 + 0.092 * k)
            if k:
                reach = np.interp(y + 0.1 * h, side.costal[:, 1], np.abs(side.costal[:, 0] - c))
            else:
                reach = 0.62 * w
            u = np.linspace(0, 1, 40)
            drop = (0.10 + 0.022 * k) * h * body.rib_slope
            x = c + o * (0.10 * w + (reach * 1.02 - 0.10 * w) * np.sin(u * np.pi / 2))
            arch = y - 0.05 * h * np.sin(np.pi * u) * (1 - 0.05 * k) + drop * u**2
            bone(np.column_stack([x, arch]), thick, 1.0)
            if 1 <= k <= 6:
                front = np.column_stack(
                    [
                        c + o * (reach - (reach - 0.38 * w) * u),
                        y + drop + 0.02 * h + 0.14 * h * u - 0.05 * h * np.sin(np.pi * u),
                    ]
                )
                bone(front, thick * 1.1, 0.5)
        u = np.linspace(0, 1, 30)
        lift = rng.normal(0, 0.02)
        collar = np.column_stack(
            [
                c + o * w * (0.10 + 0.95 * u),
                t + h * (0.115 - 0.16 * u * (1 - 0.35 * u) + 0.03 * np.sin(2 * np.pi * u) + lift),
            ]
        )
        bone(collar, thick * 1.25, 1.2)
        blade = np.column_stack(
            [c + o * w * (1.12 - 0.16 * np.sin(np.pi * u)), t + h * (0.12 + 0.42 * u)]
        )
        _line(cortex, blade, 3, 0.9)
    for k in range(16):
        y = t - 0.08 * h + 0.073 * h * k
        _line(cortex, np.array([(c - 0.085 * w, y), (c + 0.085 * w, y)]), 3, 0.6)
    for x in (c - 0.09 * w, c + 0.09 * w):
        _line(cortex, np.array([(x, 0), (x, SIZE)]), 3, 0.5)
    strength = rng.uniform(0.8, 1.2)
    return strength * (
        0.05 * cv2.GaussianBlur(cortex, (0, 0), 1.3) + 0.048 * cv2.GaussianBlur(marrow, (0, 0), 2.0)
    )


def _devices(body: _Body, drained: float, rng: np.random.Generator) -> np.ndarray:
    """Lines, tubes and electrodes; ``drained`` is how often a side has a chest drain.

    Chest drains are commoner on films with pneumothorax, but not a sure sign of it.
    """
    c, w, t, h = body.centre, body.half, body.top, body.height
    layer = np.zeros((SIZE, SIZE), np.float32)

    def tube(points: list[tuple[float, float]], width: int, value: float) -> None:
        path = _spline(points)
        if width > 3:
            tangent = np.gradient(path, axis=0)
            normal = np.column_stack([-tangent[:, 1], tangent[:, 0]])
            normal *= width / 2 / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
            for edge in (path + normal, path - normal):
                _line(layer, edge, 2, value)
        else:
            _line(layer, path, width, value)

    for side in body.sides:
        if rng.random() < drained:
            body.holds.add(TUBE)
            o = side.outward
            y = t + h * rng.uniform(0.5, 0.8)
            drain = [
                (c + o * 1.3 * w, y + 60),
                (c + o * 0.95 * w, y),
                (c + o * 0.8 * w, y - 0.25 * h),
                (c + o * rng.uniform(0.3, 0.5) * w, t + h * rng.uniform(0.08, 0.25)),
            ]
            tube(drain, 9, 0.28)
    if rng.random() < 0.3:  # central venous catheter
        o = rng.choice([-1, 1])
        tube(
            [
                (c + o * 0.9 * w, t + 20),
                (c + o * 0.4 * w, t + 0.1 * h),
                (c - 0.1 * w, t + 0.25 * h),
                (c - 0.12 * w, t + 0.45 * h),
            ],
            3,
            0.25,
        )
    if body.view == "AP" and rng.random() < 0.35:  # endotracheal and gastric tube
        tube([(c + 6, 0), (c, t), (c - 3, t + 0.16 * h)], 8, 0.2)
        tube(
            [(c + 12, 0), (c + 8, t + 0.4 * h), (c + 30, t + 0.9 * h), (c + 0.4 * w, t + h)],
            3,
            0.25,
        )
    for _ in range(rng.poisson(1.6 if body.view == "AP" else 0.25)):
        x, y = c + w * rng.uniform(-0.9, 0.9), t + h * rng.uniform(0.1, 0.9)
        cv2.circle(layer, (round(x), round(y)), 11, 0.5, 4, cv2.LINE_AA)
        tube(
            [
                (x, y),
                (x + rng.normal(0, 90), y + 120),
                (x + rng.normal(0, 200), y + 320),
                (x + rng.normal(0, 260), 1100),
            ],
            3,
            0.3,
        )
    return cv2.GaussianBlur(layer, (0, 0), 0.8)


# --- what may be taken for pneumothorax -----------------------------------------------------------


def _lookalikes(
    film: np.ndarray, body: _Body, lesion: np.ndarray, look: Look, rng: np.random.Generator
) -> np.ndarray:
    """Add folds, clothing and bullae to ``film`` in place.

    Returns where bullae leave no vessels, uint8 of 0 and 1.
    """
    empty = np.zeros((SIZE, SIZE), np.uint8)
    for name, (lying, upright) in look.lookalikes.items():
        if rng.random() >= (lying if body.view == "AP" else upright):
            continue
        if name == FOLD:
            film += _skin_fold(body, rng)
        elif name == CLOTHING:
            film += _clothing(body, rng)
        else:
            shadow, empty = _bullae(body, lesion, rng)
            film += shadow
        if name != BULLA or empty.any():
            body.holds.add(name)
    return empty


def _skin_fold(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Skin pressed into a fold behind a lying patient.

    Its shadow rises slowly from the middle outwards and ends at a long soft edge. That is an edge
    and no line, vessels go on beyond it, and it need not end where the lung ends.
    """
    outward = body.sides[int(rng.integers(2))].outward
    across = rng.uniform(0.55, 0.85) + np.array([rng.uniform(-0.35, -0.05), 0, rng.normal(0, 0.1)])
    down = np.array([rng.uniform(-0.1, 0.2), rng.uniform(0.35, 0.55), rng.uniform(0.65, 0.95)])
    x, y = body.centre + outward * across * body.half, body.top + down * body.height
    edge = _spline(list(zip(x, y, strict=True)))
    rows = np.linspace(0, SIZE - 1, COARSE)
    inwards = outward * (np.interp(rows, *edge.T[::-1])[:, None] - rows[None])
    fades = np.interp(rows, y[[0, 0, 2, 2]] + (-50, 90, -90, 50), (0, 1, 1, 0))[:, None]
    shadow = np.exp(-inwards.clip(0) / rng.uniform(35, 100)) * (inwards / 8 + 0.5).clip(0, 1)
    return _enlarge((rng.uniform(0.08, 0.18) * fades * shadow).astype(np.float32))


def _clothing(body: _Body, rng: np.random.Generator) -> np.ndarray:
    """Seams and creases of a gown or sheet: long smooth lines across chest wall and lung."""
    layer = np.zeros((SIZE, SIZE), np.float32)
    c, w, t, h = body.centre, body.half, body.top, body.height
    for _ in range(rng.integers(1, 4)):
        outward = rng.choice([-1, 1])
        x = c + outward * w * np.array(
            [rng.uniform(0.1, 1.3), rng.uniform(0.3, 0.9), rng.uniform(0.4, 1.4)]
        )
        y = t + h * np.array([rng.uniform(-0.2, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.7, 1.2)])
        seam = _spline(list(zip(x, y, strict=True)), per_piece=30)
        strength = rng.uniform(0.04, 0.12)
        for shift in (0, rng.uniform(7, 18))[: int(rng.integers(1, 3))]:
            _line(layer, seam + np.array([shift, 0]), int(rng.integers(2, 5)), strength)
    return cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.8, 1.8))


def _bullae(
    body: _Body, lesion: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A group of blisters of air below the pleura of one lung: rounded, dark, thin-walled.

    Those that would meet the film's ``lesion`` are left out. Returns their attenuation and where
    they leave no vessels, uint8 of 0 and 1.
    """
    side = body.sides[int(rng.integers(2))]
    lung, middle = _fill(side.outline), rng.uniform(5, 120)
    air, walls = np.zeros((2, SIZE, SIZE), np.float32)
    for _ in range(rng.integers(1, 5)):
        place = round(np.clip(middle + rng.normal(0, 12), 0, len(side.costal) - 1))
        radius = rng.uniform(22, 75)
        centre = side.costal[place] + _inward(side)[place] * radius * rng.uniform(0.8, 1.8)
        ball, wall = _bulla(centre, radius, rng)
        if not lesion[ball > 0].any():
            np.maximum(air, ball * lung, out=air)
            np.maximum(walls, wall * lung, out=walls)
    shadow = rng.uniform(0.03, 0.09) * walls - rng.uniform(0.07, 0.16) * air
    return shadow, (air > 0.2).astype(np.uint8)


def _bulla(
    centre: np.ndarray, radius: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The way of the rays through one lobed ball of air, at most 1, and a part of its wall."""
    first, second = rng.uniform(0, 2 * np.pi, 2)

    def reach(angle: np.ndarray) -> np.ndarray:
        lobes = 0.10 * np.sin(2 * angle + first) + 0.06 * np.sin(3 * angle + second)
        return radius * (1 + lobes)

    rows, columns = np.mgrid[:COARSE, :COARSE] * ((SIZE - 1) / (COARSE - 1))
    x, y = columns - centre[0], rows - centre[1]
    part = np.hypot(x, y) / reach(np.arctan2(y, x))
    ball = _enlarge(np.sqrt((1 - part**2).clip(0)).astype(np.float32))

    seen = np.linspace(0, rng.uniform(2, 6), 60) + rng.uniform(0, 2 * np.pi)
    rim = reach(seen)[:, None] * np.column_stack([np.cos(seen), np.sin(seen)])
    wall = np.zeros_like(ball)
    _line(wall, centre + rim, 2)
    return ball, cv2.GaussianBlur(wall, (0, 0), 1.0)


def _markers(grey: np.ndarray, body: _Body, rng: np.random.Generator) -> None:
    """Burnt-in letters, as most films have them."""
    font = cv2.FONT_HERSHEY_SIMPLEX

    def write(text: str, x: int, y: int, size: float) -> None:
        cv2.putText(grey, text, (x, y), font, size, 250, max(round(2 * size), 1), cv2.LINE_AA)

    if rng.random() < 0.85:
        x, y = int(rng.integers(890, 960)), int(rng.integers(60, 240))
        write("L", x, y, rng.uniform(1.2, 2.2))
        if rng.random() < 0.3:
            cv2.circle(grey, (x + 16, y - 16), 42, 250, 3, cv2.LINE_AA)
    if body.view == "AP":
        if rng.random() < 0.5:
            x, y = int(rng.integers(20, 80)), int(rng.integers(40, 130))
        else:
            x, y = 790, int(rng.integers(250, 330))
        write("AP", x, y, 0.9)
        if rng.random() < 0.7:
            write("PORTABLE", x, y + 40, 0.8)


def _collimate(grey: np.ndarray, rng: np.random.Generator) -> None:
    """Black borders where the beam was narrowed."""
    if rng.random() < 0.25:
        top, bottom, left, right = (rng.random(4) * (70, 70, 60, 60)).astype(int)
        grey[: max(top, 1)] = 2
        grey[SIZE - max(bottom, 1) :] = 2
        grey[:, : max(left, 1)] = 2
        grey[:, SIZE - max(right, 1) :] = 2


# --- drawing --------------------------------------------------------------------------------------


def _spline(points: list[tuple[float, float]], per_piece: int = 12) -> np.ndarray:
    """Catmull-Rom curve through the points, (n, 2)."""
    p = np.array([points[0], *points, points[-1]], float)
    u = np.linspace(0, 1, per_piece, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        linear = (c - a) * u
        square = (2 * a - 5 * b + 4 * c - d) * u**2
        cubic = (3 * b - a - 3 * c + d) * u**3
        pieces.append(0.5 * (2 * b + linear + square + cubic))
    return np.concatenate([*pieces, p[-1:]])


def _even(path: np.ndarray, n: int) -> np.ndarray:
    """The path resampled to ``n`` points at equal distances."""
    distance = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    at = np.linspace(0, distance[-1], n)
    return np.column_stack([np.interp(at, distance, path[:, i]) for i in range(2)])


def _polygon_area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _fill(polygon: np.ndarray) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return mask


def _line(canvas: np.ndarray, path: np.ndarray, width: int, value: float = 1.0) -> None:
    """Draw a polyline of a given width in place; later lines replace earlier ones."""
    points = np.round(path * 8).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(canvas, [points], False, value, width, cv2.LINE_AA, shift=3)


def _enlarge(coarse: np.ndarray) -> np.ndarray:
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def _turn(image: np.ndarray, degrees: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), degrees, 1)
    return cv2.warpAffine(
        image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def in_place(data: PhantomData, runs_dir: str) -> SiimData:
    """Draw the phantoms unless they are there, below ``runs_dir`` where ``data`` names no root.

    Returns the data set as it lies on disk. Raises PneumoError.
    """
    name = f"{data.images}-{data.positive_rate:g}-seed{data.seed}"
    if data.difficulty is not Difficulty.easy:
        name += f"-{data.difficulty.value}"
    below = Path(runs_dir) / "phantom"
    # runs on disk were trained on the films of older folders, so these are used where they are
    endings = [UNVERSIONED[:8], *(f"v{version}" for version in SAME_PIXELS)]
    drawn = [folder for ending in endings if (folder := below / f"{name}-{ending}").is_dir()]
    root = drawn[0] if drawn else below / f"{name}-v{VERSION}"
    if data.root:
        root = Path(data.root)
    generate(data, root)
    return SiimData(
        name=data.name,
        root=str(root),
        annotations=str(root / TABLE),
        patients=str(root / PATIENTS),
        on_error=data.on_error,
        cache=data.cache,
        max_megapixels=data.max_megapixels,
    )
