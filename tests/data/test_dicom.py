import warnings

import numpy as np
import pydicom
import pytest
from conftest import write_film
from PIL import Image
from pydicom.pixels import pixel_array
from pydicom.uid import JPEGBaseline8Bit

from pneumo.data import dicom

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_eight_bits_stay_as_they_are(tmp_path):
    assert np.array_equal(dicom.read(write_film(tmp_path / "a.dcm", RAMP)).pixels, RAMP)


def test_monochrome1_is_inverted(tmp_path):
    assert np.array_equal(
        dicom.read(
            write_film(tmp_path / "a.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")
        ).pixels,
        255 - RAMP,
    )


def test_the_pixels_of_a_grey_jpeg_film_are_pydicom_s(phantoms, tmp_path):
    path = sorted(phantoms.rglob("*.dcm"))[0]
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    expected = pixel_array(dataset, decoding_plugin="pillow")
    assert np.array_equal(dicom.read(path).pixels, expected)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.save_as(tmp_path / "inverse.dcm")
    assert np.array_equal(dicom.read(tmp_path / "inverse.dcm").pixels, 255 - expected)
    dataset.Rows -= 8
    dataset.save_as(tmp_path / "other.dcm")
    with pytest.raises(dicom.FilmError, match=r"other\.dcm: cannot decode JPEG"):
        dicom.read(tmp_path / "other.dcm")


@pytest.mark.parametrize("bits", [10, 12, 15, 16])
def test_deep_films_use_the_whole_range(tmp_path, bits):
    deep = np.linspace(0.2 * 2**bits, 0.7 * 2**bits, 64 * 64).astype(np.uint16).reshape(64, 64)
    grey = dicom.read(write_film(tmp_path / "a.dcm", deep, bits)).pixels
    assert grey.dtype == np.uint8
    assert (grey.min(), grey.max()) == (0, 255)
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()


def test_window_is_applied_after_rescaling(tmp_path):
    deep = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = write_film(
        tmp_path / "a.dcm",
        deep,
        12,
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=3000,
        WindowWidth=2000,
    )
    grey = dicom.read(path).pixels.ravel()
    hounsfield = deep.ravel() * 2.0 - 1000
    assert (grey[hounsfield < 1990] == 0).all()
    assert (grey[hounsfield > 4010] == 255).all()
    assert grey[np.searchsorted(hounsfield, 3000)] == pytest.approx(128, abs=1)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (["L", "F"], lambda a: a),
        (["R", "F"], lambda a: a[:, ::-1]),
        (["L", "H"], lambda a: a[::-1]),
        (["R", "H"], lambda a: a[::-1, ::-1]),
        (["F", "L"], lambda a: a.T),
        (["H", "L"], lambda a: a.T[::-1]),
        (["A", "F"], lambda a: a),
    ],
)
def test_films_come_upright_where_the_tags_say_how_they_lie(tmp_path, orientation, turn):
    array = np.arange(96, dtype=np.uint8).reshape(8, 12)
    got = dicom.read(write_film(tmp_path / "a.dcm", array, PatientOrientation=orientation))
    assert np.array_equal(got.pixels, turn(array))
    assert got.stored_shape == (8, 12)
    assert np.array_equal(dicom.upright(array, got.orientation), got.pixels)  # a mask follows


def test_several_frames_and_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(dicom, "pixel_array", lambda *_, **__: pytest.fail("decoded"))
    several = write_film(tmp_path / "a.dcm", RAMP, NumberOfFrames=2)
    with pytest.raises(dicom.FilmError, match=r"a\.dcm: holds 2 frames"):
        dicom.read(several)
    with pytest.raises(dicom.FilmError, match=r"b\.dcm: claims 16 x 16 pixels"):
        dicom.read(write_film(tmp_path / "b.dcm", RAMP), max_pixels=255)


def test_tags(tmp_path):
    got = dicom.read(write_film(tmp_path / "a.dcm", RAMP, PatientID="p", ViewPosition="PA"))
    assert (got.patient, got.view) == ("p", "PA")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "I;16"])
def test_pictures_of_every_mode(tmp_path, mode):
    path = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(RAMP).convert(mode).save(path)
    assert np.array_equal(dicom.read(path).pixels, RAMP)


