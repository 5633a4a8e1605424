"""Augmentation settings → a function on (image, mask).

Everything stays uint8 and one channel; albumentations underneath.
"""

import random
from typing import Any

import cv2
import numpy as np

from pneumo.training.settings import Augmentation, Resolution


class Augment:
    """Calls a pipeline so that a key decides every random choice, in any process and order."""

    def __init__(self, pipeline: Any):
        self.pipeline = pipeline

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, key: list[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask uint8 (size, size), augmented; ``key`` is (seed, epoch, film)."""
        cv2.setNumThreads(0)  # workers are processes already
        # set_random_seed would do, ten times slower; without either, albumentations 2.0.8 repeats
        # itself in workers and epochs
        sequence = np.random.SeedSequence(key)
        self.pipeline.set_random_state(
            np.random.default_rng(sequence), random.Random(int(sequence.generate_state(1)[0]))
        )
        out = self.pipeline(image=image, mask=mask)
        return out["image"], out["mask"]


def build(config: Augmentation, resolution: Resolution) -> Augment | None:
    """The augmentation for films of this resolution; None if nothing is on.

    The four groups are the paper's (section "Pre-processing and augmentation"): horizontal flip;
    one of contrast, gamma, brightness; one of elastic transform, grid distortion, optical
    distortion; random sized crop.
    """
    if not any((config.flip, config.intensity, config.distortion, config.crop)):
        return None
    import albumentations as A  # three seconds; not for those who only ask for help

    size = resolution.size
    # the default of albumentations 2.0, black, would draw collimator edges into the film
    mirror = cv2.BORDER_REFLECT_101
    intensity = [
        A.RandomBrightnessContrast(brightness_limit=0, contrast_limit=config.contrast_limit, p=1),
        A.RandomGamma(gamma_limit=(config.gamma_limit[0], config.gamma_limit[1]), p=1),
        A.RandomBrightnessContrast(brightness_limit=config.brightness_limit, contrast_limit=0, p=1),
    ]
    scale = min(1.0, size / 256)  # below the paper's sizes its deformation would tear a film apart
    distortion = [
        A.ElasticTransform(
            alpha=config.elastic_alpha * scale,
            sigma=max(1.0, config.elastic_sigma * scale),
            border_mode=mirror,
            noise_distribution="uniform",
            p=1,
        ),
        A.GridDistortion(distort_limit=config.grid_limit, border_mode=mirror, p=1),
        A.OpticalDistortion(distort_limit=config.optical_limit, border_mode=mirror, p=1),
    ]
    pipeline = A.Compose(
        [
            A.HorizontalFlip(p=config.flip),
            A.OneOf(intensity, p=config.intensity),
            A.OneOf(distortion, p=config.distortion),
            A.RandomSizedCrop(
                (round(resolution.crop_min * size), size), size=(size, size), p=config.crop
            ),
        ]
    )

    return Augment(pipeline)
