"""PyTorch and ONNX Runtime run the same network."""

import numpy as np
import pytest

from pneumo.data import dicom
from pneumo.errors import PneumoError
from pneumo.inference import bundle
from pneumo.inference.engine import onnx_engine, to_levels, with_flip
from pneumo.settings import Machine


def test_both_engines_give_the_same_mask(model, film):
    pixels = dicom.read(film).pixels
    torch, onnx = (
        bundle.load(model, engine=engine).levels(pixels).astype(int) for engine in ("torch", "onnx")
    )
    assert np.abs(torch - onnx).max() <= 1
    assert torch.max() > 0


def test_the_mirror_image_is_mirrored_back_before_the_mean():
    """An engine that marks the left half, whatever it is shown."""
    left = np.zeros((1, 2, 4), np.float32)
    left[..., :2] = 1
    plain, mean = with_flip(lambda films: np.repeat(left, len(films), 0), np.zeros((3, 2, 4)))
    assert plain.shape == mean.shape == (3, 2, 4)
    assert np.array_equal(plain, np.repeat(left, 3, 0))
    assert (mean == 0.5).all()
    assert to_levels(np.array([0, 0.5, 0.499, 1])).tolist() == [0, 128, 127, 255]


def test_a_file_that_is_no_network_is_named(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(PneumoError, match=r"a\.onnx: not an ONNX network"):
        onnx_engine(tmp_path / "a.onnx", Machine())