def refuse(path, message, **options):
    with pytest.raises(dicom.FilmError, match=message) as error:
        dicom.read(path, **options)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_film_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.dcm").write_text("hello\n" * 100)
    refuse(tmp_path / "text.dcm", "not a DICOM file")
    (tmp_path / "empty.dcm").write_bytes(b"")
    refuse(tmp_path / "empty.dcm", "not a DICOM file|truncated|damaged")
    refuse(tmp_path / "absent.dcm", "No such file")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n12345")
    refuse(tmp_path / "bad.png", "not a readable picture")
    refuse(
        write_film(tmp_path / "frames.dcm", np.zeros((16, 16), np.uint8), NumberOfFrames=2),
        "2 frames",
    )
    refuse(
        write_film(tmp_path / "colour.dcm", np.zeros((16, 16), np.uint8), SamplesPerPixel=3),
        "colour",
    )
    Image.fromarray(np.dstack([RAMP, RAMP.T, RAMP])).save(tmp_path / "colour.png")
    refuse(tmp_path / "colour.png", "colour")
    data = pydicom.dcmread(write_film(tmp_path / "void.dcm", RAMP))
    del data.PixelData
    data.save_as(tmp_path / "void.dcm")
    refuse(tmp_path / "void.dcm", "without an image")


def test_a_truncated_film_is_refused_wherever_it_ends(tmp_path, phantoms):
    whole = next(iter(sorted(phantoms.rglob("*.dcm")))).read_bytes()
    for tenth in range(10):
        path = tmp_path / f"{tenth}.dcm"
        path.write_bytes(whole[: len(whole) * tenth // 10])
        refuse(path, ".")


def test_size_is_checked_before_decoding(tmp_path, phantoms, monkeypatch):
    data = pydicom.dcmread(next(iter(sorted(phantoms.rglob("*.dcm")))))
    data.Rows = data.Columns = 60000
    data.save_as(tmp_path / "huge.dcm")
    monkeypatch.setattr(dicom, "pixel_array", lambda *_, **__: pytest.fail("decoded"))
    refuse(tmp_path / "huge.dcm", r"60000 x 60000.*data\.max_megapixels=100")


def test_a_film_that_cannot_be_decoded_names_syntax_and_package(real_data):
    refuse(
        real_data / "films" / "RG3_JPLY.dcm",
        r"JPEG Extended.*1\.2\.840\.10008\.1\.2\.4\.51.*pip install pylibjpeg",
    )


@pytest.mark.parametrize("name", ["CR-MONO1-10-chest.dcm", "RG1_J2KI.dcm", "Fake_MONOHR1.dcm"])
def test_real_monochrome1_films_come_with_dark_lungs(real_data, name):
    pixels = dicom.read(real_data / "films" / name).pixels.astype(float)
    h, w = pixels.shape
    spine = pixels[int(0.25 * h) : int(0.5 * h), int(0.47 * w) : int(0.53 * w)].mean()
    lungs = np.mean(
        [
            pixels[int(0.25 * h) : int(0.5 * h), int(a * w) : int((a + 0.1) * w)].mean()
            for a in (0.2, 0.7)
        ]
    )
    # Fake_MONOHR1 is a MONOCHROME2 film with the other tag: inverted, it has bright lungs
    assert (lungs < spine) == (name != "Fake_MONOHR1.dcm")


def test_retagged_challenge_film_is_the_inverse(real_data):
    original = next(
        (real_data / "siim" / "dicom-images-train").rglob("*.6904.1517875201.850819.dcm")
    )
    assert np.array_equal(
        dicom.read(real_data / "films" / "Fake_MONOHR1.dcm").pixels,
        255 - dicom.read(original).pixels,
    )


def attempt(path):
    """The film's type, or the reason why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return str(dicom.read(path).pixels.dtype)
        except dicom.FilmError as error:
            return str(error)


def test_every_real_film_is_read_or_explained(real_data):
    results = [attempt(path) for path in sorted((real_data / "films").glob("*.dcm"))]
    assert all(result == "uint8" or "pip install" in result for result in results), results
    assert results.count("uint8") >= 6


def test_rgba_mirror_and_paper_figure(real_data):
    for path in sorted((real_data / "siim" / "png").glob("*.png")):
        with Image.open(path) as picture:
            mode = picture.mode
        if mode == "RGBA":
            assert dicom.read(path).pixels.shape == (1024, 1024)
            break
    else:
        pytest.fail("no RGBA picture among the real ones")
    figure = next(
        (real_data / "siim" / "dicom-images-train").rglob("*.10000.1517875220.938530.dcm")
    )
    got = dicom.read(figure)
    assert (got.pixels.shape, got.view) == ((1024, 1024), "AP")
