"""A bundle on any films: a mask, a probability and an area for each, and files that other systems read."""

import csv
import errno
import hashlib
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydicom.dataset import Dataset
from tqdm import tqdm

from pneumo import bundle, dicom, dicom_out, files, inputs, pictures, postprocess, rle
from pneumo.bundle import Bundle
from pneumo.config import Polarity, Postprocess, Predict, Removal, Save
from pneumo.dicom import Film
from pneumo.errors import PneumoError
from pneumo.predictions import enlarge
from pneumo.thresholds import Histograms, histogram

TABLE, LINES, RLE = "films.csv", "films.json", "rle.csv"
RADIOGRAPHS = ("", "CR", "DX", "RG", "OT", "SC", "XC")  # modalities that may hold a film
COLUMNS = (
    *("film", "pneumothorax", "probability", "area_px", "area_mm2", "image_side", "rows", "columns"),
    *("notes", "uid", "source", "sha256"),
)
WIDEST = 1024  # pixels of an overlay


@dataclass
class Finding:
    """What was found on one film. Arrays are over the upright film, uint8 (rows, columns)."""

    film: Film
    levels: np.ndarray  # probability in levels of 1/255
    mask: np.ndarray
    probability: float  # the highest threshold at which the rule would still find something
    notes: list[str] = field(default_factory=list)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def area_mm2(self) -> float | None:
        """Square millimetres of the mask, if the header gives a spacing (at the detector: the body is magnified)."""
        spacing = self.film.spacing
        return self.area * spacing[0] * spacing[1] if spacing else None

    @property
    def side(self) -> str:
        """The side of the image that holds at least nine tenths of the mask; of an upright frontal film, left is the patient's right."""
        columns = self.mask.sum(0, dtype=np.int64)
        left, total = int(columns[: len(columns) // 2].sum()), int(columns.sum())
        if not total:
            return ""
        return "left" if left >= 0.9 * total else "right" if left <= 0.1 * total else "both"

    @property
    def stored_mask(self) -> np.ndarray:
        """The mask over the pixels as the file stores them, uint8 of 0 and 1."""
        return dicom.stored(self.mask, self.film.orientation)

    def overlay(self) -> np.ndarray:
        """The film with probability heat and the mask's outline, RGB uint8, at most 1024 pixels wide."""
        rows, columns = self.film.pixels.shape
        factor = min(1.0, WIDEST / max(rows, columns))
        size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
        film, levels = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (self.film.pixels, self.levels))
        mask = cv2.resize(self.mask, size, interpolation=cv2.INTER_NEAREST)
        return pictures.heat(film, levels, mask)


def read(name: str, content: bytes, polarity: Polarity, colour: bool, max_pixels: int) -> tuple[Film, list[str]]:
    """One film's bytes → the film, and what a reader should know of how it was read. Raises FilmError."""
    film = dicom.read(Path(name), max_pixels, content, colour)
    modality = str(film.header.get("Modality", "") or "") if film.header is not None else ""
    if modality not in RADIOGRAPHS:
        raise dicom.FilmError(f"{name}: modality {modality}, not a radiograph ({', '.join(filter(None, RADIOGRAPHS))})")
    notes = []
    if polarity is Polarity.auto and dicom.looks_inverted(film.pixels):
        film.pixels = 255 - film.pixels
        notes.append("inverted: its tags say otherwise, but the lungs were bright (polarity=tags keeps the tags' way)")
    if dicom.is_turned(film.orientation):
        notes.append(f"turned upright by its tags (PatientOrientation {chr(92).join(film.orientation or ())})")
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
    mask = postprocess.to_mask(levels, rule)
    return Finding(film, levels, mask, _highest(levels, rule))


def _highest(levels: np.ndarray, rule: Postprocess) -> float:
    """The highest probability that enough pixels reach: R-TH of them in all, or in one component; at least one."""
    least = max(1.0, postprocess.removal_pixels(rule, (levels.shape[0], levels.shape[1])))
    if rule.removal is Removal.total:
        total, inside = histogram(levels, np.zeros_like(levels))
        return float(Histograms(total[None], inside[None]).score(least)[0])
    low, high = 0, 256  # the largest component shrinks as the level rises
    while high - low > 1:
        middle = (low + high) // 2
        _, _, stats, _ = cv2.connectedComponentsWithStats((levels >= middle).astype(np.uint8), connectivity=8)
        low, high = (middle, high) if stats[1:, cv2.CC_STAT_AREA].max(initial=0) >= least else (low, middle)
    return low / 255


def apply(settings: Predict) -> None:
    """The command ``python -m pneumo.predict model=… input=… out=…``.

    Raises PneumoError at the end if films failed (the others' results are kept), or at once if nothing can be done.
    """
    if not settings.input:
        raise PneumoError("input is not set: give DICOM files, pictures, folders or zip archives, input=<path> or input=[<path>,<path>]")
    paths = [settings.input] if isinstance(settings.input, str) else [str(one) for one in settings.input]
    model = bundle.load(Path(str(settings.model)), settings.machine, settings.engine)
    rule = settings.postprocess.over(model.rule)
    out = Path(settings.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PneumoError(f"out={out}: cannot be made ({error.strerror})") from None
    if settings.save.segmentation or settings.save.capture or settings.save.report:
        dicom_out.require()
    rows: list[dict[str, Any]] = []
    runs: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []
    skipped = 0
    names = _Names()
    found = inputs.sources(paths, settings.max_megabytes << 20, leave_out=out)
    try:
        for source in tqdm(found, desc="Films", unit="film", disable=not sys.stderr.isatty()):
            shown = _printable(source.name)
            if source.content is None:
                failed.append((shown, source.fault or ""))
                continue
            if not source.is_film and not source.asked:
                skipped += 1
                continue
            try:
                film, notes = read(shown, source.content, settings.polarity, settings.colour, settings.max_megapixels * 1_000_000)
                finding = find(film, model, rule, settings.tta)
                finding.notes += notes
                name = names.of(shown, film)
                finding.notes += save(out, name, finding, settings.save, model.name)
            except PneumoError as error:
                failed.append((shown, str(error).removeprefix(f"{shown}: ")))
                continue
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                failed.append((shown, f"its results cannot be written ({error.strerror})"))
                continue
            told = {"source": "" if _tells(shown, film.header) else shown, "sha256": hashlib.sha256(source.content).hexdigest()}
            rows.append({"film": name, **describe(finding), "uid": film.uid or "", **told})
            runs.append((name, rle.encode(finding.stored_mask)))
    finally:  # a stop keeps what was found until then
        _write_tables(out, rows, runs if settings.save.rle else None, failed, model, rule)
    print(_summary(rows, failed, skipped, out), flush=True)
    if failed:
        raise PneumoError(f"{len(failed)} of {len(failed) + len(rows)} films could not be used (listed above)")
    if not rows:
        raise PneumoError(f"no films in {', '.join(paths)} (looked for DICOM files and PNG or JPEG pictures)")


def _printable(name: str) -> str:
    """A file's name with bytes that are no text shown as such."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def describe(finding: Finding) -> dict[str, Any]:
    """A film's line in the table."""
    area = finding.area_mm2
    return {
        "pneumothorax": finding.area > 0,
        "probability": round(finding.probability, 4),
        "area_px": finding.area,
        "area_mm2": None if area is None else round(area, 1),
        "image_side": finding.side,
        "rows": finding.film.stored_shape[0],
        "columns": finding.film.stored_shape[1],
        "notes": "; ".join(finding.notes),
    }


def save(out: Path, name: str, finding: Finding, which: Save, model: str) -> list[str]:
    """Write what is asked for of one film; returns notes on what could not be. Raises PneumoError."""
    if which.overlay:
        files.write_bytes(out / f"{name}-overlay.png", pictures.png(finding.overlay()))
    if which.mask:
        files.write_bytes(out / f"{name}-mask.png", pictures.png(finding.stored_mask * 255))
    if not (which.segmentation or which.capture or which.report):
        return []
    header = finding.film.header
    if header is None:
        return ["no DICOM outputs: the film is a picture, without the tags they refer to"]
    return _save_dicom(out, name, finding, which, model, header)


def _save_dicom(out: Path, name: str, finding: Finding, which: Save, model: str, header: Dataset) -> list[str]:
    try:
        segmented = dicom_out.segmentation(header, finding.stored_mask, model)
        if which.segmentation:
            dicom_out.write(out / f"{name}-seg.dcm", segmented)
        if which.capture:
            dicom_out.write(out / f"{name}-overlay.dcm", dicom_out.secondary_capture(header, finding.overlay()))
        if which.report:
            made = dicom_out.structured_report(header, segmented, finding.probability, finding.area_mm2, model)
            dicom_out.write(out / f"{name}-report.dcm", made)
    except dicom_out.HeaderError as error:
        return [f"no DICOM outputs: {error}"]
    except (ValueError, TypeError, AttributeError) as error:  # highdicom's of a header that it does not accept
        return [f"no DICOM outputs: its header is not accepted ({' '.join(str(error).split())[:100]})"]
    return []


class _Names:
    """Names for outputs: the film's own, made safe and distinct, without what its header says of the patient."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def of(self, source: str, film: Film) -> str:
        stem = Path(source).name
        stem = stem[: -len(Path(stem).suffix)] if Path(stem).suffix.lower() in (".dcm", ".dicom", *dicom.IMAGES) else stem
        name = re.sub(r"[^\w.+-]+", "_", stem).strip("._").encode()[:150].decode(errors="ignore") or "film"
        if _tells(stem, film.header):
            name = "film"
        number, distinct = 1, name
        while distinct.casefold() in self.used:
            number += 1
            distinct = f"{name}-{number}"
        self.used.add(distinct.casefold())
        return distinct


def _tells(name: str, header: Dataset | None) -> bool:
    """Whether a file's name holds what its header says of the patient: name, id, birth date or accession number.

    A part of a name counts as held if it stands in the file's name, or, of at most two Latin letters, as a word of its own.
    """
    if header is None:
        return False
    told = [
        str(header.get(key, "") or "") for key in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "OtherPatientIDs")
    ]
    parts = {part for text in told for part in re.split(r"[\^=\s,\\]+", text)} | set(told[1:])
    variants = {_plain(spelled) for part in parts for spelled in (part, _german(part))} - {""}
    whole = {_plain(name), _plain(_german(name))}
    words = {_plain(word) for word in re.split(r"[\W_]+", name)}
    return any(part in words if len(part) < 3 and part.isascii() else any(part in one for one in whole) for part in variants)


def _plain(text: str) -> str:
    """Letters and digits alone, in lower case, without accents."""
    return "".join(one for one in unicodedata.normalize("NFKD", text).casefold() if one.isalnum())


def _german(text: str) -> str:
    """Umlauts as they are written where there are none."""
    composed = unicodedata.normalize("NFC", text).casefold()
    return composed.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")


def _write_tables(
    out: Path,
    rows: Sequence[dict[str, Any]],
    runs: Sequence[tuple[str, str]] | None,
    failed: Sequence[tuple[str, str]],
    model: Bundle,
    rule: Postprocess,
) -> None:
    with files.replacing(out / TABLE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    how = {
        "model": model.name,
        "commit": model.card.get("commit"),
        "binarization_threshold": rule.binarization_threshold,
        "removal_threshold": rule.removal_threshold,
        "notice": dicom_out.NOTICE,
    }
    faults = [{"film": name, "reason": reason} for name, reason in failed]
    files.write_json(out / LINES, {"how": how, "films": list(rows), "failed": faults})
    if runs is not None:
        with files.replacing(out / RLE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("ImageId", "EncodedPixels"), *runs])


def _summary(rows: Sequence[dict[str, Any]], failed: Sequence[tuple[str, str]], skipped: int, out: Path) -> str:
    lines = []
    for row in rows[:20]:
        area = f"{row['area_px']:,} px" + (f", {row['area_mm2']:,.0f} mm²" if row["area_mm2"] is not None else "")
        found = f"{area}, image {row['image_side']}" if row["pneumothorax"] else "none"
        lines.append(f"{row['film']}: {found}; probability {row['probability']:.3f}" + (f" ({row['notes']})" if row["notes"] else ""))
    if len(rows) > 20:
        lines.append(f"… and {len(rows) - 20:,} more")
    positive = sum(row["pneumothorax"] for row in rows)
    lines.append(f"{len(rows):,} films, {positive:,} with pneumothorax → {out} ({TABLE}, {LINES})")
    if skipped:
        lines.append(f"{skipped:,} other files were passed over (no DICOM file, no PNG or JPEG picture)")
    lines += [f"failed: {name}: {reason}" for name, reason in failed]
    return "\n".join(lines)
