"""Augmentation settings → a function on (image, mask).

Four groups are the paper's (section "Pre-processing and augmentation"): horizontal flip; one of
contrast, gamma, brightness; one of elastic transform, grid distortion, optical distortion; random
sized crop. The challenge's winners add shift, scale and rotation; blur; and windows. All do what
albumentations 0.3 did in 2019, when the recipes of the paper and of the challenge were written. Its
last free version, 2.0.8, halves the grid distortion, has lost the elastic transform's affine part,
and moves the masks of crops by half a pixel.
"""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from pneumo.training.options import Augmentation, Border, Intensity, Resolution

Source = tuple[np.ndarray, np.ndarray]  # x and y that pixels come from, float32 (size, size) each
GRID_CELLS = 5  # of the grid distortion, along each side
# a black border draws edges of a collimator into the film, which a mirror image does not
BORDERS = {Border.mirror: cv2.BORDER_REFLECT_101, Border.black: cv2.BORDER_CONSTANT}


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
        Both have the side of ``config.window``, where there is one.
        """
        cv2.setNumThreads(0)  # workers are processes already
        config, rng = self.config, np.random.default_rng(np.random.SeedSequence(key))
        chances = (config.flip, config.intensity, config.distortion, config.crop)
        flips, changes, distorts, crops = rng.random(4) < chances
        if changes:
            image = _intensity(image, config, rng)
        if _chosen(config.blur, rng):
            image = _blur(image, config.blur_kernel, rng)
        size, border = len(image), BORDERS[config.border]
        # an empty mask remains empty
        both = [image, mask * 255] if cv2.hasNonZero(mask) else [image]
        if flips:
            both = [cv2.flip(one, 1) for one in both]
        distortion = draw_distortion(config, size, rng) if distorts else None
        moved = _affine(config, size, rng) if _chosen(config.affine, rng) else None
        square = draw_square(size, self.crop_min, rng) if crops else None
        if distortion is not None:
            source = distortion.source()
            if isinstance(distortion, Optical) and config.border is Border.mirror:
                # many pixels come from beyond the edge, where cv2.remap is three times as slow
                mirror(source, size)
            both = [cv2.remap(one, *source, cv2.INTER_LINEAR, borderMode=border) for one in both]
        if moved is not None:
            both = [
                cv2.warpAffine(one, moved, (size, size), None, cv2.INTER_LINEAR, border)
                for one in both
            ]
        if square is not None:
            both = [cv2.resize(one[square], (size, size)) for one in both]
        image = both[0]
        if len(both) == 2:
            mask = both[1] >> 7  # 128 and more become 1
        if config.window:
            must_hold_mask = _chosen(config.window_nonempty, rng)
            square = window(mask, config.window, must_hold_mask, rng)
            image, mask = image[square].copy(), mask[square].copy()
        return image, mask


def build(config: Augmentation, resolution: Resolution) -> Augment | None:
    """The augmentation for films of this resolution; None if nothing is on."""
    return Augment(config, resolution) if config.changes else None


def _chosen(probability: float, rng: np.random.Generator) -> bool:
    """Whether a group is on; one that never is draws nothing.

    So a group that is added to this module leaves the draws of all recipes without it as they were.
    """
    return probability > 0 and bool(rng.random() < probability)


def _intensity(image: np.ndarray, config: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """The image with other grey levels, by one of the choices of ``config``."""
    choice = draw_choice(config, rng)
    if choice is Intensity.clahe:
        tiles = (config.clahe_tiles, config.clahe_tiles)
        return cv2.createCLAHE(rng.uniform(1, config.clahe_limit), tiles).apply(image)
    return cv2.LUT(image, draw_levels(choice, image, config, rng))


def draw_choice(config: Augmentation, rng: np.random.Generator) -> Intensity:
    """One of the choices of ``config``."""
    return config.intensity_choices[rng.integers(len(config.intensity_choices))]


def draw_levels(
    choice: Intensity, image: np.ndarray, config: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """What each grey level of an image becomes, uint8 (256,), by any choice but CLAHE."""
    levels = np.arange(256) / 255
    contrast, brightness = config.contrast_limit, config.brightness_limit
    unit = image.mean() / 255 if config.brightness_of_mean else 1.0
    match choice:
        case Intensity.contrast:
            levels *= 1 + rng.uniform(-contrast, contrast)
        case Intensity.gamma:
            lowest, highest = config.gamma_limit
            levels **= rng.uniform(lowest, highest) / 100
        case Intensity.brightness:
            levels += rng.uniform(-brightness, brightness) * unit
        case Intensity.brightness_contrast:
            levels *= 1 + rng.uniform(-contrast, contrast)
            levels += rng.uniform(-brightness, brightness) * unit
    return (levels.clip(0, 1) * 255).round().astype(np.uint8)


def _blur(image: np.ndarray, largest: int, rng: np.random.Generator) -> np.ndarray:
    """The mean, median or motion blur of an image, of an odd side from 3 to ``largest``."""
    side = 3 + 2 * int(rng.integers((largest - 1) // 2))
    match rng.integers(3):
        case 0:
            return cv2.blur(image, (side, side))
        case 1:
            return cv2.medianBlur(image, side)
        case _:
            return cv2.filter2D(image, -1, motion(side, rng))


def motion(side: int, rng: np.random.Generator) -> np.ndarray:
    """The kernel of a motion blur: a line between two random points, of sum 1, (side, side)."""
    start = int(rng.integers(side**2))
    end = (start + int(rng.integers(1, side**2))) % side**2  # any other point
    kernel = np.zeros((side, side), np.float32)
    (y, x), (to_y, to_x) = divmod(start, side), divmod(end, side)
    cv2.line(kernel, (x, y), (to_x, to_y), 1.0)
    return kernel / kernel.sum()


@dataclass(frozen=True)
class Elastic:
    """An elastic transform, by where few of a film's pixels come from.

    ``nodes``, float32 (2, n, n), x and y, is doubled in size until each pixel has its own; a node
    more than needed lies beyond each edge.
    """

    nodes: np.ndarray
    size: int

    def source(self) -> Source:
        """Where each pixel comes from."""
        step = self.size // (self.nodes.shape[-1] - 2)
        x, y = (_doubled(axis, step)[step:-step, step:-step] for axis in self.nodes)
        return x, y


@dataclass(frozen=True)
class Grid:
    """A grid distortion: x that columns come from, y that rows come from, float32 (2, size)."""

    axes: np.ndarray

    def source(self) -> Source:
        """Where each pixel comes from."""
        columns, rows = self.axes
        size = len(rows)
        return np.tile(columns, (size, 1)), np.repeat(rows, size).reshape(size, size)


@dataclass(frozen=True)
class Optical:
    """Optical distortion of a camera with both radial coefficients ``k``.

    A pixel at r film widths from the centre comes from r (1 + k r² + k r⁴). Below k = -4/11 that
    falls again before the corners (r² = 1/2), below -16/17 before the middles of the sides: what
    lies farther out is a mirror image of what lies farther in. With the paper's recipes (±2) two
    draws in five fold the corners and one in four the sides; at k = -2 all beyond .37 widths. Their
    shift of up to half a pixel was rounded to none.
    """

    size: int
    k: float

    def source(self) -> Source:
        """Where each pixel comes from."""
        straight, bend = camera(self.size)
        x, y = bend * np.float32(self.k) + straight
        return x, y


def draw_distortion(
    config: Augmentation, size: int, rng: np.random.Generator
) -> Elastic | Grid | Optical:
    """One of the three distortions."""
    match rng.integers(3):
        case 0:
            scale = min(1.0, size / 256)  # below the paper's sizes it would tear a film apart
            shift, smoothness = config.elastic_alpha * scale, config.elastic_sigma * scale
            return elastic(size, shift, max(1.0, smoothness), config.elastic_affine * scale, rng)
        case 1:
            return grid(size, config.grid_limit, config.grid_normalized, rng)
        case _:
            return Optical(size, rng.uniform(-config.optical_limit, config.optical_limit))


def elastic(
    size: int, alpha: float, sigma: float, affine: float, rng: np.random.Generator
) -> Elastic:
    """Draw an elastic transform (Simard et al. 2003), with its affine part.

    Three points move by up to ``affine`` pixels along each axis and take the film with them. Then
    each pixel moves by noise, uniform in [-1, 1], smoothed by a Gaussian of ``sigma`` pixels, times
    ``alpha`` pixels.

    What a wide Gaussian leaves is smooth: one in 4 × 4 pixels is drawn at a ``sigma`` of 6, the
    others are interpolated (``doublings``). Variances and correlations stay to 1 %.
    """
    times = doublings(sigma)
    step = 2**times
    side = size // step
    noise = rng.random((side, side, 2), np.float32) * 2 - 1
    smoothness = math.sqrt(sigma**2 - _spread(times)) / step
    shifts = cv2.GaussianBlur(noise, (0, 0), smoothness, borderType=cv2.BORDER_REFLECT)
    shifts *= alpha / step  # one draw stands for step² pixels, whose mean varies less
    points = size // 2 + size // 3 * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    moved = points + rng.uniform(-affine, affine, points.shape).astype(np.float32)
    # one more on each side, since what is doubled is flat at its edges
    shifts = cv2.copyMakeBorder(shifts, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    axis = (np.arange(-1, side + 1, dtype=np.float32) + 0.5) * step - 0.5
    places = np.stack(np.meshgrid(axis, axis), axis=-1)
    nodes = cv2.transform(places + shifts, cv2.getAffineTransform(moved, points))
    return Elastic(np.array(cv2.split(nodes)), size)


def doublings(sigma: float) -> int:
    """How often noise can be doubled in size, if a Gaussian of ``sigma`` pixels is to smooth it.

    Doubling smooths as well; a Gaussian of at least 1.4 pixels must remain for the small noise.
    """
    # sizes are multiples of 32
    fitting = [n for n in range(6) if sigma**2 - _spread(n) >= 2 * 4**n]
    return max(fitting, default=0)


def _spread(times: int) -> float:
    """The variance, in pixels², of the kernel by which doubling smooths.

    Once it is [1 3 3 1] / 8, which is 3/4; each later time has pixels of half the side.
    """
    return (4**times - 1) / 4


def _doubled(field: np.ndarray, step: int) -> np.ndarray:
    """A field at ``step`` times its size, by doublings between the centres of its pixels."""
    while step > 1:
        field, step = cv2.resize(field, None, fx=2, fy=2), step // 2
    return field


def grid(size: int, limit: float, normalized: bool, rng: np.random.Generator) -> Grid:
    """Draw a grid distortion.

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
        axes.append(np.interp(pixels, lines, np.append(0, cells.cumsum())))
    return Grid(np.array(axes, np.float32))


