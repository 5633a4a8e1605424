"""The augmentation on the device gives what the one in the loader gives, film by film."""

import dataclasses

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from pneumo.errors import PneumoError
from pneumo.settings import CONF
from pneumo.training import augmentation, augmentation_device
from pneumo.training.loader import FilmData
from pneumo.training.options import Augmentation, Border, Intensity, Resolution
from pneumo.training.settings import load_config

PAPER = Augmentation(flip=0.5, intensity=0.3, distortion=0.3, crop=0.25)
EVERY = Augmentation(flip=0.5, intensity=0.7, distortion=0.9, crop=0.7)


def films(count, size):
    """Smooth films with discs for masks, uint8 (count, size, size) each."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:size, :size] / size
    pairs = []
    for _ in range(count):
        a, b, top, left = rng.uniform(0.3, 0.7, 4)
        pairs.append(
            (
                127 + 100 * np.sin(20 * a * x) * np.cos(20 * b * y),
                np.hypot(x - left, y - top) < 0.2,
            )
        )
    images, masks = zip(*pairs, strict=True)
    return np.array(images).astype(np.uint8), np.array(masks).astype(np.uint8)


def both_ways(config, size, count=24):
    """Images and masks, each int (count, size, size), by the loader's way and by the device's."""
    resolution = Resolution(size)
    images, masks = films(count, size)
    keys = [[0, 0, film] for film in range(count)]
    one = augmentation.build(dataclasses.replace(config, on_device=False), resolution)
    expected = [one(*film) for film in zip(images, masks, keys, strict=True)]
    device = augmentation_device.build(dataclasses.replace(config, on_device=True), resolution)
    batch = {"image": torch.from_numpy(images[:, None]), "mask": torch.from_numpy(masks[:, None])}
    changed = device(batch | device.draw(images, keys))
    assert set(changed) == {"image", "mask"}
    assert changed["image"].dtype == changed["mask"].dtype == torch.uint8
    found = [changed[key].numpy()[:, 0].astype(int) for key in ("image", "mask")]
    return np.array(list(zip(*expected, strict=True)), int), np.array(found), images


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("border", Border)
def test_films_are_those_of_the_loader_to_some_grey_levels(size, border):
    config = dataclasses.replace(EVERY, border=border, brightness_of_mean=True)
    (images, masks), (found, found_masks), before = both_ways(config, size)
    assert np.mean(images != before) > 0.5
    apart = np.abs(images - found)
    assert apart.mean() < 0.5
    assert np.quantile(apart, 0.999) <= 4
    assert set(np.unique(found_masks)) == {0, 1}
    assert np.mean(masks != found_masks) < 0.001


@pytest.mark.parametrize("group", ["flip", "intensity"])
def test_what_interpolates_nothing_is_the_same_bit_for_bit(group):
    expected, found, _ = both_ways(Augmentation(**{group: 0.5}), 64)
    assert np.array_equal(expected, found)


def test_films_that_nothing_changes_stay_as_they_are():
    images, masks = films(4, 64)
    device = augmentation_device.build(Augmentation(crop=1e-9, on_device=True), Resolution(64))
    batch = {"image": torch.from_numpy(images[:, None]), "mask": torch.from_numpy(masks[:, None])}
    changed = device(batch | device.draw(images, [[0, 0, film] for film in range(4)]))
    assert all(torch.equal(changed[key], batch[key]) for key in batch)


@pytest.fixture
def made(tmp_path, phantoms):
    """A data set made ready, by what is typed."""

    def prepared(*typed):
        data = ["data=siim", f"data.root={phantoms}", f"data.annotations={phantoms}/train-rle.csv"]
        own = ["+experiment=exp2", *data, f"runs_dir={tmp_path}", "resolution.size=64"]
        with initialize_config_dir(CONF, version_base="1.3"):
            made = FilmData(load_config(compose("train", [*own, "batch_size=8", *typed])))
        made.prepare()
        return made

    return prepared


def test_training_batches_are_changed_after_they_came_and_validation_batches_are_not(made):
    here, there = made(), made("augmentation.on_device=true")
    for given, expected in zip(there.train_dataloader(), here.train_dataloader(), strict=True):
        cached = torch.from_numpy(there.films.images[given["row"]])[:, None]
        assert torch.equal(given["image"], cached)
        changed = there.on_after_batch_transfer(given, 0)
        assert set(changed) == {"image", "mask", "row"}
        assert torch.equal(changed["row"], expected["row"])
        apart = changed["image"].float() - expected["image"].float()
        assert apart.abs().mean() < 0.5
    for batch in there.val_dataloader():
        assert there.on_after_batch_transfer(batch, 0) is batch


@pytest.mark.parametrize(
    "beyond",
    [
        {"affine": 0.5},
        {"blur": 0.5},
        {"window": 32},
        {"intensity_choices": [Intensity.gamma, Intensity.clahe]},
    ],
)
def test_what_the_device_does_not_do_is_refused(beyond):
    with pytest.raises(PneumoError, match=rf"augmentation\.on_device=True.*{next(iter(beyond))}"):
        dataclasses.replace(PAPER, on_device=True, **beyond)
