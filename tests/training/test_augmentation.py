import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pneumo.data import cache
from pneumo.data.settings import SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.training import augmentation
from pneumo.training.loader import EpochSampler, FilmDataset
from pneumo.training.settings import Augmentation, Resolution

ALL = Augmentation(flip=0.5, intensity=0.3, distortion=0.3, crop=0.25)
SIZE = Resolution(64)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 255, (64, 64), dtype=np.uint8)
MASK = np.zeros((64, 64), np.uint8)
MASK[10:30, 5:25] = 1


def test_images_stay_uint8_and_masks_binary():
    run = augmentation.build(Augmentation(1, 1, 1, 1), SIZE)
    for i in range(30):
        image, mask = run(IMAGE, MASK, [0, 0, i])
        assert (image.dtype, mask.dtype, image.shape, mask.shape) == (
            np.uint8,
            np.uint8,
            (64, 64),
            (64, 64),
        )
        assert set(np.unique(mask)) <= {0, 1}


@pytest.mark.parametrize("group", ["flip", "intensity", "distortion", "crop"])
def test_each_group_does_something_at_its_probability(group):
    changed = [
        not np.array_equal(
            augmentation.build(Augmentation(**{group: 0.5}), SIZE)(IMAGE, MASK, [0, 0, i])[0], IMAGE
        )
        for i in range(120)
    ]
    assert 0.3 < np.mean(changed) < 0.7


def test_masks_move_with_films():
    film = MASK * 200
    for group in ("flip", "distortion", "crop"):
        run = augmentation.build(Augmentation(**{group: 1}), SIZE)
        for i in range(10):
            image, mask = run(film, MASK, [1, 0, i])
            assert ((image > 100) != (mask > 0)).mean() < 0.02


def test_distortion_draws_no_black_border():
    run = augmentation.build(Augmentation(distortion=1), SIZE)
    assert (
        min(run(np.full((64, 64), 200, np.uint8), MASK, [0, 0, i])[0].min() for i in range(40))
        > 190
    )


def test_no_option_is_ignored_by_this_version():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augmentation.build(ALL, SIZE)


def test_none():
    assert augmentation.build(Augmentation(), SIZE) is None


@pytest.fixture(scope="module")
def films(phantoms, tmp_path_factory):
    index = siim.read_index(
        SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    )
    return cache.build(index.items, 64, tmp_path_factory.mktemp("cache"), workers=0)


def epochs(films, workers, persistent, count=3, seed=0):
    dataset = FilmDataset(films, np.arange(len(films.ids)), augmentation.build(ALL, SIZE), seed)
    sampler = EpochSampler(dataset, seed, shuffle=True)
    loader = DataLoader(
        dataset,
        batch_size=5,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
    )
    seen = []
    for epoch in range(count):
        sampler.set_epoch(epoch)  # Lightning's call
        batches = list(loader)
        seen.append(
            {key: torch.cat([batch[key] for batch in batches]) for key in ("image", "mask", "row")}
        )
    return seen


@pytest.mark.parametrize(("workers", "persistent"), [(1, True), (2, True), (2, False)])
def test_the_same_images_whatever_the_workers(films, workers, persistent):
    for one, other in zip(epochs(films, 0, False), epochs(films, workers, persistent), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_each_epoch_is_different_and_each_seed(films):
    first, second, _ = epochs(films, 0, False)
    assert not torch.equal(first["row"], second["row"])
    assert sorted(first["row"].tolist()) == list(range(24))
    row = int(first["row"][0])
    images = [one["image"][one["row"] == row] for one in epochs(films, 0, False, count=6)]
    assert len({image.numpy().tobytes() for image in images}) > 3
    assert not torch.equal(first["image"], epochs(films, 0, False, seed=1)[0]["image"])


def test_batches_travel_as_one_channel_bytes(films):
    batch = epochs(films, 0, False, count=1)[0]
    assert (batch["image"].dtype, batch["mask"].dtype, tuple(batch["image"].shape[1:])) == (
        torch.uint8,
        torch.uint8,
        (1, 64, 64),
    )


def test_ranks_share_an_epoch_evenly(films):
    dataset = FilmDataset(films, np.arange(23))
    shares = [list(EpochSampler(dataset, 0, True, rank, 2)) for rank in range(2)]
    assert [len(share) for share in shares] == [11, 11]
    assert not set(shares[0]) & set(shares[1])
    assert sorted(i for rank in range(2) for i in EpochSampler(dataset, 0, False, rank, 2)) == list(
        range(23)
    )


def test_a_damaged_film_is_not_trained_on(films, tmp_path):
    import shutil

    folder = tmp_path / films.folder.name
    shutil.copytree(films.folder, folder)
    images = np.load(folder / "images.npy", mmap_mode="r+")
    images[7] = 0
    images.flush()
    with pytest.raises(PneumoError, match="damaged"):
        FilmDataset(cache._open(folder), np.arange(24))[7]
