import shutil
import subprocess

import numpy as np
import pytest
from conftest import write_film
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_windowing

from pneumo.data import cache, dicom, rendering
from pneumo.data.sources import siim

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every value of 12 bits
SIGNED = DEEP.astype(np.int16) - 2048


def lut(first, bits, entries):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = list(entries)
    item["LUTData"].VR = "US"
    return item


# name → pixels, bits stored, tags
HEADERS = {
    "8 bits, 128/256": (RAMP // 2 + 40, 8, {"WindowCenter": 128, "WindowWidth": 256}),
    "8 bits, no window": (RAMP // 2 + 40, 8, {}),
    "8 bits, rescale that changes nothing": (
        RAMP // 2 + 40,
        8,
        {"RescaleSlope": 1, "RescaleIntercept": 0},
    ),
    "window wider than the pixels": (DEEP, 12, {"WindowCenter": 2048, "WindowWidth": 16384}),
    "window narrower than the pixels": (DEEP, 12, {"WindowCenter": 1500, "WindowWidth": 2001}),
    "12 bits, signed": (SIGNED, 12, {"WindowCenter": 40, "WindowWidth": 1500}),
    "12 bits, rescaled": (
        DEEP,
        12,
        {
            "WindowCenter": 1000,
            "WindowWidth": 6000,
            "RescaleSlope": 2.5,
            "RescaleIntercept": -1024,
        },
    ),
    "sigmoid": (
        DEEP,
        12,
        {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
    ),
    "linear exact": (
        DEEP,
        12,
        {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "the first of two windows": (
        DEEP,
        12,
        {"WindowCenter": [1500, 100], "WindowWidth": [3000, 200]},
    ),
    "MONOCHROME1": (
        DEEP,
        12,
        {
            "WindowCenter": 1500,
            "WindowWidth": 3000,
            "PhotometricInterpretation": "MONOCHROME1",
        },
    ),
}


def rendered(tmp_path, pixels, bits, **tags):
    tags.setdefault("PixelRepresentation", int(pixels.dtype.kind == "i"))
    return dicom.read(write_film(tmp_path / "a.dcm", pixels, bits, **tags)).pixels


def by_dcmtk(path, tmp_path, *options):
    out = tmp_path / "shown.pgm"
    subprocess.run(["dcm2pnm", "-O", *options, str(path), str(out)], check=True)
    return np.asarray(Image.open(out))


@pytest.mark.parametrize("name", HEADERS)
def test_dcmtk_shows_the_same(tmp_path, name):
    """To one level: dcmtk cuts off where we round. It takes LINEAR_EXACT for LINEAR (3.6.7)."""
    if not shutil.which("dcm2pnm"):
        pytest.skip("dcmtk is not installed")
    pixels, bits, tags = HEADERS[name]
    ours = rendered(tmp_path, pixels, bits, **tags)
    window = ["+Wi", "1"] if "WindowCenter" in tags else []
    theirs = by_dcmtk(tmp_path / "a.dcm", tmp_path, *window)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("name", [name for name in HEADERS if "WindowCenter" in HEADERS[name][2]])
def test_pydicom_windows_to_the_same(tmp_path, name):
    pixels, bits, tags = HEADERS[name]
    ours = rendered(tmp_path, pixels, bits, **tags).astype(int)
    header = dicom.read_header(tmp_path / "a.dcm")
    windowed = apply_windowing(apply_modality_lut(pixels, header), header)
    # pydicom leaves the window's range at that of the stored bits, rescaled
    stored = np.array([0, 2**bits - 1]) - 2 ** (bits - 1) * header.PixelRepresentation
    low, high = stored * float(tags.get("RescaleSlope", 1)) + tags.get("RescaleIntercept", 0)
    theirs = 255 * (windowed - low) / (high - low)
    inverted = tags.get("PhotometricInterpretation") == "MONOCHROME1"
    assert np.abs(ours - (255 - theirs if inverted else theirs)).max() < 0.501


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_windows_follow_the_formulas_of_the_standard(tmp_path, function):
    """Centre 0 and width 100, the example of PS3.3 C.11.2.1.2."""
    x = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    tags = {"VOILUTFunction": function} if function else {}
    grey = rendered(tmp_path, x, 16, WindowCenter=0, WindowWidth=100, **tags)
    by_hand = {
        "LINEAR": np.select([x <= -50, x > 49], [0, 255], ((x + 0.5) / 99 + 0.5) * 255),
        "LINEAR_EXACT": np.select([x <= -50, x > 50], [0, 255], (x / 100 + 0.5) * 255),
        "SIGMOID": 255 / (1 + np.exp(-4 * x / 100)),
    }
    assert np.abs(grey - by_hand[function or "LINEAR"]).max() < 0.501


def test_a_window_of_all_its_values_leaves_eight_bits_as_they_are(tmp_path):
    grey = rendered(tmp_path, RAMP // 2 + 40, 8, WindowCenter=128, WindowWidth=256)
    assert np.array_equal(grey, RAMP // 2 + 40)


@pytest.mark.parametrize(
    ("tags", "shown"),
    [
        ({"WindowCenter": 100.5, "WindowWidth": 101}, np.clip((RAMP - 50.0) * 2.55, 0, 255)),
        ({"RescaleSlope": -1, "RescaleIntercept": 255}, 255 - RAMP),
        ({"PixelPaddingValue": 200}, np.where(RAMP == 200, 0, RAMP)),
        ({"PhotometricInterpretation": "MONOCHROME1"}, 255 - RAMP),
    ],
)
def test_tags_that_change_eight_bits_are_heeded(tmp_path, tags, shown):
    grey = rendered(tmp_path, RAMP, 8, **tags)
    assert np.abs(grey.astype(float) - shown).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("tags", [{}, {"RescaleSlope": 3, "RescaleIntercept": -7}])
def test_without_a_window_a_rescale_alone_changes_nothing(tmp_path, tags):
    pixels = RAMP // 2 + 40
    assert np.array_equal(rendered(tmp_path, pixels, 8, **tags), pixels)


def test_without_a_window_seven_bits_show_their_stored_range(tmp_path):
    grey = rendered(tmp_path, RAMP // 2, 7)
    assert np.array_equal(grey, np.rint(RAMP // 2 * (255 / 127)))


@pytest.mark.parametrize("bits", [8, 12])
def test_a_lut_is_used_before_a_window_and_over_its_own_range(tmp_path, bits):
    """Values beyond the LUT take its first and last entries (PS3.3 C.11.2.1.1)."""
    entries = np.linspace(9, 2**bits // 2, 1000).astype(int)[::-1]
    tags = {"VOILUTSequence": [lut(1000, bits, entries)], "WindowCenter": 5, "WindowWidth": 9}
    grey = rendered(tmp_path, DEEP, 12, **tags).ravel()
    by_hand = np.concatenate(
        (np.full(1000, entries[0]), entries, np.full(4096 - 2000, entries[-1]))
    )
    assert np.array_equal(grey, np.rint(by_hand * (255 / (2**bits - 1))))
    if bits == 12 and shutil.which("dcm2pnm"):
        theirs = by_dcmtk(tmp_path / "a.dcm", tmp_path, "+Wl", "1")
        assert np.abs(grey.reshape(64, 64).astype(int) - theirs).max() <= 1


def test_a_modality_lut_comes_before_the_window(tmp_path):
    squares = np.arange(4096) ** 2 // 256  # 16 bits
    tags = {"ModalityLUTSequence": [lut(0, 16, squares)]}
    grey = rendered(tmp_path, DEEP, 12, WindowCenter=32768, WindowWidth=65536, **tags)
    assert np.array_equal(grey.ravel(), np.rint(squares * (255 / 65535)))


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("written", [-2000, 0x10000 - 2000])  # signed, and unsigned by mistake
def test_padding_is_background_and_does_not_count(polarity, written):
    pixels = np.full((64, 80), -2000, np.int16)
    pixels[:, 8:72] = np.linspace(0, 999, 64 * 64).reshape(64, 64)
    header = Dataset()
    header.BitsStored, header.PixelRepresentation = 16, 1
    header.PhotometricInterpretation = polarity
    header.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    grey = rendering.render(pixels, header)
    assert not grey[pixels == -2000].any()
    native = grey[:, 8:72].astype(int).ravel() * (1 if polarity == "MONOCHROME2" else -1)
    assert (np.diff(native) >= 0).all()
    assert np.ptp(native) == 255  # stretched between percentiles of the native pixels alone
    header.add_new("PixelPaddingRangeLimit", "SS", 499)
    grey = rendering.render(pixels, header)
    assert not grey[pixels <= 499].any()
    assert np.ptp(grey[pixels > 499].astype(int)) == 255


def test_a_film_that_is_all_padding_is_refused(tmp_path):
    path = write_film(tmp_path / "a.dcm", np.full((16, 16), 3, np.uint16), 16, PixelPaddingValue=3)
    with pytest.raises(dicom.FilmError, match="all pixels are padding"):
        dicom.read(path)


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 20, "WindowWidth": 10},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": -5, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 2000, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": "", "WindowWidth": ""},
    ],
)
def test_a_window_that_hides_the_film_is_not_used(tmp_path, window):
    assert np.array_equal(rendered(tmp_path, DEEP, 12, **window), rendered(tmp_path, DEEP, 12))


def test_a_new_rendering_makes_new_caches(phantoms, tmp_path, monkeypatch):
    items = siim.read_index(
        siim.SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    ).items[:2]
    before = cache.build(items, 32, tmp_path, workers=0).fingerprint
    monkeypatch.setattr(rendering, "VERSION", rendering.VERSION + 1)
    assert cache.build(items, 32, tmp_path, workers=0).fingerprint != before


def test_films_of_more_than_sixteen_bits_are_refused(tmp_path):
    path = write_film(tmp_path / "a.dcm", np.zeros((16, 16), np.uint32), 32)
    with pytest.raises(dicom.FilmError, match="32 bits a pixel; a radiograph has at most 16"):
        dicom.read(path)


def test_dcmtk_shows_real_films_the_same(real_data, tmp_path):
    """Those that dcmtk decodes without plug-ins; the challenge's have no window."""
    if not shutil.which("dcmj2pnm"):
        pytest.skip("dcmtk is not installed")
    paths = sorted((real_data / "siim" / "dicom-images-train").rglob("*.dcm"))
    for path in [*paths, real_data / "films" / "RG3_RLE.dcm"]:
        film_read = dicom.read(path)
        window = ["+Wi", "1"] if "WindowCenter" in film_read.header else []
        out = tmp_path / "shown.pgm"
        subprocess.run(["dcmj2pnm", "-O", *window, str(path), str(out)], check=True)
        theirs = np.asarray(Image.open(out))
        ours = dicom.stored(film_read.pixels, film_read.orientation)
        assert np.abs(ours.astype(int) - theirs).max() <= (1 if window else 0)
