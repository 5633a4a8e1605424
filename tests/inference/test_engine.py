"""PyTorch and ONNX Runtime run the same network."""

import numpy as np
import pytest

from pneumo.data import dicom
from pneumo.errors import PneumoError
from pneumo.inference import bundle
from pneumo.inference.engine import (
    Probabilities,
    mean_of,
    onnx_engine,
    pace,
    to_levels,
    with_flip,
)
from pneumo.settings import Machine


def test_both_engines_give_the_same_mask(model, film):
    pixels = dicom.read(film).pixels
    opened = [bundle.load(model, engine=engine) for engine in ("torch", "onnx")]
    torch, onnx = (one.says(pixels)[0].astype(int) for one in opened)
    assert np.abs(torch - onnx).max() <= 1
    assert torch.max() > 0


def test_the_mirror_image_is_mirrored_back_before_the_mean():
    """An engine that marks the left half, whatever it is shown."""
    left = np.zeros((1, 2, 4), np.float32)
    left[..., :2] = 1

    def engine(films):
        return Probabilities(np.repeat(left, len(films), 0), films[:, 0, 0])

    films = np.zeros((3, 2, 4))
    films[..., -1] = 0.5
    (plain, own), (mean, both) = with_flip(engine, films)
    assert own.tolist() == [0, 0, 0]
    assert both.tolist() == [0.25] * 3
    assert plain.shape == mean.shape == (3, 2, 4)
    assert np.array_equal(plain, np.repeat(left, 3, 0))
    assert (mean == 0.5).all()
    assert to_levels(np.array([0, 0.5, 0.499, 1])).tolist() == [0, 128, 127, 255]


def test_a_file_that_is_no_network_is_named(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(PneumoError, match=r"a\.onnx: not an ONNX network"):
        onnx_engine(tmp_path / "a.onnx", Machine())


def test_several_networks_as_one_are_the_mean_of_their_maps_and_of_the_scores_they_tell():
    films = np.zeros((2, 4, 4), np.uint8)
    maps = [np.full(films.shape, value, np.float32) for value in (0.2, 0.4, 0.9)]
    told = [None, np.array([0.1, 0.3]), np.array([0.5, 0.9])]
    engines = [lambda films, i=i: Probabilities(maps[i], told[i]) for i in range(3)]
    both = mean_of(engines)(films)
    assert np.allclose(both.maps, 0.5)
    assert np.allclose(both.presence, [0.3, 0.6])
    assert mean_of(engines[:1])(films).presence is None


def test_a_cpu_does_single_films_at_once_and_one_alone_with_all_threads():
    def put(threads, **more):
        machine = Machine(accelerator="cpu", threads=threads)
        batch, lanes, each = pace("auto", machine, 16, **more)
        return batch, lanes, each.threads

    assert put(1) == (1, 1, 1)
    assert put(2) == (1, 2, 1)
    assert put(16) == (1, 4, 4)
    assert put(2, alone=True) == (1, 1, 2)
