"""Training films per second through our ``DataLoader``, with the paper's augmentation.

    python benchmarks/loading.py [films] [--rounds 5] [--workers 0 1 2 4] [--sizes 256 512]

Against what training scripts usually do (each film and mask read from a 1024² PNG, shrunk and
augmented by albumentations on three channels, collated as float tensors), and against a bare copy
of the cached arrays into batches, which is the limit. Both augment by the same groups,
probabilities and limits. Films are phantoms, of which 22 % have a mask, as in the challenge.

In one process a rate counts the CPU time of the process; with workers, the time on the clock. In
each round all ways take their turn, so that a ratio is of one round.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import albumentations
import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

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


@dataclass
class Row:
    """What was compared: two medians, and the ratio (ours to the other's) of each round."""

    name: str
    ours: float
    other: float
    unit: str
    ratios: list[float]
    goal: float | None = None  # the least median ratio

    def __str__(self) -> str:
        told = (
            f"{self.name}: {self.ours:,.0f} against {self.other:,.0f} {self.unit}; ratio "
            f"{median(self.ratios):.3g} ({min(self.ratios):.3g} to {max(self.ratios):.3g})"
        )
        return told if self.goal is None else f"{told}, goal {self.goal:g}"


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


def compared(
    ways: dict[str, Callable[[], int]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Films per second of each way in each round, after a first round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + rounds):
        for name, epoch in ways.items():
            start = clock()
            count = epoch()
            rates[name].append(count / (clock() - start))
    return {name: of_rounds[1:] for name, of_rounds in rates.items()}


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


def measure(
    films: int = 64,
    rounds: int = 5,
    workers: Iterable[int] = (0,),
    sizes: Iterable[int] = (256, 512),
) -> list[Row]:
    """Rows of the comparison, of an even number of films."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "films"
        phantom.generate(PhantomData(name="phantom", images=films), root)
        table = str(root / phantom.TABLE)
        items = siim.read_index(SiimData(name="siim", root=str(root), annotations=table)).items
        pictures = pictures_of(items, Path(name))
        for size in sizes:
            cached = cache.build(items, size, Path(name) / "cache", workers=0)
            for count in workers:
                ways = {
                    "usual": usual(pictures, size, count),
                    "ours": ours(cached, size, count),
                    "copy": bare_copy(cached),
                }
                one_process = count == 0
                clock = time.process_time if one_process else time.perf_counter
                rates = compared(ways, rounds, clock)
                place = f"{size}², {'one process' if one_process else f'workers: {count}'}"
                unit = f"films/s{' of CPU time' if one_process else ''}"
                for other, told in (("usual", "the usual script"), ("copy", "a bare copy")):
                    pairs = zip(rates["ours"], rates[other], strict=True)
                    goal = GOALS.get(size) if other == "usual" and one_process else None
                    rows.append(
                        Row(
                            f"films for training, {place}, against {told}",
                            median(rates["ours"]),
                            median(rates[other]),
                            unit,
                            [own / their for own, their in pairs],
                            goal,
                        )
                    )
    return rows


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("films", type=int, nargs="?", default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    typed = parser.parse_args()
    for row in measure(typed.films, typed.rounds, typed.workers, typed.sizes):
        print(row)


if __name__ == "__main__":
    main()
