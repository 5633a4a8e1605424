"""The vocabulary of a run: every setting with its type, default and check. Imports no torch, so that help answers at once.

YAML files in ``conf/`` choose values; these dataclasses own names and types, so that a typo fails while the configuration
is composed. ``load`` turns a composed configuration into a checked ``Config``; no ``DictConfig`` travels further.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pneumo.inference.settings import Films
from pneumo.masks.settings import Rule
from pneumo.settings import Log, Machine, register, require


class Choose(Enum):
    """Which thresholds a bundle carries."""

    declared = "declared"  # the experiment's own
    tuned = "tuned"  # chosen on all validation films; the score stated is that of choosing and scoring on different ones


@dataclass
class Export(Films):
    """What ``python -m pneumo.export`` takes."""

    out: str = "model"
    choose: Choose = Choose.declared
    tta: bool = True
    postprocess: Rule = field(default_factory=Rule)
    onnx: bool = False  # also write the networks as ONNX, checked against torch
    licence: str = "not stated"  # of the weights
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")


class Tune(Enum):
    """How thresholds are chosen from the films themselves, beside the ones declared beforehand."""

    none = "none"
    honest = "honest"  # chosen on one part, scored on the other: other folds where there are, else halves by patient
    optimistic = "optimistic"  # also chosen and scored on the same films, and marked so everywhere


@dataclass
class Evaluate(Films):
    """What ``python -m pneumo.evaluate`` takes."""

    tta: bool = True  # mean of the film and its mirror image
    postprocess: Rule = field(default_factory=Rule)
    tune: Tune = Tune.honest
    against: Any = None  # another run, compared film by film
    resamples: int = 1000  # of the bootstrap by patient; 0 leaves intervals out
    seed: int = 0
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass
class Submission(Films):
    """What ``python -m pneumo.submission`` takes."""

    tta: bool = True
    postprocess: Rule = field(default_factory=Rule)
    sample: str | None = None  # the challenge's sample submission: every id of it is written once
    out: str = "submission.csv"


@dataclass
class Report:
    """What ``python -m pneumo.report`` takes."""

    runs_dir: str = "runs"
    setting: str | None = (
        None  # one of runs/<experiment>/<setting>, e.g. phantom-mini; by default all
    )
    ids: str | None = None  # the challenge's stage_1_sample_submission.csv, for Table IV
    resamples: int = 1000
    gallery: int = 4  # films of each kind
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        require(self.gallery >= 0, "gallery", self.gallery, "0 or more")


register("evaluate_schema", Evaluate)
register("export_schema", Export)
register("report_schema", Report)
register("submission_schema", Submission)
