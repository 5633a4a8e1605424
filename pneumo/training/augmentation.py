"""Augmentation settings → a function on (image, mask).

The four groups are the paper's (section "Pre-processing and augmentation"): horizontal flip; one of
contrast, gamma, brightness; one of elastic transform, grid distortion, optical distortion; random
sized crop. They do what albumentations 0.3 did in 2019, when the recipes of the paper and of the
challenge were written. Its last free version, 2.0.8, halves the grid distortion, has lost the
elastic transform's affine part, and moves the masks of crops by half a pixel.
"""

import functools

import cv2
import numpy as np

from pneumo.training.options import Augmentation, Resolution

GRID_CELLS = 5  # of the grid distortion, along each side


class Augment:
    """Augments a film so that a key decides every random choice, in any process and order."""

    def __init__(self, config: Augmentation, resolution: Resolution):
        self.config, self.crop_min = config, resolution.crop_min

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, key: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 and mask of 0 and 1, (size, size), augmented; ``key`` is (seed, epoch, film).

        Whatever moves the image moves the mask alike: it is interpolated as the image is, and at
        the end cut at one half, so that its edge stays where it belongs to a fraction of a pixel.
        """
        cv2.setNumThreads(0)  # workers are processes already
        config, rng = self.config, np.random.default_rng(np.random.SeedSequence(key))
        chances = (config.flip, config.intensity, config.distortion, config.crop)
        flips, changes, distorts, crops = rng.random(4) < chances
        if changes:
            image = cv2.LUT(image, _intensity(config, rng))
        size, both = len(image), [image, mask * 255]
        if flips:
            both = [cv2.flip(one, 1) for one in both]
        if distorts:
            source = _distortion(config, size, rng)
            # a black border would draw collimator edges into the film
            mirror = cv2.BORDER_REFLECT_101
            both = [
                cv2.remap(one, source, None, cv2.INTER_LINEAR, borderMode=mirror) for one in both
            ]
        if crops:
            square = _square(size, self.crop_min, rng)
            both = [cv2.resize(one[square], (size, size)) for one in both]
        image, soft_mask = both
        return image, soft_mask >> 7  # 128 and more become 1


def build(config: Augmentation, resolution: Resolution) -> Augment | None:
    """The augmentation for films of this resolution; None if nothing is on."""
    if not any((config.flip, config.intensity, config.distortion, config.crop)):
        return None
    return Augment(config, resolution)


def _intensity(config: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """A table of grey levels, uint8 (256,): another contrast, gamma or brightness."""
    levels = np.arange(256) / 255
    match rng.integers(3):
        case 0:
            levels *= 1 + rng.uniform(-config.contrast_limit, config.contrast_limit)
        case 1:
            lowest, highest = config.gamma_limit
            levels **= rng.uniform(lowest, highest) / 100
        case _:
            levels += rng.uniform(-config.brightness_limit, config.brightness_limit)
    return (levels.clip(0, 1) * 255).round().astype(np.uint8)


def _distortion(config: Augmentation, size: int, rng: np.random.Generator) -> np.ndarray:
    """Where the pixels of a distorted film come from: x and y, float32 (size, size, 2)."""
    match rng.integers(3):
        case 0:
            scale = min(1.0, size / 256)  # below the paper's sizes it would tear a film apart
            shift, smoothness = config.elastic_alpha * scale, config.elastic_sigma * scale
            return elastic(size, shift, max(1.0, smoothness), config.elastic_affine * scale, rng)
        case 1:
            return grid(size, config.grid_limit, config.grid_normalized, rng)
        case _:
            return optical(size, rng.uniform(-config.optical_limit, config.optical_limit))


def elastic(
    size: int, alpha: float, sigma: float, affine: float, rng: np.random.Generator
) -> np.ndarray:
    """Elastic transform (Simard et al. 2003), with its affine part: x and y, (size, size, 2).

    Three points move by up to ``affine`` pixels along each axis and take the film with them. Then
    each pixel moves by noise, uniform in [-1, 1], smoothed by a Gaussian of ``sigma`` pixels, times
    ``alpha`` pixels.
    """
    noise = rng.random((size, size, 2), np.float32) * 2 - 1
    shifts = cv2.GaussianBlur(noise, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) * alpha
    points = size // 2 + size // 3 * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    moved = points + rng.uniform(-affine, affine, points.shape).astype(np.float32)
    return cv2.transform(_pixels(size) + shifts, cv2.getAffineTransform(moved, points))


def grid(size: int, limit: float, normalized: bool, rng: np.random.Generator) -> np.ndarray:
    """Grid distortion: x and y, float32 (size, size, 2).

    Each row and column of a 5 × 5 grid is stretched by up to ``limit``, a share of a cell, so that
    the film's far border moves by the sum of all; ``normalized`` keeps it in place, which nearly
    halves the shifts.
    """
    pixels, lines = np.arange(size), np.linspace(0, size, GRID_CELLS + 1)
    axes = []
    for _ in range(2):
        cells = size / GRID_CELLS * (1 + rng.uniform(-limit, limit, GRID_CELLS))
        if normalized:
            cells *= size / cells.sum()
        axes.append(np.interp(pixels, lines, np.append(0, cells.cumsum())).astype(np.float32))
    return np.stack(np.meshgrid(*axes), axis=-1)


def optical(size: int, k: float) -> np.ndarray:
    """Optical distortion of a camera with both radial coefficients ``k``: x and y, (size, size, 2).

    A pixel at r film widths from the centre comes from r (1 + k r² + k r⁴). Below k = -4/11 that
    falls again before the corners (r² = 1/2), below -16/17 before the middles of the sides: what
    lies farther out is a mirror image of what lies farther in. With the paper's recipes (±2) two
    draws in five fold the corners and one in four the sides; at k = -2 all beyond .37 widths. Their
    shift of up to half a pixel was rounded to none.
    """
    camera = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]], np.float32)
    coefficients = np.array([k, k, 0, 0, 0], np.float32)
    return cv2.initUndistortRectifyMap(
        camera, coefficients, None, None, (size, size), cv2.CV_32FC2
    )[0]


@functools.lru_cache(maxsize=1)
def _pixels(size: int) -> np.ndarray:
    """Each pixel's own x and y, float32 (size, size, 2)."""
    axis = np.arange(size, dtype=np.float32)
    return np.stack(np.meshgrid(axis, axis), axis=-1)


def _square(size: int, least: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random square, its side from a share ``least`` of the film's to all."""
    side = int(rng.integers(round(least * size), size, endpoint=True))
    top, left = rng.integers(size - side, size=2, endpoint=True)
    return slice(top, top + side), slice(left, left + side)
