"""What evaluating, reporting, exporting, submitting, studies and second readers take."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pneumo.data.settings import OnError
from pneumo.errors import PneumoError
from pneumo.inference.settings import Films, Seen, Spacings
from pneumo.masks.settings import Rule
from pneumo.settings import BETWEEN_0_AND_1, Machine, Tracking, declare, register, require
from pneumo.training.settings import Config


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
        if self.data is not None:
            raise PneumoError("data: a bundle states the scores of its runs' own validation films")
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")


class Tune(Enum):
    """How thresholds are chosen from the films themselves, beside the ones declared beforehand."""

    none = "none"
    # chosen on one part, scored on the other: other folds where there are, else halves by patient
    honest = "honest"
    # chosen on the runs' validation films, scored on others: what can be done before a test set is
    # looked at
    validation = "validation"
    optimistic = "optimistic"  # also chosen and scored on the same films, and marked so everywhere


@dataclass
class Measures:
    """What is measured beside the main scores, and by which rules."""

    specificities: list[float] = declare(
        factory=lambda: [0.8, 0.9, 0.95], help="at which the films' sensitivity is stated"
    )
    sensitivities: list[float] = declare(
        factory=lambda: [0.8, 0.9, 0.95], help="at which the films' specificity is stated"
    )
    # ChestX-ray14, from which the challenge's films were chosen, labels 5,302 of 112,120 films with
    # pneumothorax (4.7 %); the challenge's own 22 % is no hospital's
    prevalence: float = declare(0.05, "share of positive films for which PPV and NPV are stated")
    # quartiles of the challenge's positive films, as in evaluation/scores.py; what readers call
    # moderate and large (Taylor et al. 2018) is no area, so where they begin is an assumption
    least_px: list[int] = declare(
        factory=lambda: [4_059, 8_630, 18_388],
        help="pixels at 1024² of the positives whose detection is stated, smaller ones left out",
    )
    # On the 101 films where both the challenge and ChestX-Det's radiologists drew pneumothorax,
    # half of the median film's boundaries lie within 6.3 px, or 2.5 mm, of each other. An IoU of
    # .1 matches 97 of the 143 components that the radiologists drew, one of .5 only 41.
    tolerance_px: float = declare(6.0, "NSD: pixels at 1024² that boundaries may lie apart")
    tolerance_mm: float = declare(2.5, "NSD in mm, for films whose spacing is known")
    lesion_iou: float = declare(0.1, "a lesion is found by a component whose IoU reaches this")
    # of the 5,044 components of the challenge's masks 1,532 are smaller: crumbs of drawing
    lesion_px: int = declare(100, "pixels at 1024²; smaller components count on neither side")
    # the least of the overlaps at which Wang et al. (CVPR 2017) count NIH's boxes as hit
    box_iou: float = declare(0.1, "a true box is hit by a component whose box has this IoU")
    pointing_px: float = declare(
        0.0, "pointing game: pixels at 1024² that the most probable pixel may lie off the mask"
    )

    def __post_init__(self) -> None:
        fractions = [("prevalence", self.prevalence)]
        for key in ("specificities", "sensitivities"):
            fractions += [(key, value) for value in getattr(self, key)]
        for key, value in fractions:
            require(0 < value < 1, f"measures.{key}", value, BETWEEN_0_AND_1)
        for least in self.least_px:
            require(least >= 1, "measures.least_px", self.least_px, "at least 1 each")
        for key in ("tolerance_px", "tolerance_mm"):
            require(getattr(self, key) > 0, f"measures.{key}", getattr(self, key), "above 0")
        off = self.pointing_px
        require(off >= 0, "measures.pointing_px", off, "0 or more")
        for key in ("lesion_iou", "box_iou"):
            iou = getattr(self, key)
            require(0 < iou <= 1, f"measures.{key}", iou, "above 0 and at most 1")
        require(self.lesion_px >= 1, "measures.lesion_px", self.lesion_px, "at least 1")


@dataclass
class Readings:
    """Files of what other readers said of the challenge's films."""

    chestx_det: Any = declare(
        None,
        "ChestX-Det's polygons: a file, a pattern or a list, e.g. ChestX_Det_*.json",
        place=True,
    )
    google: Any = declare(
        None, "Google's labels, e.g. google2019_nih-chest-xray-labels.csv.gz", place=True
    )
    nih_boxes: Any = declare(None, "NIH's boxes, e.g. BBox_List_2017.csv.gz", place=True)
    on_error: OnError = declare(
        OnError.stop, "stop at rows and readings that cannot be used, or skip them"
    )

    @property
    def given(self) -> bool:
        """Whether there is any reader."""
        return not (self.chestx_det is None and self.google is None and self.nih_boxes is None)


