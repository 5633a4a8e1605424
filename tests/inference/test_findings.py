"""What is found on one film, in its own geometry; and films that are refused, in one line."""

import io
import random
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pydicom
import pytest
from inference.stand_ins import Bright, edited, finding
from PIL import Image

from pneumo.data import dicom
from pneumo.errors import PneumoError
from pneumo.inference import bundle, dicom_objects, findings
from pneumo.inference.probability import Platt
from pneumo.inference.settings import Polarity, Unsuitable, Use
from pneumo.masks.settings import Postprocess, Removal


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


@pytest.mark.parametrize("removal", ["total", "component"])
def test_the_probability_exceeds_the_threshold_exactly_where_there_is_a_mask(removal):
    rng = np.random.default_rng(0)
    levels = cv2.resize(rng.integers(0, 256, (12, 12), dtype=np.uint8), (96, 96))
    for area in (1, 200, 600, 2000):
        for threshold in (0.2, 0.5, 0.8):
            rule = Postprocess(threshold, area, 96, Removal[removal])
            found = findings.judged(findings.Reading(None), levels, rule)
            assert (found.area > 0) == (found.probability > threshold)


GATED, UNGATED = Postprocess(0.5, 0, presence_threshold=0.6), Postprocess(0.5, 0)


def told(presence, rule, fitted=GATED):
    """A small film's finding by a network that tells presence, with a curve fitted under a rule."""
    picture = io.BytesIO()
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(picture, "PNG")
    model = Bright(fitted)
    model.curve = Platt(0.5, -np.log(2))  # half the logit, then half the odds
    model.says = lambda film, tta=None: (Bright().says(film)[0], presence)
    return findings.find(findings.read("x.png", picture.getvalue(), Use()), model, rule)


def test_a_gate_empties_a_film_and_its_probability_is_made_of_its_presence_score():
    opened, closed = told(0.8, GATED), told(0.5, GATED)
    assert opened.area == pytest.approx(32 * 32, rel=0.1)
    assert (opened.score, opened.presence) == (0.8, 0.8)
    assert opened.probability == pytest.approx(1 / 2)
    assert closed.area == 0
    assert closed.levels.max() == 230
    assert (closed.score, closed.presence) == (0.5, 0.5)
    assert closed.probability == pytest.approx(1 / 3)


def test_without_a_gate_a_film_is_scored_by_its_map_and_presence_is_only_told():
    found = told(0.1, UNGATED, fitted=UNGATED)
    assert found.area > 0
    assert (found.score, found.presence) == (pytest.approx(230 / 255), 0.1)
    assert found.probability == pytest.approx(1 / (1 + 2 * (25 / 230) ** 0.5))


@pytest.mark.parametrize(("rule", "fitted"), [(GATED, UNGATED), (UNGATED, GATED)])
def test_a_curve_of_scores_of_the_other_kind_is_not_used(rule, fitted):
    found = told(0.8, rule, fitted)
    assert found.probability == found.score


def test_a_gate_for_a_network_that_tells_no_presence_is_refused():
    with pytest.raises(PneumoError, match=r"presence_threshold=0\.6: this model has no presence"):
        told(None, GATED)


def test_notes_say_what_tags_do_not(film):
    assert any("orientation unknown" in note for note in finding(film.read_bytes()).notes)
    assert finding(edited(film, PatientOrientation=["L", "F"])).notes == []


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


def test_deep_pictures_keep_their_grey_levels():
    """A film of 12 bits in a picture of 16."""
    levels = (np.arange(64 * 64).reshape(64, 64) % 4096).astype(np.uint16)
    picture = io.BytesIO()
    Image.fromarray(levels).save(picture, "PNG")
    found = findings.read("x.png", picture.getvalue(), Use()).film.pixels
    assert (found.min(), found.max()) == (0, 255)
    assert len(np.unique(found)) == 256


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
