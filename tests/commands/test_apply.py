"""A bundle on any film: right geometry, right tables, one line for what cannot be used, nothing of
the patient in names.
"""

import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from conftest import complaint, launch
from PIL import Image

from pneumo.data import dicom
from pneumo.data.settings import MaskSize
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.inference import applying, bundle, dicom_objects, findings, inputs, outputs, server
from pneumo.inference.privacy import OutputNames
from pneumo.inference.settings import Polarity, Predict, Save, Unsuitable, Use, View
from pneumo.masks import rle
from pneumo.masks.settings import Postprocess, Removal, Rule


class Bright(bundle.Bundle):
    """Stands in for a bundle: probability .9 in the upper left quarter of the upright film."""

    def __init__(self, rule=None):
        card = {"name": "bright", "members": [], "data": [{"format": "siim"}]}
        super().__init__(Path(), card, [], rule or Postprocess(0.5, 0), False, "torch")

    def levels(self, film, tta=None):
        levels = np.zeros((32, 32), np.uint8)
        levels[:16, :16] = 230
        return levels


def edited(path, **tags):
    """A film's bytes with other tags."""
    dataset = pydicom.dcmread(path)
    for key, value in tags.items():
        setattr(dataset, key, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def finding(content, rule=None, polarity=Polarity.tags, **use):
    reading = findings.read("x.dcm", content, Use(polarity=polarity, **use))
    return findings.find(reading, Bright(), rule or Postprocess(0.5, 0))


def test_the_card_says_everything_and_nothing_is_pickled(model, finished):
    card = bundle.read_card(model)
    assert {
        "name",
        "commit",
        "input",
        "output",
        "postprocess",
        "thresholds",
        "scores",
        "data",
        "licence",
        "intended_use",
        "limits",
    } <= set(card)
    assert card["licence"] == "CC0"
    assert "not for diagnosis" in card["limits"]
    assert card["thresholds"] == "declared by the experiment"
    assert (
        card["scores"]["intervals"]["dice"][0]
        <= card["scores"]["scores"]["dice"]
        <= card["scores"]["intervals"]["dice"][1]
    )
    assert card["members"][0]["onnx_difference"] < 1e-4
    assert str(finished[0]) not in json.dumps(card)
    assert {path.suffix for path in model.iterdir()} == {".json", ".safetensors", ".onnx"}


def test_both_engines_give_the_same_mask(model, film):
    pixels = dicom.read(film).pixels
    torch, onnx = (
        bundle.load(model, engine=engine).levels(pixels).astype(int) for engine in ("torch", "onnx")
    )
    assert np.abs(torch - onnx).max() <= 1
    assert torch.max() > 0


def test_a_bundle_that_was_tampered_with_is_refused(model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    weights = copy / "weights-0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"zzzz")
    with pytest.raises(PneumoError, match="not the file that the card describes"):
        bundle.load(copy, engine="torch")
    onnx = copy / "weights-0.onnx"
    content = bytearray(onnx.read_bytes())
    content[5_000_000:5_001_000] = bytes(1000)
    onnx.write_bytes(content)
    with pytest.raises(PneumoError, match="not the file that the card describes"):
        bundle.load(copy, engine="onnx")
    card = json.loads((copy / "card.json").read_text())
    for elsewhere in ("../model/weights-0.safetensors", "weights-0.pth"):
        card["members"][0]["weights"] = elsewhere
        (copy / "card.json").write_text(json.dumps(card))
        with pytest.raises(PneumoError, match="outside the bundle"):
            bundle.load(copy)
    with pytest.raises(PneumoError, match=r"pneumo\.export"):
        bundle.load(tmp_path)


def test_the_same_submission_from_bundle_and_run(model, finished, real_data, tmp_path):
    """The challenge's films through the bundle, and through the run: the same run lengths."""
    films = real_data / "siim" / "dicom-images-train"
    done = launch(
        finished[0],
        "run=runs/exp5/*/*",
        f"on={films}",
        f"out={tmp_path / 'run.csv'}",
        module="pneumo.submission",
    )
    assert done.returncode == 0, done.stderr
    for engine in ("torch", "onnx"):
        applying.apply(
            Predict(model=str(model), input=str(films), out=str(tmp_path / engine), engine=engine)
        )
        ours, theirs = (
            siim.read_table(path).rows
            for path in (tmp_path / engine / "rle.csv", tmp_path / "run.csv")
        )
        assert ours.keys() == theirs.keys()
        for image in ours:
            mask, expected = (rle.decode(table[image][0].text) for table in (ours, theirs))
            # ONNX Runtime adds up in another order: a pixel at a level's border may differ
            assert np.count_nonzero(mask != expected) <= (8 if engine == "onnx" else 0), image


def test_mask_area_and_side_in_the_films_own_geometry(film):
    """A film stored lying on its side: the mask comes back lying, the side is that of the upright
    film.
    """
    upright = finding(edited(film, PixelSpacing=[0.5, 0.25]))
    assert upright.area == pytest.approx(
        512 * 512, rel=0.01
    )  # the map is enlarged 32 times, so its edge is soft
    assert upright.area_mm2 == upright.area * 0.125
    assert (upright.image_side, upright.side) == (
        "left",
        "patient's right if upright as usual, image left",
    )
    lying = finding(edited(film, PatientOrientation=["F", "L"]))
    assert (lying.image_side, lying.side) == ("left", "patient's right")
    assert finding(edited(film, PatientOrientation=["F", "L"])).notes == [
        "turned upright by its tags (PatientOrientation F\\L)"
    ]
    assert lying.stored_mask[:500, :500].all()
    mirrored = finding(edited(film, PatientOrientation=["R", "F"]))
    assert mirrored.image_side == "left"
    assert mirrored.stored_mask[:500, 524:].all()
    assert not mirrored.stored_mask[:, :500].any()


SHRUNK = {"PixelSpacing": [0.139, 0.139], "ImagerPixelSpacing": [0.139, 0.139]}


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


def comment(report):
    """The text that a Structured Report ends with."""
    (text,) = (
        item.TextValue
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    )
    return text


def test_a_table_gives_the_millimetres_that_the_header_lacks(model, film, tmp_path):
    path = tmp_path / "shrunk.dcm"
    path.write_bytes(edited(film, **SHRUNK))
    (tmp_path / "entry.csv").write_text("image,width,height,spacing\n1_000.png,3056,2544,0.139\n")
    (tmp_path / "names.csv").write_text("id,nih\nshrunk,1_000.png\n")
    tables = {
        "spacing": str(tmp_path / "entry.csv"),
        "spacing_names": str(tmp_path / "names.csv"),
    }

    def applied(name, **table):
        """The film's line in the table, and its report."""
        settings = Predict(
            model=str(model),
            input=str(path),
            out=str(tmp_path / name),
            unsuitable=Unsuitable.use,
            postprocess=Rule(binarization_threshold=0.01, removal_threshold=0),
            save=Save(report=True),
            **table,
        )
        applying.apply(settings)
        lines = (tmp_path / name / "films.csv").read_text(encoding="utf-8").splitlines()
        (row,) = csv.DictReader(lines)
        return row, pydicom.dcmread(tmp_path / name / "shrunk-report.dcm")

    row, report = applied("without")
    assert (row["area_mm2"], row["mm_plane"]) == ("", "")
    assert "no mm²: by its header it is 142 mm wide" in row["notes"]
    assert "No mm²: by its header it is 142 mm wide" in comment(report)
    assert "mm2" not in str(report)  # the unit's code
    row, report = applied("with", **tables)
    true = (0.139 * 2544 / 1024) * (0.139 * 3056 / 1024)
    assert float(row["area_mm2"]) == pytest.approx(int(row["area_px"]) * true, abs=0.1)
    assert row["mm_plane"] == "plane not stated"
    assert "mm²" not in row["notes"]
    assert comment(report).endswith("mm²: plane not stated.")
    assert "mm2" in str(report)


@pytest.mark.parametrize("size", MaskSize)
def test_the_page_reads_run_lengths_at_the_size_that_is_said(tmp_path, size):
    """A picture of another size: the challenge's at 1024², or its own."""
    rows, columns = shape = (600, 400) if size is MaskSize.film else (1024, 1024)
    mask = np.zeros(shape, np.uint8)
    mask[rows // 2 :, columns // 4 : columns // 2] = 1
    (tmp_path / "t.csv").write_text(f"ImageId,EncodedPixels\na,{rle.encode(mask)}\n")
    picture = io.BytesIO()
    Image.fromarray(np.full((600, 400), 90, np.uint8)).save(picture, "PNG")
    films = server.Films(Bright(), View(annotations=str(tmp_path / "t.csv"), mask_size=size))
    truth = films.kept[films.add("a.png", picture.getvalue())].truth
    assert truth.shape == (600, 400)
    assert truth[300:, 100:200].all()
    assert truth.sum() == 300 * 100


def test_names_without_a_table_of_spacings_are_refused():
    with pytest.raises(PneumoError, match="spacing_names without spacing"):
        Use(spacing_names="nih_id.csv")


def test_any_size_and_aspect():
    for shape in ((400, 300), (37, 900), (2000, 1501)):
        picture = io.BytesIO()
        Image.fromarray(np.full(shape, 90, np.uint8)).save(picture, "PNG")
        found = finding(picture.getvalue())
        assert found.stored_mask.shape == found.film.stored_shape == shape
        assert abs(found.area / (shape[0] * shape[1]) - 0.25) < 0.02
        assert max(found.overlay().shape) <= 1024
        assert found.area_mm2 is None


def test_removal_threshold_is_in_proportion_and_the_probability_agrees_with_the_mask(film):
    content = film.read_bytes()
    kept, emptied = (finding(content, Postprocess(0.5, area)) for area in (240_000, 270_000))
    assert kept.area > 0
    assert kept.probability == pytest.approx(230 / 255)
    assert emptied.area == 0
    assert emptied.probability < 0.5


def test_a_film_that_contradicts_its_tags_is_shown_with_dark_lungs_and_says_so(film, real_data):
    wrong = edited(film, PhotometricInterpretation="MONOCHROME1")
    as_tagged, mended = finding(wrong), finding(wrong, polarity=Polarity.auto)
    assert np.array_equal(255 - as_tagged.film.pixels, mended.film.pixels)
    assert "inverted" in mended.notes[0]
    for path in sorted(real_data.glob("siim/dicom-images-train/**/*.dcm")) + sorted(
        real_data.glob("siim/png/*.png")
    ):
        assert not dicom.looks_inverted(dicom.read(path).pixels), path
    assert dicom.looks_inverted(dicom.read(real_data / "films" / "Fake_MONOHR1.dcm").pixels)


def test_the_command_on_everything_at_once(model, film, tmp_path):
    """Folders, a zip, a picture, a name of non-Latin letters, and files that are no films."""
    folder = tmp_path / "фильмы и снимки"
    folder.mkdir()
    shutil.copy(film, folder / "气胸 1.dcm")
    (folder / "notes.txt").write_text("not a film")
    (folder / "broken.dcm").write_bytes(film.read_bytes()[:3000])
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(film, "in/one.dcm")
    picture = tmp_path / "two.png"
    Image.fromarray(dicom.read(film).pixels).save(picture)
    colour = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(
        colour
    )
    (folder / "loop").symlink_to(folder)
    asked = f"input=['{folder}',{tmp_path / 'films.zip'},{picture},{colour}]"
    switches = ("save.segmentation=true", "save.capture=true", "save.report=true")
    done = launch(
        tmp_path, f"model={model}", asked, "out=masks", *switches, module="pneumo.predict"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: 2 of 5 films could not be used (listed above)"]
    assert "Passed over: 1 other file (" in done.stdout
    assert "broken.dcm: " in done.stdout
    assert "photo.jpg: a colour picture" in done.stdout
    out = tmp_path / "masks"
    with open(out / "films.csv", newline="") as file:
        rows = {row["film"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == ["one", "two", "气胸_1"]
    lines = json.loads((out / "films.json").read_text())
    assert [one["film"] for one in lines["films"]] == list(rows)
    assert len(lines["failed"]) == 2
    runs = {
        image: siim.Table(out, found).masks(image)
        for image, found in siim.read_table(out / "rle.csv").rows.items()
        for found in [{image: found}]
    }
    for name, row in rows.items():
        mask = cv2.imread(str(out / f"{name}-mask.png"), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).sum() == int(row["area_px"])
        assert np.array_equal(rle.union(runs[name], mask.shape), mask // 255)
        assert cv2.imread(str(out / f"{name}-overlay.png"), cv2.IMREAD_UNCHANGED).shape == (
            1024,
            1024,
            3,
        )
    assert sorted(path.name for path in out.glob("*.dcm")) == sorted(
        f"{n}-{k}.dcm" for n in ("one", "气胸_1") for k in ("seg", "overlay", "report")
    )
    for row in rows.values():
        assert len(row["sha256"]) == 64
        assert Path(row["source"]).name
    plain = launch(
        tmp_path,
        f"model={model}",
        f"input={folder / '气胸 1.dcm'}",
        "out=other masks",
        module="pneumo.predict",
    )
    assert plain.returncode == 0, plain.stderr
    assert (tmp_path / "other masks" / "气胸_1-mask.png").is_file()
    assert "out=" in complaint(
        launch(tmp_path, f"model={model}", "input=masks", "out=masks", module="pneumo.predict")
    )
    assert "colour" not in complaint(
        launch(tmp_path, f"model={model}", "input=/absent", module="pneumo.predict")
    )


def test_a_colour_picture_is_taken_as_grey_when_asked(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(
        picture, "PNG"
    )
    with pytest.raises(PneumoError, match="colour=true"):
        findings.read("x.png", picture.getvalue(), Use())
    assert findings.read("x.png", picture.getvalue(), Use(colour=True)).film.pixels.shape == (
        50,
        60,
    )


def test_names_tell_nothing_of_the_patient(film):
    names = OutputNames()
    doe = edited(film, PatientName="Doe^John", PatientID="4711-08")
    film_of_doe = findings.read("x", doe, Use()).film
    uid = film_of_doe.uid
    assert names.of("DOE_chest.dcm", film_of_doe, doe) == uid
    assert names.of("471108.dcm", film_of_doe, doe) == f"{uid}-2"
    assert names.of("chest pa.dcm", film_of_doe, doe) == "chest_pa"
    assert names.of("other/Chest PA.dcm", film_of_doe, doe) == "Chest_PA-2"
    assert names.renamed == 2
    assert len(names.of("я" * 200 + ".dcm", film_of_doe, doe).encode()) <= 150
    assert OutputNames(keep=True).of("DOE_chest.dcm", film_of_doe, doe) == "DOE_chest"
    film_of_doe.uid = "4711.08"  # an id that holds the patient's own
    digest = hashlib.sha256(doe).hexdigest()[:12]
    assert OutputNames().of("DOE_chest.dcm", film_of_doe, doe) == f"film-{digest}"
    assert OutputNames().shown("archive/Doe/1.dcm", doe) == f"film-{digest}"
    assert OutputNames().shown("archive/1.dcm", doe) == "archive/1.dcm"


@pytest.mark.parametrize(
    ("patient", "file"),
    [
        (
            {"PatientName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
            "山田太郎.dcm",
        ),
        ({"PatientName": "Wu^Li"}, "LI_WU_17.dcm"),
        ({"PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 192"}, "Mueller.dcm"),
        ({"PatientBirthDate": "19800203"}, "19800203_F.dcm"),
        ({"AccessionNumber": "A-77123"}, "a77123-pa.dcm"),
    ],
)
def test_names_in_other_spellings_tell_nothing_either(film, patient, file):
    content = edited(film, **patient)
    found = findings.read("x", content, Use()).film
    assert OutputNames().of(file, found, content) == found.uid


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


def test_deep_pictures_keep_their_grey_levels():
    """A film of 12 bits in a picture of 16."""
    levels = (np.arange(64 * 64).reshape(64, 64) % 4096).astype(np.uint16)
    picture = io.BytesIO()
    Image.fromarray(levels).save(picture, "PNG")
    found = findings.read("x.png", picture.getvalue(), Use()).film.pixels
    assert (found.min(), found.max()) == (0, 255)
    assert len(np.unique(found)) == 256


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(film, monkeypatch):
    plain = pydicom.dcmread(film)
    plain.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    plain.PixelData = bytes(1024 * 1024)
    plain["PixelData"].is_undefined_length = False
    out = io.BytesIO()
    plain.save_as(out)
    assert findings.read("x.dcm", out.getvalue(), Use()).film.pixels.shape == (
        1024,
        1024,
    )
    monkeypatch.setattr(dicom, "MAX_UNPACKED", 1 << 19)
    with pytest.raises(dicom.FilmError, match="unpacks to more than"):
        findings.read("x.dcm", out.getvalue(), Use())


def test_notes_say_what_tags_do_not(film):
    assert any("orientation unknown" in note for note in finding(film.read_bytes()).notes)
    assert finding(edited(film, PatientOrientation=["L", "F"])).notes == []


def test_the_page_judges_by_the_whole_rule(film):
    """A triplet rule: other sliders must not drop its top threshold."""
    rule = Postprocess(0.3, 1000, top_threshold=0.95)
    films = server.Films(Bright(rule), View())
    key = films.add("x.dcm", film.read_bytes())
    assert films.describe(key)["pneumothorax"] is False
    assert films.at(key, 0.4, 500).area == 0
    assert films.at(key, 0.4, 0).area > 0


@pytest.mark.parametrize("removal", ["total", "component"])
def test_the_probability_exceeds_the_threshold_exactly_where_there_is_a_mask(removal):
    rng = np.random.default_rng(0)
    levels = cv2.resize(rng.integers(0, 256, (12, 12), dtype=np.uint8), (96, 96))
    for area in (1, 200, 600, 2000):
        for threshold in (0.2, 0.5, 0.8):
            rule = Postprocess(threshold, area, 96, Removal[removal])
            found = findings.judged(findings.Reading(None), levels, rule)
            assert (found.area > 0) == (found.probability > threshold)


MAKER = dicom_objects.Maker(
    "m", "Model m: trained on 396 drawn phantoms; Dice 0.798 on 44 held out"
)


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


def test_every_real_film_is_right_or_one_line(model, real_data, tmp_path):
    done = launch(
        tmp_path,
        f"model={model}",
        f"input=[{real_data / 'siim'},{real_data / 'films'}]",
        "out=masks",
        "unsuitable=use",
        module="pneumo.predict",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"^failed: .*JPEG Extended", done.stdout, re.MULTILINE)
    with open(tmp_path / "masks" / "films.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 71 + 8
    tibiae = [row for row in rows if "BodyPartExamined EXTREMITY" in row["notes"]]
    assert len(tibiae) >= 4
    assert all(row["notes"].startswith("NOT SUITABLE: not a chest") for row in tibiae)
    assert all("trained on drawn phantoms" in row["notes"] for row in rows)
    assert not list((tmp_path / "masks").glob("*.partial"))


REFUSED = {
    "no pixels": (lambda film: without_pixels(film), "without an image"),
    "a CT slice": (lambda film: edited(film, Modality="CT"), "modality CT"),
    "many frames": (lambda film: edited(film, NumberOfFrames=5), "5 frames"),
    "claims 60000 x 60000": (lambda film: edited(film, Rows=60000, Columns=60000), "60000 x 60000"),
    "random bytes": (lambda film: random.Random(0).randbytes(5000), "not a DICOM file|damaged"),
    "nothing": (lambda film: b"", "not a DICOM file|damaged"),
}


def without_pixels(film):
    dataset = pydicom.dcmread(film)
    del dataset.PixelData
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_film_is_refused_by_name(film, case):
    make, reason = REFUSED[case]
    with pytest.raises(dicom.FilmError, match=reason) as caught:
        findings.read("here/x.dcm", make(film), Use())
    assert "here/x.dcm" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_at_every_tenth(film):
    content = film.read_bytes()
    for tenth in range(1, 10):
        try:
            findings.read("x.dcm", content[: len(content) * tenth // 10], Use())
        except dicom.FilmError as error:
            assert "x.dcm" in str(error)  # noqa: PT017


UNSUITABLE = {
    "a tibia": ({"BodyPartExamined": "EXTREMITY"}, "not a chest by its tags"),
    "a lateral film": ({"ViewPosition": "LL"}, "not a frontal film by its tags"),
    "a lateral film by its axes": ({"PatientOrientation": ["P", "F"]}, "not a frontal film"),
}


@pytest.mark.parametrize("case", UNSUITABLE)
def test_a_film_of_something_else_is_refused_or_marked_everywhere(film, case, tmp_path):
    tags, reason = UNSUITABLE[case]
    content = edited(film, **tags)
    with pytest.raises(dicom.FilmError, match=f"{reason}.*unsuitable=use"):
        finding(content)
    found = finding(content, unsuitable=Unsuitable.use)
    assert found.notes[0].startswith(f"NOT SUITABLE: {reason}")
    proper = finding(film.read_bytes())
    assert not np.array_equal(found.overlay()[-60:], proper.overlay()[-60:])  # burnt in
    maker = dicom_objects.Maker("m", "Model m", found.reading.unsuitable)
    assert maker.notice.startswith(f"FILM NOT SUITABLE: {reason}")
    header = found.film.header
    captured = dicom_objects.secondary_capture(header, found.capture(), maker)
    assert "NOT SUITABLE" in captured.SeriesDescription
    assert reason in captured.DerivationDescription


def test_parts_of_the_chest_and_words_of_no_standard_are_no_reason_to_refuse(film):
    for part in ("CHEST", "CHEST AP", "LUNG", "TORAX", "", "RIBS"):
        assert not finding(edited(film, BodyPartExamined=part)).reading.unsuitable


def test_a_film_unlike_those_of_training_is_refused(model, film):
    used = bundle.load(model)
    pixels = dicom.read(film).pixels
    assert used.unlike(pixels) == ""
    assert "correlation" in used.unlike(255 - pixels)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(noise).save(picture, "PNG")
    with pytest.raises(dicom.FilmError, match="does not look like the films"):
        findings.read("x.png", picture.getvalue(), Use(), used)


def test_limits_follow_from_the_data(model, film, real_data):
    used = bundle.load(model)
    assert "phantoms, not on X-rays" in used.card["limits"]
    assert "adults" not in used.card["limits"]
    assert re.search(r"trained on 18 drawn phantoms.*Dice [01]\.\d+ on 6 held out", used.experience)
    assert "adults from one source" in bundle.limits(["siim"])
    real = sorted(real_data.glob("siim/dicom-images-train/**/*.dcm"))[0]
    use = Use(unsuitable=Unsuitable.use)
    assert "phantoms, not on X-rays" in findings.read("x", real.read_bytes(), use, used).notes[-1]
    assert not any("phantom" in n for n in findings.read("x", film.read_bytes(), use, used).notes)


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


def test_archives_that_mean_harm_are_refused_or_stopped(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.dcm", b"0" * 30_000_000)
        archive.writestr("more.zip", b"PK")
        archive.writestr("small.dcm", b"x")
    found = list(inputs.sources([str(bomb)], 1 << 20))
    assert ["unpacks to more than max_megabytes=1" in (one.fault or "") for one in found] == [
        True,
        False,
        False,
    ]
    assert "archive within an archive" in found[1].fault
    assert found[2].content == b"x"
    monkeypatch.setattr(inputs, "MAX_UNPACKED", 1 << 20)
    assert "the rest was not read" in list(inputs.sources([str(bomb)], 1 << 30))[-1].fault
    monkeypatch.setattr(inputs, "MAX_MEMBERS", 2)
    (only,) = inputs.sources([str(bomb)], 1 << 20)
    assert "archive of 3 files" in only.fault
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bomb.read_bytes()[:200])
    (only,) = inputs.sources([str(damaged)], 1 << 20)
    assert "damaged archive" in only.fault
    later = bytearray(bomb.read_bytes())
    directory = later.index(b"PK\x01\x02")
    later[directory + 6] = 99  # made for version 9.9 of the format
    (tmp_path / "later.zip").write_bytes(later)
    (only,) = inputs.sources([str(tmp_path / "later.zip")], 1 << 20)
    assert "zip file version 9.9" in only.fault
    big = tmp_path / "big.dcm"
    big.write_bytes(b"0" * 2_000_000)
    (only,) = inputs.sources([str(big)], 1 << 20)
    assert "max_megabytes=1" in only.fault
    assert list(tmp_path.parent.glob("evil*")) == []


def test_a_typed_rule_and_model_and_run_together(model, finished):
    assert "both set" in complaint(
        launch(finished[0], f"model={model}", "run=x", "input=y", module="pneumo.predict")
    )
    assert Rule(binarization_threshold=0.3).over(Postprocess(0.5)).binarization_threshold == 0.3
    assert Save().overlay


MUTATE = """
import io, random, resource, sys
from pathlib import Path
import numpy as np
from pneumo.data import dicom
from pneumo.inference import findings
from pneumo.inference.settings import Unsuitable, Use
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
rng = random.Random(seed)
originals = [path.read_bytes() for path in sorted(folder.iterdir())]
read = refused = 0
for _ in range(count):
    content = bytearray(rng.choice(originals))
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        end = len(content) if rng.random() < 0.4 else min(1500, len(content))
        place = rng.randrange(end)
        if kind < 0.5:
            content[place] = rng.randrange(256)
        elif kind < 0.7:
            content[place : place + 2] = rng.randbytes(2)
        elif kind < 0.85:
            del content[place : place + rng.randint(1, 64)]
        else:
            content[place:place] = rng.randbytes(rng.randint(1, 64))
    try:
        use = Use(colour=rng.random() < 0.5, max_megapixels=4, unsuitable=Unsuitable.use)
        film = findings.read("x", bytes(content), use).film
        assert film.pixels.dtype == np.uint8 and film.pixels.ndim == 2
        read += 1
    except dicom.FilmError as error:
        assert str(error).startswith("x"), error
        refused += 1
print(read, refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_ten_thousand_mutated_films_crash_nothing(film, real_data, tmp_path):
    """Pictures and DICOM files, compressed and plain, changed at random places: read or refused,
    never more, in 4 GiB.
    """
    pixels = dicom.read(film).pixels[::8, ::8]
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    plain = pydicom.dcmread(film)
    plain.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    plain.PixelData, plain.Rows, plain.Columns = pixels.tobytes(), *pixels.shape
    plain["PixelData"].is_undefined_length = False
    plain.save_as(tmp_path / "c.dcm")
    plain.compress(pydicom.uid.RLELossless)
    plain.save_as(tmp_path / "d.dcm")
    small = io.BytesIO()
    Image.fromarray(pixels).save(small, "JPEG")
    plain.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    plain.PixelData = pydicom.encaps.encapsulate([small.getvalue()])
    plain["PixelData"].is_undefined_length = True
    plain.save_as(tmp_path / "e.dcm")
    shutil.copy(real_data / "films" / "CR-MONO1-10-chest.dcm", tmp_path / "f.dcm")
    done = subprocess.run(
        [sys.executable, "-c", MUTATE, "0", "10000", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    read, refused, peak = map(int, done.stdout.split())
    assert read + refused == 10_000
    assert min(read, refused) > 500
    assert peak < 2000


def test_export_replaces_only_bundles(model, finished, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    line = complaint(
        launch(
            finished[0],
            "run=runs/exp5/*/*",
            f"out={tmp_path}",
            "resamples=0",
            module="pneumo.export",
        )
    )
    assert "not a bundle" in line
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_an_ensemble_is_the_mean_of_its_members(finished, film, tmp_path):
    place = tmp_path / "both"
    wanted = "run=[runs/exp5/*/*,runs/exp5_stage1/*/*]"
    done = launch(
        finished[0], wanted, "blend=mean", f"out={place}", "resamples=0", module="pneumo.export"
    )
    assert done.returncode == 0, done.stderr
    both = bundle.load(place, engine="torch")
    pixels = dicom.read(film).pixels
    alone = [
        bundle.Bundle(both.folder, both.card, [member], both.rule, both.tta, "torch").levels(pixels)
        for member in both.members
    ]
    sizes = [levels.shape for levels in alone]
    assert sizes == [(64, 64), (32, 32)]
    expected = (alone[0].astype(float) + bundle.enlarge(alone[1], (64, 64))) / 2
    assert np.abs(both.levels(pixels) - expected).max() <= 0.5
