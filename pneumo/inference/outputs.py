"""What is written for a film, and the tables of all films."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from pneumo import files
from pneumo.errors import brief
from pneumo.inference import dicom_objects
from pneumo.inference.bundle import Bundle
from pneumo.inference.findings import Finding
from pneumo.inference.settings import Save
from pneumo.masks import pictures
from pneumo.masks.settings import Postprocess
from pneumo.tables import cell, counted

# of the names of a film's own files
OVERLAY, MASK = "-overlay.png", "-mask.png"
SEGMENTATION, CAPTURE, REPORT = "-seg.dcm", "-overlay.dcm", "-report.dcm"
ENDINGS = (OVERLAY, MASK, SEGMENTATION, CAPTURE, REPORT)
TABLE, LINES, RLE = "films.csv", "films.json", "rle.csv"
COLUMNS = (
    "film",
    "pneumothorax",
    "probability",
    "score",
    "area_px",
    "area_mm2",
    "mm_plane",
    "side",
    "image_side",
    "rows",
    "columns",
    "notes",
    "uid",
    "source",
    "sha256",
)


def describe(finding: Finding) -> dict[str, Any]:
    """A film's line in the table."""
    area = finding.area_mm2
    return {
        "pneumothorax": finding.area > 0,
        "probability": round(finding.probability, 4),
        "score": round(finding.score, 4),
        "area_px": finding.area,
        "area_mm2": None if area is None else round(area, 1),
        "mm_plane": finding.mm_plane,
        "side": finding.side,
        "image_side": finding.image_side,
        "rows": finding.film.stored_shape[0],
        "columns": finding.film.stored_shape[1],
        "notes": "; ".join(finding.notes),
    }


def save(out: Path, name: str, finding: Finding, which: Save, model: Bundle) -> list[str]:
    """Write what is asked for of one film; returns notes on what could not be written.

    Raises PneumoError.
    """
    if which.overlay:
        files.write_bytes(out / (name + OVERLAY), pictures.png(finding.overlay()))
    if which.mask:
        files.write_bytes(out / (name + MASK), pictures.png(finding.stored_mask * 255))
    if not (which.segmentation or which.capture or which.report):
        return []
    header = finding.film.header
    if header is None:
        return ["no DICOM outputs: the film is a picture, without the tags they refer to"]
    return _save_dicom(out, name, finding, which, model, header)


def _save_dicom(
    out: Path, name: str, finding: Finding, which: Save, model: Bundle, header: Dataset
) -> list[str]:
    maker = finding.maker(model)
    try:
        segmented = dicom_objects.segmentation(header, finding.stored_mask, maker)
        if which.segmentation:
            dicom_objects.write(out / (name + SEGMENTATION), segmented)
        if which.capture:
            captured = dicom_objects.secondary_capture(header, finding.capture(), maker)
            dicom_objects.write(out / (name + CAPTURE), captured)
        if which.report:
            known = finding.patient_side if finding.oriented else ""
            made = dicom_objects.structured_report(
                header,
                segmented,
                finding.probability,
                finding.area_mm2,
                known,
                maker,
                finding.mm_remark,
            )
            dicom_objects.write(out / (name + REPORT), made)
    except dicom_objects.HeaderError as error:
        return [f"no DICOM outputs: {error}"]
    # highdicom raises these for a header that it does not accept
    except (ValueError, TypeError, AttributeError) as error:
        return [f"no DICOM outputs: its header is not accepted ({brief(error)})"]
    return []


def write_tables(
    out: Path,
    rows: Sequence[dict[str, Any]],
    runs: Sequence[tuple[str, str]] | None,
    failed: Sequence[tuple[str, str]],
    model: Bundle,
    rule: Postprocess,
) -> None:
    """Write ``films.csv``, ``films.json`` and, if ``runs`` are given, ``rle.csv``.

    Each is written whole or not at all.
    """
    with (
        files.replacing(out / TABLE) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    how = {
        "model": model.name,
        "commit": model.card.get("commit"),
        "experience": model.experience,
        "limits": model.card["limits"],
        "probability": (model.card.get("calibration") or {}).get("how", "not calibrated"),
        "binarization_threshold": rule.binarization_threshold,
        "removal_threshold": rule.removal_threshold,
        "notice": dicom_objects.NOTICE,
    }
    faults = [{"film": name, "reason": reason} for name, reason in failed]
    files.write_json(out / LINES, {"how": how, "films": list(rows), "failed": faults})
    if runs is not None:
        with (
            files.replacing(out / RLE) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([("ImageId", "EncodedPixels"), *runs])


def summary(
    rows: Sequence[dict[str, Any]], failed: Sequence[tuple[str, str]], skipped: int, out: Path
) -> str:
    """What is printed at the end: the films, how many, and those that failed with the reason."""
    lines = []
    for row in rows[:20]:
        extent = "none"
        if row["pneumothorax"]:
            extent = f"{row['area_px']:,} px"
            if row["area_mm2"] is not None:
                extent += f", {row['area_mm2']:,.0f} mm² ({row['mm_plane']})"
            extent += f", {row['side']}"
        line = f"{row['film']}: {extent}; probability {row['probability']:.3f}"
        if row["notes"]:
            line += f" ({row['notes']})"
        lines.append(line)
    if len(rows) > 20:
        lines.append(f"… and {len(rows) - 20:,} more")
    positive = sum(row["pneumothorax"] for row in rows)
    lines.append(
        f"{counted(len(rows), 'film')}, {positive:,} with pneumothorax → {out} ({TABLE}, {LINES})"
    )
    if skipped:
        lines.append(
            f"Passed over: {counted(skipped, 'other file')} (no DICOM file, no PNG or JPEG picture)"
        )
    lines += [f"failed: {name}: {reason}" for name, reason in failed]
    return "\n".join(lines)
