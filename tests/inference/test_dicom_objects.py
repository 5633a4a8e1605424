"""DICOM objects of what was found, valid by the word of independent programs."""

import os
import shutil
import subprocess
import warnings

import numpy as np
import pydicom
import pytest
from inference.stand_ins import MAKER, SHRUNK, comment, edited, finding

from pneumo.data import dicom
from pneumo.inference import dicom_objects, outputs
from pneumo.inference.settings import Unsuitable

ODD = {
    "StudyDate": "2010.13.45",
    "PatientBirthDate": "unknown",
    "StudyTime": "25:61",
    "PatientSex": "male",
    "AccessionNumber": "x" * 40,
    "StudyID": "a" * 30,
    "PatientID": "line\nline",
    "FrameOfReferenceUID": "abc",
    "Laterality": "left",
    "PatientOrientation": ["left", "foot"],
    "PatientAge": "forty",
    "StudyDescription": "x" * 200,
}


def test_odd_tags_are_left_empty_in_what_is_written(film, tmp_path):
    dataset = pydicom.dcmread(film)
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, value in ODD.items():
            dataset.add_new(key, pydicom.datadict.dictionary_VR(key), value)
        mask = np.zeros((1024, 1024), np.uint8)
        mask[5:90, 5:90] = 1
        made = dicom_objects.segmentation(dataset, mask, MAKER)
    dicom_objects.write(tmp_path / "seg.dcm", made)
    assert made.PatientSex == ""
    validator = shutil.which("dciodvfy")
    if validator:
        said = subprocess.run(
            [validator, "-new", str(tmp_path / "seg.dcm")], capture_output=True, text=True
        ).stderr
        assert "Error" not in said


def test_a_report_says_present_or_absent(film):
    pytest.importorskip("highdicom")
    header = pydicom.dcmread(film)
    mask = np.zeros((1024, 1024), np.uint8)
    for value, expected, other in ((0, "Absent", "Present"), (1, "Present", "Absent")):
        mask[:100, :100] = value
        segmented = dicom_objects.segmentation(header, mask, MAKER)
        made = dicom_objects.structured_report(header, segmented, 0.9, 3.0, "", MAKER)
        text = str(made)
        assert expected in text or expected.lower() in text
        assert f"'{other}'" not in text


def test_millimetres_that_are_not_true_are_not_claimed(film):
    """1024 pixels of .139 mm would be a chest 142 mm wide, as in the challenge's headers."""
    found = finding(edited(film, **SHRUNK, PatientOrientation=["L", "F"]))
    assert found.area > 0
    assert found.area_mm2 is None
    described = outputs.describe(found)
    assert (described["area_mm2"], described["mm_plane"]) == (None, "")
    assert "no mm²: by its header it is 142 mm wide" in described["notes"]
    header = found.film.header
    segmented = dicom_objects.segmentation(header, found.stored_mask, MAKER)
    captured = dicom_objects.secondary_capture(header, found.capture(), MAKER)
    for made in (segmented, captured):
        for tag in made.iterall():
            assert "Spacing" not in tag.keyword


def test_dicom_outputs_are_valid_and_come_back_to_the_same_mask(real_data, tmp_path):
    """By dciodvfy (Debian's dicom3tools) and highdicom, for every film that can be read and its
    empty mask.
    """
    hd = pytest.importorskip("highdicom")
    validator = shutil.which("dciodvfy")
    if not validator:
        assert not os.environ.get("CI"), "CI must have dicom3tools"
    films = (
        sorted((real_data / "films").glob("*.dcm"))
        + sorted(real_data.glob("siim/dicom-images-train/**/*.dcm"))[:2]
    )
    tried = 0
    for path in films:
        try:
            found = finding(path.read_bytes(), unsuitable=Unsuitable.use)
        except dicom.FilmError:
            continue
        tried += 1
        header, mask = found.film.header, found.stored_mask
        made = {
            "seg": dicom_objects.segmentation(header, mask, MAKER),
            "empty": dicom_objects.segmentation(header, 0 * mask, MAKER),
            "capture": dicom_objects.secondary_capture(header, found.capture(), MAKER),
        }
        made["report"] = dicom_objects.structured_report(
            header, made["seg"], 0.9, 12.5, "left", MAKER
        )
        made["absent"] = dicom_objects.structured_report(
            header, made["empty"], 0.1, None, "", MAKER
        )
        for kind, one_made in made.items():
            dicom_objects.write(tmp_path / f"{kind}.dcm", one_made)
            if validator:
                said = subprocess.run(
                    [validator, "-new", str(tmp_path / f"{kind}.dcm")],
                    capture_output=True,
                    text=True,
                ).stderr
                assert "Error" not in said, (path.name, kind, said)
        for kind, expected in (("seg", mask), ("empty", 0 * mask)):
            back = hd.seg.segread(tmp_path / f"{kind}.dcm")
            assert np.array_equal(back.pixel_array.squeeze(), expected), path.name
            reference = back.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
            assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert tried >= 8


def test_dicom_outputs_say_what_made_them(film):
    found = finding(edited(film, PatientOrientation=["L", "F"]))
    header = found.film.header
    segmented = dicom_objects.segmentation(header, found.stored_mask, MAKER)
    captured = dicom_objects.secondary_capture(header, found.capture(), MAKER)
    report = dicom_objects.structured_report(header, segmented, 0.9, 12.5, "right", MAKER)
    for made in (segmented, captured, report):
        assert "research" in made.SeriesDescription.lower()
    assert "RecommendedDisplayCIELabValue" in segmented.SegmentSequence[0]
    assert captured.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID
    plain, burnt = found.overlay(), found.capture()
    assert np.array_equal(plain[:-60], burnt[:-60])
    assert not np.array_equal(plain[-60:], burnt[-60:])
    assert "not for diagnosis" in comment(report)
    assert "396 drawn phantoms" in comment(report)
    assert "Right" in str(report)  # the patient's side, since the orientation is known