@dataclass
class ReaderFiles(Readings):
    """Second readers beside a model: their files, and how these are joined to its films."""

    names: str | None = declare(
        None, "CSV of image id and NIH file name; null: the run's data.patients", place=True
    )
    share: float = declare(
        0.2215, "of positive films, to which Dice is re-weighted: the challenge's training films"
    )
    pictures: int = declare(12, "of films on which all disagree")

    def __post_init__(self) -> None:
        require(0 < self.share < 1, "reader.share", self.share, BETWEEN_0_AND_1)
        require(self.pictures >= 0, "reader.pictures", self.pictures, "0 or more")


@dataclass
class Evaluate(Films, Spacings):
    """What ``python -m pneumo.evaluate`` takes."""

    model: str | None = declare(
        None,
        "a bundle (python -m pneumo.export) instead of runs: judged on data= by its own thresholds "
        "and calibration",
        place=True,
    )
    tta: bool = declare(True, "mean of the film and its mirror image")
    postprocess: Rule = declare(factory=Rule, help="thresholds to use instead")
    tune: Tune = declare(
        Tune.honest,
        "none, honest (chosen on other films of the same set than scored), validation (chosen on "
        "the runs' validation films; on=test or a folder) or optimistic (the same films, marked)",
    )
    against: Any = declare(
        None,
        "another run, compared film by film; several on both sides without blend: two methods, "
        "compared over their fits",
        place=True,
    )
    measures: Measures = declare(factory=Measures, help="what is measured beside the main scores")
    reader: ReaderFiles = declare(factory=ReaderFiles, help="second readers beside the model")
    detail: bool = declare(False, "print all that is found, as it stands in the JSON file")
    resamples: int = declare(1000, "of the bootstrap by patient; 0 leaves intervals out")
    seed: int = declare(0, "of halves and bootstrap")
    log: Tracking = declare(factory=Tracking, help="Weights & Biases")

    def __post_init__(self) -> None:
        Films.__post_init__(self)
        Spacings.__post_init__(self)
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        if self.model is not None:
            self._check_bundle()
        if self.against is not None and self.seen is Seen.exclude:
            raise PneumoError(
                "seen=exclude and against: each side would leave out films of its own training; "
                "judge both with seen=keep on films that neither has seen"
            )
        if self.tune is Tune.validation and self.on == "val":
            raise PneumoError(
                "tune=validation chooses on the validation films and scores on others: give "
                "on=test or a folder; on the validation films themselves, tune=honest"
            )

    def _check_bundle(self) -> None:
        """Raise PneumoError for what is asked of a bundle, but only runs can do."""
        if self.data is None:
            raise PneumoError(
                f"model={self.model}: say which films it is judged on, data=candid data.root=… (or "
                "another data set; its own validation is in its card)"
            )
        for key in ("run", "system", "against", "blend", "checkpoints", "size"):
            if getattr(self, key) is not None:
                raise PneumoError(f"model and {key} are both set: a bundle is judged as it is")
        if self.tune is Tune.validation:
            raise PneumoError(
                "tune=validation: a bundle has no validation films to choose on; it is judged by "
                "its own thresholds"
            )


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
        if self.data is not None:
            raise PneumoError("data: a submission is of a folder of films, on=<folder>")
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
    reader: ReaderFiles = declare(factory=ReaderFiles, help="second readers beside the runs")
    machine: Machine = declare(factory=Machine, help="where and how the work is done")

    def __post_init__(self) -> None:
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        require(self.gallery >= 0, "gallery", self.gallery, "0 or more")


