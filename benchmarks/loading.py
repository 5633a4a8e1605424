"""Training films per second through our ``DataLoader``, with the paper's augmentation.

    python -m benchmarks loading

Against what training scripts usually do (each film and mask read from a 1024² PNG, shrunk and
augmented by albumentations on three channels, collated as float tensors), and against a bare copy
of the cached arrays into batches, which is the limit. Both augment by the same groups,
probabilities and limits. Films are phantoms, of which 22 % have a mask, as in the challenge.

In one process a rate counts the CPU time of the process; with workers, the time on the clock. In
each round all ways take their turn, so that a ratio is of one round.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import albumentations
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.table import Row, Spent, Timed, alternate, compared
from pneumo.data import cache
from pneumo.data.films import Item
from pneumo.data.settings import OnError, PhantomData, SiimData
from pneumo.data.sources import phantom, siim
from pneumo.training import augmentation, loader
from pneumo.training.options import Augmentation, Resolution

BATCH = 16
REPEATS = 8  # how many times an epoch of ours holds each film: it is the faster one
PAPER = Augmentation(flip=0.5, intensity=0.3, distortion=0.3, crop=0.25)
CROP_MIN = 0.609375
GOALS = {256: 30.0, 512: 10.0}  # times the usual script, in one process


class UsualFilms(Dataset):
    """Pictures of films and masks → float tensors (3, size, size) and (1, size, size)."""

    def __init__(self, pictures: list[tuple[Path, Path]], size: int):
        self.pictures = pictures
        least = round(CROP_MIN * size)
        self.transform = albumentations.Compose(
            [
                albumentations.Resize(size, size),
                albumentations.HorizontalFlip(p=0.5),
                albumentations.OneOf(
                    [
                        albumentations.RandomBrightnessContrast(0, 0.2, p=1),
                        albumentations.RandomGamma((80, 120), p=1),
                        albumentations.RandomBrightnessContrast(0.2, 0, p=1),
                    ],
                    p=0.3,
                ),
                albumentations.OneOf(
                    [
                        albumentations.ElasticTransform(120, 6, p=1),
                        albumentations.GridDistortion(distort_limit=0.3, p=1),
                        albumentations.OpticalDistortion(distort_limit=2, p=1),
                    ],
                    p=0.3,
                ),
                albumentations.RandomSizedCrop((least, size), (size, size), p=0.25),
                albumentations.Normalize(),
                albumentations.ToTensorV2(transpose_mask=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_file, mask_file = self.pictures[index]
        image = cv2.cvtColor(cv2.imread(str(image_file)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(mask_file), cv2.IMREAD_GRAYSCALE)
        both = self.transform(image=image, mask=mask)
        return both["image"], both["mask"][None].float() / 255


def usual(pictures: list[tuple[Path, Path]], size: int, workers: int) -> Callable[[], int]:
    """An epoch of the usual script, which returns how many films it served."""
    dataset = UsualFilms(pictures, size)
    batches = DataLoader(dataset, BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda: consumed(image for image, _ in batches)


def ours(films: cache.Cache, size: int, workers: int) -> Callable[[], int]:
    """An epoch of ours; each call draws other changes."""
    rows = np.tile(np.arange(len(films.ids)), REPEATS)
    transform = augmentation.build(PAPER, Resolution(size, CROP_MIN))
    dataset = loader.FilmDataset(films, rows, transform)
    sampler = loader.EpochSampler(dataset)
    batches = DataLoader(
        dataset,
        BATCH,
        sampler=sampler,
        num_workers=workers,
        collate_fn=dataset.collate,
        persistent_workers=workers > 0,
    )

    def epoch() -> int:
        sampler.set_epoch(sampler.epoch + 1)
        return consumed(batch["image"] for batch in batches)

    return epoch


def bare_copy(films: cache.Cache) -> Callable[[], int]:
    """The cached arrays of an epoch, copied into batches."""
    count, (height, width) = len(films.ids), films.images.shape[1:]

    def batches() -> Iterable[np.ndarray]:
        for start in range(0, REPEATS * count, BATCH):
            image, mask = np.empty((2, BATCH, height, width), np.uint8)
            for place in range(BATCH):
                row = (start + place) % count
                image[place], mask[place] = films.images[row], films.masks[row]
            yield image

    return lambda: consumed(batches())


def consumed(batches: Iterable) -> int:
    """How many films came."""
    return sum(len(images) for images in batches)


def pictures_of(items: list[Item], folder: Path) -> list[tuple[Path, Path]]:
    """Films and masks as PNG files of 1024², as the challenge's kernels keep them."""
    made = []
    for item in items:
        image, mask = cache.prepare(item, 1024, 10**8, OnError.stop)
        files = (folder / f"{item.id}.png", folder / f"{item.id}_mask.png")
        cv2.imwrite(str(files[0]), image)
        cv2.imwrite(str(files[1]), mask * 255)
        made.append(files)
    return made


def measure(quick: bool = False) -> list[Row]:
    """Two rows for each size and number of workers: against the usual script and a bare copy."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    count, rounds, workers = (4, 1, (0,)) if quick else (64, 5, (0, 1, 2, 4))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "films"
        phantom.generate(PhantomData(name="phantom", images=count), root)
        table = str(root / phantom.TABLE)
        items = siim.read_index(SiimData(name="siim", root=str(root), annotations=table)).items
        pictures = pictures_of(items, Path(name))
        for size, processes in itertools.product(GOALS, workers):
            cached = cache.build(items, size, Path(name) / "cache", workers=0)
            ways = {
                "usual": usual(pictures, size, processes),
                "ours": ours(cached, size, processes),
                "copy": bare_copy(cached),
            }
            timed = alternate(ways, rounds, memory=processes == 0)
            timed["usual"] = _longer(timed["usual"], REPEATS)
            alone = processes == 0
            about = {"per": REPEATS * count, "rate": True, "clock": "cpu" if alone else "wall"}
            place = f"films for training, {size}², " + (
                "one process" if alone else f"workers: {processes}"
            )
            rows += [
                compared(
                    place,
                    timed["ours"],
                    timed["usual"],
                    at_least=GOALS[size] if alone else None,
                    against="PNG, albumentations, float tensors",
                    **about,
                ),
                compared(place, timed["ours"], timed["copy"], against="bare copy", **about),
            ]
    return rows


def _longer(timed: Timed, times: int) -> Timed:
    """What so many times the work would have taken."""
    rounds = [Spent(times * one.wall, times * one.cpu) for one in timed.rounds]
    return Timed(rounds, timed.peak)