@functools.lru_cache(maxsize=1)
def camera(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels come from without distortion, and how far from there for each unit of k.

    Each float32 (2, size, size), x and y. The pixels lie about the point (size - 1) / 2, what they
    come from about size / 2, as in OpenCV's ``initUndistortRectifyMap`` by default.
    """
    axis = np.arange(size) - (size - 1) / 2
    from_centre = np.stack(np.meshgrid(axis, axis))
    squared = (from_centre**2).sum(0) / size**2
    bend = from_centre * (squared + squared**2)
    return (from_centre + size / 2).astype(np.float32), bend.astype(np.float32)


def mirror(source: Source, size: int) -> None:
    """Replace places beyond the edge of a film, up to a width, by those that mirror them inside."""
    last = np.float32(size - 1)
    for axis in source:
        np.abs(axis, out=axis)
        np.subtract(last, axis, out=axis)
        np.abs(axis, out=axis)
        np.subtract(last, axis, out=axis)


def _affine(config: Augmentation, size: int, rng: np.random.Generator) -> np.ndarray:
    """Where a film's pixels go to: turned, scaled, then shifted, a matrix (2, 3).

    As ShiftScaleRotate of albumentations 0.3, about the point (size / 2, size / 2).
    """
    angle = rng.uniform(-config.rotate_limit, config.rotate_limit)
    scale = 1 + rng.uniform(-config.scale_limit, config.scale_limit)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
    matrix[:, 2] += rng.uniform(-config.shift_limit, config.shift_limit, 2) * size
    return matrix


def draw_square(size: int, least: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random square, its side from a share ``least`` of the film's to all."""
    side = int(rng.integers(round(least * size), size, endpoint=True))
    top, left = rng.integers(size - side, size=2, endpoint=True)
    return slice(top, top + side), slice(left, left + side)


def window(
    mask: np.ndarray, side: int, must_hold_mask: bool, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Rows and columns of a random square of ``side`` pixels, all its places equally likely.

    Of a mask that is not empty, if ``must_hold_mask``, only those places where some of it remains.
    """
    places = len(mask) - side + 1  # along each axis
    if must_hold_mask and mask.any():
        sums = cv2.integral(mask)
        held = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
        place = int(rng.choice(np.flatnonzero(held)))
    else:
        place = int(rng.integers(places**2))
    top, left = divmod(place, places)
    return slice(top, top + side), slice(left, left + side)
