"""A bundle in three lines of Python."""

import numpy as np
import pytest

import pneumo
from pneumo.data import dicom
from pneumo.errors import PneumoError


@pytest.fixture(scope="module")
def loaded(model):
    return pneumo.load_model(model)


def test_a_file_and_its_pixels_give_the_same(loaded, film):
    finding = loaded(film)
    pixels = dicom.read(film).pixels
    assert finding.mask.shape == finding.levels.shape == pixels.shape
    assert set(np.unique(finding.mask)) <= {0, 1}
    assert 0 <= finding.probability <= 1
    again = loaded(pixels)
    assert np.array_equal(again.mask, finding.mask)
    assert (again.probability, again.area_mm2) == (finding.probability, None)


def test_millimetres_are_those_of_the_header_or_of_the_caller(loaded, film):
    finding = loaded(film)
    spacing = dicom.read(film).spacing
    assert finding.mm_plane == "at the detector"
    assert finding.area_mm2 == pytest.approx(finding.area * spacing.rows * spacing.columns)
    pixels = dicom.read(film).pixels
    assert loaded(pixels, spacing=(0.5, 0.2)).area_mm2 == pytest.approx(finding.area * 0.1)


def test_what_is_no_film_is_refused(loaded, tmp_path):
    with pytest.raises(TypeError, match="uint8"):
        loaded(np.zeros((64, 64)))
    with pytest.raises(ValueError, match="rows, columns"):
        loaded(np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "a.dcm").write_bytes(b"hello")
    with pytest.raises(PneumoError, match=r"a\.dcm"):
        loaded(tmp_path / "a.dcm")
    with pytest.raises(PneumoError, match="not a bundle"):
        pneumo.load_model(tmp_path)
