"""The paper's four groups on the device that trains, a batch at a time.

The random numbers of a film are drawn beside the loader, as ``augmentation`` draws them from the
film's key, and travel with the batch. What is done with them is the same in the same order, so that
images differ from those of ``augmentation`` by its fixed-point interpolation alone.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pneumo.training import augmentation
from pneumo.training.augmentation import Elastic, Grid, Optical
from pneumo.training.options import Augmentation, Border, Resolution

PREFIX = "drawn_"  # of what a batch holds besides its films
PADDING = {Border.mirror: "reflection", Border.black: "zeros"}


class DeviceAugment:
    """Draws on the CPU, film by film; changes films on any device, in batches."""

    def __init__(self, config: Augmentation, resolution: Resolution):
        self.config, self.resolution = config, resolution

    def draw(self, images: np.ndarray, keys: list[list[int]]) -> dict[str, Tensor]:
        """What is drawn for films, uint8 (n, size, size), each by its (seed, epoch, film).

        Every tensor is of n films, but for those of the elastic transform: ``nodes`` has an entry
        for each of the films that ``elastic`` numbers.
        """
        config, (count, size) = self.config, images.shape[:2]
        chances = (config.flip, config.intensity, config.distortion, config.crop)
        drawn = {
            "flips": np.zeros(count, bool),
            "levels": np.tile(np.arange(256, dtype=np.uint8), (count, 1)),
            "axes": np.tile(np.arange(size, dtype=np.float32), (count, 2, 1)),
            "optical": np.zeros(count, bool),
            "k": np.zeros(count, np.float32),
            "squares": np.tile([0, 0, size], (count, 1)),  # top, left, side
        }
        elastic: dict[int, np.ndarray] = {}
        for film, (image, key) in enumerate(zip(images, keys, strict=True)):
            rng = np.random.default_rng(np.random.SeedSequence(key))
            flips, changes, distorts, crops = rng.random(4) < chances
            drawn["flips"][film] = flips
            if changes:
                choice = augmentation.draw_choice(config, rng)
                drawn["levels"][film] = augmentation.draw_levels(choice, image, config, rng)
            match augmentation.draw_distortion(config, size, rng) if distorts else None:
                case Elastic(nodes):
                    elastic[film] = nodes
                case Grid(axes):
                    drawn["axes"][film] = axes
                case Optical(_, k):
                    drawn["optical"][film], drawn["k"][film] = True, k
            if crops:
                rows, columns = augmentation.draw_square(size, self.resolution.crop_min, rng)
                drawn["squares"][film] = rows.start, columns.start, rows.stop - rows.start
        drawn["elastic"] = np.array(list(elastic), np.int64)
        drawn["nodes"] = np.array(list(elastic.values()), np.float32)
        return {PREFIX + name: torch.from_numpy(values) for name, values in drawn.items()}

    @torch.no_grad()
    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch with its films changed as drawn; one without draws as it is.

        ``image`` and ``mask`` stay uint8 (n, 1, size, size), masks of 0 and 1.
        """
        if PREFIX + "levels" not in batch:
            return batch
        drawn = {
            name.removeprefix(PREFIX): values
            for name, values in batch.items()
            if name.startswith(PREFIX)
        }
        kept = {name: values for name, values in batch.items() if not name.startswith(PREFIX)}
        image = batch["image"]
        levels = drawn["levels"].gather(1, image.flatten(1).long()).view_as(image)
        both = torch.cat([levels, batch["mask"] * 255], dim=1)
        both = _sampled(both, _sources(drawn, image.shape[-1]), PADDING[self.config.border])
        both = _sampled(both, _enlarging(drawn["squares"], image.shape[-1]), "border")
        return {**kept, "image": both[:, :1], "mask": both[:, 1:] >> 7}


def _sources(drawn: dict[str, Tensor], size: int) -> Tensor:
    """Where the pixels of flipped and distorted films come from: x and y, (n, 2, size, size)."""
    sources = _planes(drawn["axes"][:, 0], drawn["axes"][:, 1])
    straight, bend = _camera(size, sources.device)
    bent = straight + drawn["k"][:, None, None, None] * bend
    sources = torch.where(drawn["optical"][:, None, None, None], bent, sources)
    if len(drawn["elastic"]):
        sources[drawn["elastic"]] = _grown(drawn["nodes"], size)
    flips = drawn["flips"][:, None, None]
    sources[:, 0] = torch.where(flips, size - 1 - sources[:, 0], sources[:, 0])
    return sources


@functools.lru_cache(maxsize=1)
def _camera(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What ``augmentation.camera`` gives, on the device."""
    straight, bend = (torch.from_numpy(one).to(device) for one in augmentation.camera(size))
    return straight, bend


def _grown(nodes: Tensor, size: int) -> Tensor:
    """As ``Elastic.source``: (n, 2, size, size) of nodes (n, 2, m, m)."""
    step = size // (nodes.shape[-1] - 2)
    while nodes.shape[-1] < size + 2 * step:
        nodes = functional.interpolate(nodes, scale_factor=2, mode="bilinear")
    return nodes[..., step:-step, step:-step]


def _enlarging(squares: Tensor, size: int) -> Tensor:
    """Where the pixels of squares, (n, 3), that fill the film come from: (n, 2, size, size)."""
    top, left, side = squares.float().T[:, :, None]
    along = (torch.arange(size, device=squares.device) + 0.5) * side / size - 0.5
    along = torch.minimum(along.clamp(min=0), side - 1)  # nothing of what lies around
    return _planes(left + along, top + along)


def _planes(columns: Tensor, rows: Tensor) -> Tensor:
    """The x of columns and the y of rows, (n, size) each, for each pixel: (n, 2, size, size)."""
    size = rows.shape[-1]
    x, y = columns[:, None, :].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)
    return torch.stack([x, y], dim=1)


def _sampled(films: Tensor, sources: Tensor, padding: Any) -> Tensor:
    """Films uint8 (n, 2, size, size) of the pixels from ``sources``, interpolated and rounded."""
    where = sources.movedim(1, -1) * (2 / (films.shape[-1] - 1)) - 1
    found = functional.grid_sample(
        films.float(), where, mode="bilinear", padding_mode=padding, align_corners=True
    )
    return found.round().clamp(0, 255).to(torch.uint8)


def build(config: Augmentation, resolution: Resolution) -> DeviceAugment | None:
    """The augmentation on the device for films of this resolution; None if it is not done there."""
    return DeviceAugment(config, resolution) if config.on_device and config.changes else None
