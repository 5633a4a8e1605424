"""The vocabulary of a run: every setting with its type, default and check. Imports no torch, so that help answers at once.

YAML files in ``conf/`` choose values; these dataclasses own names and types, so that a typo fails while the configuration
is composed. ``load`` turns a composed configuration into a checked ``Config``; no ``DictConfig`` travels further.
"""

import dataclasses
from dataclasses import dataclass
from enum import Enum

from pneumo.settings import require


class Removal(Enum):
    """What the removal threshold is compared with."""

    total = "total"  # the whole mask
    component = "component"  # each 8-connected component


@dataclass
class Postprocess:
    """From probabilities to a mask: binarisation threshold (B-TH), removal threshold (R-TH), and the winners' refinements.

    The winner's triplet (top threshold, least area, bottom threshold) is ``top_threshold``, ``removal_threshold`` and
    ``binarization_threshold``.
    """

    binarization_threshold: float = 0.5
    removal_threshold: int = 2048  # pixels, counted at removal_size²
    removal_size: int = 1024
    removal: Removal = Removal.total
    top_threshold: float | None = (
        None  # the area is counted above this threshold; None: above the binarisation threshold
    )
    contour_area: float = (
        0.0  # outlines that enclose no more than this are dropped; pixels, counted at removal_size²
    )
    fill_holes: bool = False

    def __post_init__(self) -> None:
        for key in ("binarization_threshold", "top_threshold"):
            value = getattr(self, key)
            require(
                value is None or 0 < value < 1,
                f"postprocess.{key}",
                value,
                "between 0 and 1, both exclusive",
            )
        for key in ("removal_threshold", "contour_area"):
            require(getattr(self, key) >= 0, f"postprocess.{key}", getattr(self, key), "0 or more")
        require(self.removal_size > 0, "postprocess.removal_size", self.removal_size, "positive")
        if self.top_threshold is not None:
            least = f"at least postprocess.binarization_threshold={self.binarization_threshold}"
            require(
                self.top_threshold >= self.binarization_threshold,
                "postprocess.top_threshold",
                self.top_threshold,
                least,
            )
            require(
                self.removal is Removal.total,
                "postprocess.removal",
                self.removal.name,
                "total if top_threshold is set",
            )


@dataclass
class Rule:
    """Settings of ``Postprocess`` to use instead of those the run recorded; null keeps the run's."""

    binarization_threshold: float | None = None
    removal_threshold: int | None = None
    removal_size: int | None = None
    removal: Removal | None = None
    top_threshold: float | None = None
    contour_area: float | None = None
    fill_holes: bool | None = None

    def over(self, declared: Postprocess) -> Postprocess:
        """``declared`` with what is set here. Raises PneumoError."""
        return dataclasses.replace(
            declared, **{key: value for key, value in vars(self).items() if value is not None}
        )