@dataclass
class SecondReaders(Readings):
    """What ``python -m pneumo.readers`` takes."""

    runs_dir: str = declare("runs", "folder of all runs", place=True)
    annotations: str | None = declare(
        None, "the challenge's table (CSV or .csv.gz) of image id and run lengths", place=True
    )
    patients: str | None = declare(
        None, "CSV of image id and NIH file name (which begins with the patient)", place=True
    )
    share: float | None = declare(
        None, "of positive films, to which Dice is re-weighted; null: that of the whole table"
    )
    # the ends of the interval of ChestX-Det's re-weighted Dice move by .0025 between five seeds of
    # 2,000 resamples, and by .001 between five of 10,000
    resamples: int = declare(10_000, "of the bootstrap by patient; 0 leaves intervals out")
    seed: int = declare(0, "of the bootstrap")
    out: str | None = declare(
        None, "the JSON file to write; null: readers.json in runs_dir", place=True
    )

    def __post_init__(self) -> None:
        given = (
            ("annotations", "the challenge's table of run lengths"),
            ("patients", "a CSV of image id and NIH file name, such as nih_id.csv"),
        )
        for key, what in given:
            if getattr(self, key) is None:
                raise PneumoError(f"{key} is not set: give {what}, {key}=…")
        if not self.given:
            raise PneumoError(
                "no reader is given: name the files of at least one, chestx_det=…, google=… or "
                "nih_boxes=…"
            )
        if self.share is not None:
            require(0 < self.share < 1, "share", self.share, BETWEEN_0_AND_1)
        require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")


class Compute(Enum):
    """What an epoch costs, where arms of a study are to have equal compute."""

    # its pixels: what the operations of a convolutional network are in proportion to
    pixels = "pixels"
    # the side of its films: the paper's minutes on its Titan Xp, 4 an epoch at 256², 8 at 512²
    paper = "paper"


@dataclass
class Arm:
    """One of the things that a study compares: an experiment or a system, and what is changed."""

    name: str = declare(help="how tables and figure call it")
    experiment: str | None = declare(None, "an experiment of conf/experiment")
    system: str | None = declare(None, "or a system of conf/system; the study chooses its folds")
    overrides: list[str] = declare(factory=list, help="settings of its fits, as typed")
    compute_of: str | None = declare(
        None, "another arm: its epochs are chosen so that it costs as much as that one"
    )

    def __post_init__(self) -> None:
        one_of_both = (self.experiment is None) != (self.system is None)
        require(one_of_both, "study.arms", self.name, "either of an experiment or of a system")


@dataclass
class Miniature:
    """What a study takes instead at ``scale=mini``."""

    folds: list[int] = declare(factory=lambda: [0, 1], help="at scale=mini: its folds")
    seeds: list[int] = declare(factory=lambda: [0, 1], help="at scale=mini: its seeds")
    overrides: list[str] = declare(factory=list, help="at scale=mini: settings of every fit")


@dataclass
class Study:
    """Arms that are compared over the same folds and seeds."""

    name: str = declare("", "name of the study")
    arms: list[Arm] = declare(factory=list, help="what is compared")
    reference: str = declare("", "the arm that the others are compared with")
    folds: list[int] = declare(
        factory=lambda: [0, 1, 2, 3, 4], help="validation parts, the same for all arms"
    )
    seeds: list[int] = declare(factory=lambda: [0, 1, 2], help="each arm is fitted with each")
    overrides: list[str] = declare(factory=list, help="settings of every fit, as typed")
    mini: Miniature = declare(factory=Miniature, help="what is smaller at scale=mini")
    compute: Compute = declare(
        Compute.pixels, "what an epoch costs: its pixels, or as the paper's minutes say, its side"
    )
    resamples: int = declare(
        10_000, "of the bootstrap; p cannot be below 2 in so many, before it is corrected"
    )
    seed: int = declare(0, "of the bootstrap")
    plan: bool = declare(False, "say what is left to do and how long it will take, and stop")

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        require(len(names) >= 2, "study.arms", names, "at least two")
        require(len(set(names)) == len(names), "study.arms", names, "of different names")
        choice = f"one of {', '.join(names)}"
        require(self.reference in names, "study.reference", self.reference, choice)
        for arm in self.arms:
            known = arm.compute_of in (None, *names) and arm.compute_of != arm.name
            require(known, f"study.arms: {arm.name}: compute_of", arm.compute_of, choice)
        for key in ("folds", "seeds"):
            values = getattr(self, key)
            require(
                bool(values) and len(set(values)) == len(values),
                f"study.{key}",
                values,
                "at least one, each once",
            )
        require(self.resamples >= 100, "study.resamples", self.resamples, "at least 100")
        require(self.seed >= 0, "study.seed", self.seed, "0 or more")


@dataclass
class StudyFits(Config):
    """What ``python -m pneumo.study`` takes: a study, and settings of all its fits."""

    study: Study | None = declare(None, "the arms that are compared: +study=<name>")


register("evaluate_schema", Evaluate)
register("export_schema", Export)
register("readers_schema", SecondReaders)
register("report_schema", Report)
register("study_schema", StudyFits)
register("submission_schema", Submission)
