"""What evaluating, reporting, exporting and submitting take."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pneumo.errors import PneumoError
from pneumo.inference.settings import Films
from pneumo.masks.settings import Rule
from pneumo.settings import Machine, Tracking, declare, register, require


class Choose(Enum):
    """Which thresholds a bundle carries."""

    declared = "declared"  # the experiment's own
    # chosen on all validation films; the score stated is that of choosing and scoring on different
    # ones
    tuned = "tuned"


@dataclass
class Export(Films):
    """What ``python -m pneumo.export`` takes."""

    out: str = declare("model", "folder of the bundle", place=True)
    choose: Choose = declare(
        Choose.declared,
        "thresholds: declared (the experiment's) or tuned (on the validation films)",
    )
    tta: bool = declare(True, "mean of a film and its mirror image")
    postprocess: Rule = declare(factory=Rule, help="thresholds to use instead")
    onnx: bool = declare(False, "also write the networks as ONNX, checked against torch")
    licence: str = declare("not stated", "of the weights")
    resamples: int = declare(1000, "of the bootstrap by patient; 0 leaves intervals out")
    seed: int = declare(0, "of halves and bootstrap")

    def __post_init__(self) -> None:
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")


class Tune(Enum):
    """How thresholds are chosen from the films themselves, beside the ones declared beforehand."""

    none = "none"
    # chosen on one part, scored on the other: other folds where there are, else halves by patient
    honest = "honest"
    optimistic = "optimistic"  # also chosen and scored on the same films, and marked so everywhere


@dataclass
class Evaluate(Films):
    """What ``python -m pneumo.evaluate`` takes."""

    tta: bool = declare(True, "mean of the film and its mirror image")
    postprocess: Rule = declare(factory=Rule, help="thresholds to use instead")
    tune: Tune = declare(
        Tune.honest,
        "none, honest (chosen on other films than scored) or optimistic (the same films, marked)",
    )
    against: Any = declare(None, "another run, compared film by film", place=True)
    resamples: int = declare(1000, "of the bootstrap by patient; 0 leaves intervals out")
    seed: int = declare(0, "of halves and bootstrap")
    log: Tracking = declare(factory=Tracking, help="Weights & Biases")

    def __post_init__(self) -> None:
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass
class Submission(Films):
    """What ``python -m pneumo.submission`` takes."""

    on: str = declare("", "the folder of films to submit; val and test to look at", place=True)
    tta: bool = declare(True, "mean of a film and its mirror image")
    postprocess: Rule = declare(factory=Rule, help="thresholds to use instead")
    sample: str | None = declare(
        None, "the challenge's sample submission: every id of it is written once", place=True
    )
    out: str = declare("submission.csv", "the CSV file to write", place=True)

    def __post_init__(self) -> None:
        if not self.on:
            raise PneumoError(
                "on is not set: give the folder of the films to submit, on=<folder> "
                "(on=val: the run's own validation films)"
            )


@dataclass
class Report:
    """What ``python -m pneumo.report`` takes."""

    runs_dir: str = declare("runs", "folder of all runs", place=True)
    setting: str | None = declare(
        None, "one of runs/<experiment>/<setting>, e.g. phantom-mini; by default all"
    )
    ids: str | None = declare(
        None, "the challenge's stage_1_sample_submission.csv, for Table IV", place=True
    )
    resamples: int = declare(1000, "of the bootstrap by patient; 0 leaves intervals out")
    gallery: int = declare(4, "films of each kind")
    machine: Machine = declare(factory=Machine, help="where and how the work is done")

    def __post_init__(self) -> None:
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        require(self.gallery >= 0, "gallery", self.gallery, "0 or more")


register("evaluate_schema", Evaluate)
register("export_schema", Export)
register("report_schema", Report)
register("submission_schema", Submission)
