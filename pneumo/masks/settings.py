"""What turns a probability map into a mask: thresholds and the removal rule."""

import dataclasses
from dataclasses import dataclass
from enum import Enum

from pneumo.settings import BETWEEN_0_AND_1, declare, require


class Removal(Enum):
    """What the removal threshold is compared with."""

    total = "total"  # the whole mask
    component = "component"  # each 8-connected component


@dataclass
class Postprocess:
    """From probabilities to a mask: binarisation (B-TH), removal (R-TH), winners' refinements.

    The winner's triplet (top threshold, least area, bottom threshold) is ``top_threshold``,
    ``removal_threshold`` and ``binarization_threshold``.
    """

    binarization_threshold: float = declare(
        0.5, "a pixel belongs to the mask if its probability exceeds this (B-TH)"
    )
    removal_threshold: int = declare(2048, "pixels, counted at removal_size²")
    removal_size: int = declare(1024, "side at which areas are counted")
    removal: Removal = declare(Removal.total, "what R-TH is compared with: total or component")
    top_threshold: float | None = declare(
        None, "the area is counted above this threshold; None: above the binarisation threshold"
    )
    contour_area: float = declare(
        0.0, "outlines that enclose no more than this are dropped; pixels, counted at removal_size²"
    )
    fill_holes: bool = declare(False, "fill holes of the outlines")
    presence_threshold: float | None = declare(
        None,
        "the gate: a film whose presence score is below this gets an empty mask; the score then "
        "ranks films too. None: no gate",
    )

    def __post_init__(self) -> None:
        for key in ("binarization_threshold", "top_threshold", "presence_threshold"):
            value = getattr(self, key)
            require(
                value is None or 0 < value < 1,
                f"postprocess.{key}",
                value,
                BETWEEN_0_AND_1,
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
    """Settings of ``Postprocess`` to use instead of the recorded ones; null keeps the run's."""

    binarization_threshold: float | None = declare(None, "B-TH")
    removal_threshold: int | None = declare(None, "R-TH, pixels at removal_size²")
    removal_size: int | None = declare(None, "side at which areas are counted")
    removal: Removal | None = declare(None, "total or component")
    top_threshold: float | None = declare(None, "the area is counted above this threshold")
    contour_area: float | None = declare(None, "outlines that enclose no more are dropped")
    fill_holes: bool | None = declare(None, "fill holes of the outlines")
    presence_threshold: float | None = declare(
        None, "the gate: the least presence score of a film with a mask"
    )

    def over(self, declared: Postprocess) -> Postprocess:
        """``declared`` with what is set here. Raises PneumoError."""
        return dataclasses.replace(
            declared, **{key: value for key, value in vars(self).items() if value is not None}
        )
