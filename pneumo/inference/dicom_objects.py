"""DICOM Segmentation, Secondary Capture and Structured Report of one film, for other systems.

All three belong to the film's study and patient and refer to the film. Where a film's header lacks
a value that these objects must have (DICOM PS3.3 A.51, A.8, A.35.3), or holds it in a wrong form,
the value is left empty rather than made up. highdicom makes the objects.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from pneumo import __version__, files
from pneumo.data import dicom
from pneumo.errors import PneumoError
from pneumo.masks import pictures


@dataclass
class Maker:
    """What made an object, as it stands in it."""

    name: str  # of the model
    experience: str  # what it was trained on, and its score
    unsuitable: str = ""  # why the film was none for it

    @property
    def notice(self) -> str:
        """What every reader of an object must know."""
        warning = f"FILM NOT SUITABLE: {self.unsuitable}. " if self.unsuitable else ""
        return f"{warning}{NOTICE}. {self.experience}."

    def series(self, what: str) -> str:
        """A SeriesDescription, at most 64 characters."""
        return f"{what}, {'FILM NOT SUITABLE, ' * bool(self.unsuitable)}research only"[:64]


class HeaderError(PneumoError):
    """A film whose header lacks what an object that refers to it needs."""


ENUMERATED = {"PatientSex": ("M", "F", "O"), "Laterality": ("L", "R")}
DATE = r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"  # YYYYMMDD
TIME = r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"  # HH, HHMM, HHMMSS or HHMMSS.FFFFFF
SHORT_TEXTS = ("AccessionNumber", "StudyID", "Modality", "BodyPartExamined")
LABEL = "Pneumothorax"
NOTICE = "Research, not for diagnosis"
# The tags of a film's header that the three objects copy, with whether a tag must be there even if
# it is empty. No spacing is copied: it may not be true, and would need a slice thickness beside it,
# which a film does not have.
COPIED = {
    "PatientID": True,
    "PatientName": True,
    "PatientBirthDate": True,
    "PatientSex": True,
    "PatientAge": False,
    "PatientSize": False,
    "PatientWeight": False,
    "StudyInstanceUID": False,
    "StudyID": True,
    "StudyDate": True,
    "StudyTime": True,
    "StudyDescription": False,
    "AccessionNumber": True,
    "ReferringPhysicianName": True,
    "SOPClassUID": False,
    "SOPInstanceUID": False,
    "SeriesInstanceUID": False,
    "SeriesNumber": False,
    "InstanceNumber": False,
    "Modality": False,
    "Rows": False,
    "Columns": False,
    "PatientOrientation": True,
    "Laterality": False,
    "BodyPartExamined": False,
    "FrameOfReferenceUID": False,
}


def segmentation(header: Dataset, mask: np.ndarray, maker: Maker) -> Dataset:
    """A DICOM Segmentation of one segment, binary.

    Args:
        header: the film's tags, with or without pixels.
        mask: (rows, columns) as the file stores the film, non-zero is pneumothorax; may be empty.
        maker: what made it, for the record.

    Raises:
        HeaderError: the film's header has no valid identifiers to refer to.
        PneumoError: highdicom is not installed.
    """
    hd = _highdicom()
    from pydicom.sr.codedict import codes

    source = _cleaned(header)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"pneumo {maker.name}"[:64],
        version=__version__,
        family=codes.cid7162.ArtificialIntelligence,
        parameters={"training": maker.experience},
    )
    segment = hd.seg.SegmentDescription(
        1,
        LABEL,
        codes.SCT.MorphologicallyAbnormalStructure,
        codes.SCT.Pneumothorax,
        hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm,
        display_color=hd.color.CIELabColor.from_rgb(*pictures.PREDICTION),
    )
    with _quiet():
        made = hd.seg.Segmentation(
            [source],
            (mask != 0).astype(np.uint8)[None],
            hd.seg.SegmentationTypeValues.BINARY,
            [segment],
            hd.UID(),
            _series_number(source, 1),
            hd.UID(),
            1,
            "pneumo",
            "U-Net",
            __version__,
            "0",
            content_label="PNEUMOTHORAX",
            content_description=NOTICE,
            series_description=maker.series("Pneumothorax segmentation"),
            omit_empty_frames=False,
        )
    made.PatientOrientation = source.get("PatientOrientation", "")
    return made


def secondary_capture(header: Dataset, picture: np.ndarray, maker: Maker) -> Dataset:
    """A Secondary Capture of a picture: the film with what was found burnt in.

    The picture is RGB uint8 (rows, columns, 3) and bears the notice itself. Raises PneumoError.
    """
    hd = _highdicom()
    from pydicom.sr.codedict import codes

    source = _cleaned(header)
    with _quiet():
        made = hd.sc.SCImage.from_ref_dataset(
            source,
            picture,
            hd.PhotometricInterpretationValues.RGB,
            8,
            hd.CoordinateSystemNames.PATIENT,
            hd.UID(),
            _series_number(source, 2),
            hd.UID(),
            1,
            "pneumo",
            patient_orientation=("L", "F"),
            series_description=maker.series("Pneumothorax overlay"),
        )
    if dicom.is_frontal(dicom.Tags((0, 0), orientation=_orientation(header))) is None:
        made.PatientOrientation = ""  # the film's header does not tell its orientation
    made.Laterality = source.get("Laterality", "")
    made.BurnedInAnnotation = "YES"
    made.DerivationDescription = maker.notice[:1024]
    made.ImageComments = maker.notice[:10_240]
    film = Dataset()
    film.ReferencedSOPClassUID = source.SOPClassUID
    film.ReferencedSOPInstanceUID = source.SOPInstanceUID
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    film.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(purpose)]
    made.SourceImageSequence = [film]
    return made


def structured_report(
    header: Dataset,
    segmented: Dataset,
    probability: float,
    area_mm2: float | None,
    side: str,
    maker: Maker,
    remark: str = "",
) -> Dataset:
    """A Structured Report (TID 1500): what was found, on which side, how large, how probable.

    Args:
        header: the film's tags.
        segmented: what ``segmentation`` made of it.
        probability: the image-level score, 0 to 1.
        area_mm2: left out where the film's spacing is not known or not believed.
        side: the patient's, left, right or both; empty where it is not known.
        maker: what made it, for the record.
        remark: where the millimetres are true, or why there are none.

    Raises:
        PneumoError: as ``segmentation``.
    """
    hd = _highdicom()
    from pydicom.sr.codedict import codes

    source = _cleaned(header)
    device = hd.sr.ObserverContext(
        codes.DCM.Device, hd.sr.DeviceObserverIdentifyingAttributes(hd.UID(), name="pneumo")
    )
    algorithm = hd.sr.AlgorithmIdentification(
        name=f"pneumo {maker.name}"[:64], version=__version__, parameters=[maker.experience]
    )
    measured = [
        hd.sr.Measurement(
            codes.DCM.Probability,
            round(100 * probability, 1),
            codes.UCUM.Percent,
            algorithm_id=algorithm,
        )
    ]
    if area_mm2 is not None:
        measured.append(
            hd.sr.Measurement(
                codes.SCT.Area,
                round(area_mm2, 1),
                codes.UCUM.SquareMillimeter,
                algorithm_id=algorithm,
            )
        )
    tracking = hd.sr.TrackingIdentifier(hd.UID(), LABEL)
    present = bool(np.any(segmented.pixel_array))
    presence = codes.SCT.Present if present else codes.SCT.Absent
    state = hd.sr.QualitativeEvaluation(codes.SCT.Pneumothorax, presence)
    sides = {"left": codes.SCT.Left, "right": codes.SCT.Right, "both": codes.SCT.RightAndLeft}
    sites = [hd.sr.FindingSite(codes.SCT.Lung, sides[side])] if present and side else None
    if present:
        film = hd.sr.SourceImageForSegmentation(source.SOPClassUID, source.SOPInstanceUID)
        region = hd.sr.ReferencedSegmentationFrame(
            segmented.SOPClassUID, segmented.SOPInstanceUID, 1, 1, film
        )
        # a segment number may not stand beside a frame number (PS3.3 table C.17.3-1)
        del region[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            referenced_segment=region,
            finding_type=codes.SCT.Pneumothorax,
            measurements=measured,
            finding_sites=sites,
            qualitative_evaluations=[state],
        )
    else:
        # there is no region to refer to, so the report states that the finding is absent
        group = hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking, measurements=measured[:1], qualitative_evaluations=[state]
        )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=hd.sr.CodedConcept("399208008", "SCT", "Plain X-ray of chest"),
        imaging_measurements=[group],
    )
    comment = hd.sr.TextContentItem(
        codes.DCM.Comment,
        f"{maker.notice} {remark}".strip(),
        hd.sr.RelationshipTypeValues.CONTAINS,
    )
    content[0].ContentSequence.append(comment)
    with _quiet():
        return hd.sr.ComprehensiveSR(
            [source, segmented] if present else [source],
            content[0],
            hd.UID(),
            _series_number(source, 3),
            hd.UID(),
            1,
            "pneumo",
            series_description=maker.series("Pneumothorax measurement"),
        )


def write(path: Path, made: Dataset) -> None:
    """Write an object, whole or not at all."""
    files.write_bytes(path, content(made))


def content(made: Dataset) -> bytes:
    """An object as the bytes of a file."""
    out = BytesIO()
    with _quiet():
        made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def require() -> None:
    """Raise PneumoError if highdicom is not installed."""
    _highdicom()


def _highdicom() -> Any:
    try:
        import highdicom
    except ModuleNotFoundError:
        raise PneumoError("DICOM outputs need highdicom: pip install -e '.[dicom]'") from None
    return highdicom


def _cleaned(header: Dataset) -> Dataset:
    """The tags that are copied, in a form that other systems accept, without pixels."""
    source = Dataset()
    with _quiet():
        for key, needed in COPIED.items():
            try:
                value = header.get(key)
                value = _right(key, value) if value is not None and value != "" else None
            except Exception:  # pydicom raises many kinds of exception on values it cannot read
                value = None
            if value is not None:
                setattr(source, key, value)
            elif needed:
                setattr(source, key, "")
    for key in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not UID(str(source.get(key, ""))).is_valid:
            raise HeaderError(f"its header has no valid {key}, so nothing can refer to it")
    source.SpecificCharacterSet = "ISO_IR 192"
    source.file_meta = pydicom.dataset.FileMetaDataset()
    return source


def _right(key: str, value: Any) -> Any | None:
    """A tag's value in the form DICOM asks for (PS3.5 section 6.2); None if it has another."""
    if key == "PatientAge":
        # the challenge's files say 38 where DICOM wants 038Y
        years = re.fullmatch(r"0*(\d{1,3})[Yy]?", str(value))
        if years:
            return f"{int(years[1]):03d}Y"
        return str(value) if re.fullmatch(r"\d{3}[DWMY]", str(value)) else None
    if key == "PatientOrientation":
        if len(value) != 2:
            return None
        directions = [re.fullmatch("[LRAPHF]{1,3}", str(direction)) for direction in value]
        return value if all(directions) else None
    if isinstance(value, MultiValue):
        return None
    text = str(value)
    if key in ENUMERATED:
        return text if text in ENUMERATED[key] else None
    if key.endswith("Date"):
        return text if re.fullmatch(DATE, text) else None
    if key.endswith("Time"):
        return text if re.fullmatch(TIME, text) else None
    if key.endswith("UID"):
        return value if UID(text).is_valid else None
    if key in ("SeriesNumber", "InstanceNumber"):
        return value if re.fullmatch(r"[+-]?\d{1,9}", text.strip()) else None
    if key in ("PatientSize", "PatientWeight"):
        return value if re.fullmatch(r"\d{1,3}(\.\d{1,8})?", text.strip()) else None
    if key in ("Rows", "Columns"):
        return value
    longest = 16 if key in SHORT_TEXTS else 64
    if len(text) > longest:
        return None
    # a backslash separates values; pydicom puts U+FFFD where it could not decode a character
    if any(ord(character) < 32 or character in "\\\ufffd" for character in text):
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return value


def _orientation(header: Dataset) -> tuple[str, str] | None:
    value = header.get("PatientOrientation")
    if isinstance(value, MultiValue) and len(value) == 2:
        return str(value[0]), str(value[1])
    return None


def _series_number(source: Dataset, kind: int) -> int:
    """A series number apart from the film's own, and another for each kind of object."""
    number = source.get("SeriesNumber")
    of_film = int(number) % 90 if number is not None else 0
    return 9000 + 10 * of_film + kind


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # highdicom and pydicom warn of empty masks and of odd values in a film's header
        warnings.simplefilter("ignore", UserWarning)
        yield
