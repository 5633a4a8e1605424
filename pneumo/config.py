"""The vocabulary of a run: every setting with its type, default and check. Imports no torch, so that help answers at once.

YAML files in ``conf/`` choose values; these dataclasses own names and types, so that a typo fails while the configuration
is composed. ``load`` turns a composed configuration into a checked ``Config``; no ``DictConfig`` travels further.
"""

import dataclasses
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumo import runs
from pneumo.errors import PneumoError

_PACKAGED = Path(__file__).parent / "conf"  # where a wheel keeps it; a checkout has it beside the package
CONF = str(_PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1] / "conf")


def _require(condition: bool, key: str, value: Any, rule: str) -> None:
    if not condition:
        raise PneumoError(f"{key}={value}: must be {rule}")


class OnError(Enum):
    """What to do with a film or row that cannot be read."""

    stop = "stop"
    skip = "skip"


@dataclass
class Data:
    """A data set in the challenge's layout: a folder of films and a table of run lengths."""

    name: str = MISSING
    root: str | None = None  # folder with DICOM or PNG films, nested or flat
    annotations: str | None = None  # CSV (or .csv.gz) of image id and run lengths
    patients: str | None = None  # CSV of image id and patient, e.g. nih_id.csv
    round: int = 2  # 1 leaves out the images listed in round1_test, as the challenge's first round did
    round1_test: str | None = None  # the challenge's stage_1_sample_submission.csv
    on_error: OnError = OnError.stop
    cache: str = "${runs_dir}/cache"
    max_megapixels: int = 100  # a film that claims more is refused before it is decoded

    def __post_init__(self) -> None:
        _require(self.round in (1, 2), "data.round", self.round, "1 or 2")
        _require(self.max_megapixels > 0, "data.max_megapixels", self.max_megapixels, "positive")
        if self.round == 1 and not self.round1_test:
            raise PneumoError("data.round=1 needs data.round1_test=<stage_1_sample_submission.csv>, the ids to leave out")


@dataclass
class PhantomData(Data):
    """Synthetic films, drawn on first use into ``root`` (below ``runs_dir`` unless given)."""

    images: int = 2000
    positive_rate: float = 0.22  # share of films with pneumothorax; the challenge's training set has .2215
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.images >= 4, "data.images", self.images, "at least 4")
        _require(0 < self.positive_rate < 1, "data.positive_rate", self.positive_rate, "between 0 and 1, both exclusive")
        _require(self.seed >= 0, "data.seed", self.seed, "0 or more")


class SplitKind(Enum):
    """How films are divided into training and validation."""

    holdout = "holdout"
    kfold = "kfold"


class Grouping(Enum):
    """What must not be torn apart by a split."""

    auto = "auto"  # patients where they are known, else images
    patient = "patient"
    image = "image"


@dataclass
class Split:
    """Training and validation parts, stratified by label."""

    kind: SplitKind = SplitKind.holdout
    validation: float = 0.1  # share of a hold-out
    folds: int = 5  # parts of a k-fold split
    group: Grouping = Grouping.auto

    def __post_init__(self) -> None:
        _require(0 < self.validation < 1, "split.validation", self.validation, "between 0 and 1, both exclusive")
        _require(self.folds >= 2, "split.folds", self.folds, "at least 2")


@dataclass
class Resolution:
    """Side of the square images the network sees (pixels), and what the paper ties to it."""

    size: int = 256
    crop_min: float = 0.609375  # least side of a random crop, as a share of the image's
    swa_epochs: int = 5  # epochs to average at the end, if weights are averaged

    def __post_init__(self) -> None:
        _require(self.size >= 32 and self.size % 32 == 0, "resolution.size", self.size, "a multiple of 32, at least 32")
        _require(0 < self.crop_min <= 1, "resolution.crop_min", self.crop_min, "above 0, at most 1")


@dataclass
class Augmentation:
    """Probabilities of the paper's four groups (0 leaves a group out) and their limits."""

    flip: float = 0.0
    intensity: float = 0.0
    distortion: float = 0.0
    crop: float = 0.0
    contrast_limit: float = 0.2
    brightness_limit: float = 0.2
    gamma_limit: list[int] = field(default_factory=lambda: [80, 120])
    elastic_alpha: float = 120.0  # pixels at 256² and above; less in proportion below
    elastic_sigma: float = 6.0
    optical_limit: float = 2.0
    grid_limit: float = 0.3

    def __post_init__(self) -> None:
        for key in ("flip", "intensity", "distortion", "crop"):
            _require(0 <= getattr(self, key) <= 1, f"augmentation.{key}", getattr(self, key), "a probability (0 to 1)")
        for key in ("contrast_limit", "brightness_limit", "elastic_alpha", "elastic_sigma", "optical_limit", "grid_limit"):
            _require(getattr(self, key) >= 0, f"augmentation.{key}", getattr(self, key), "0 or more")
        gamma = self.gamma_limit
        _require(len(gamma) == 2 and 0 < gamma[0] <= gamma[1], "augmentation.gamma_limit", gamma, "two positive numbers, the lower first")


class Stem(Enum):
    """How one grey channel becomes the encoder's three."""

    repeat = "repeat"  # three equal channels
    conv = "conv"  # a learned 1 → 3 convolution (Exp1)


@dataclass
class Model:
    """A U-Net with a pretrained encoder."""

    name: str = MISSING
    encoder: str = "resnet34"  # a name of segmentation-models-pytorch
    encoder_weights: str = "imagenet"  # imagenet (from the hub) | lite (from the extra `lite`) | none | path of a local file
    stem: Stem = Stem.repeat
    mean: float = 0.0  # grey levels in [0, 1] become (x - mean) / std; the paper leaves them
    std: float = 1.0

    def __post_init__(self) -> None:
        _require(self.std > 0, "model.std", self.std, "positive")


@dataclass
class Loss:
    """Weighted sum of binary cross-entropy and soft Dice loss."""

    bce: float = 1.0
    dice: float = 1.0
    smooth: float = 1.0
    dice_per_image: bool = False  # False pools the batch, as Keras losses of the time did

    def __post_init__(self) -> None:
        _require(
            self.bce >= 0 and self.dice >= 0 and self.bce + self.dice > 0,
            "loss",
            self,
            "of non-negative weights, not all 0",
        )


@dataclass
class Scheduler:
    """The learning rate stays as it is."""

    name: str = "constant"


@dataclass
class Cosine(Scheduler):
    """Cosine annealing per epoch from ``lr`` to ``lr_min``."""

    name: str = "cosine"
    lr_min: float = 0.0


@dataclass
class Plateau(Scheduler):
    """Keras' ReduceLROnPlateau on the validation loss."""

    name: str = "plateau"
    factor: float = 0.2
    patience: int = 5
    min_delta: float = 1e-4
    lr_min: float = 0.0

    def __post_init__(self) -> None:
        _require(0 < self.factor < 1, "scheduler.factor", self.factor, "between 0 and 1, both exclusive")
        _require(self.patience >= 1, "scheduler.patience", self.patience, "at least 1")


@dataclass
class SWA:
    """No weight averaging."""

    name: str = "none"


@dataclass
class PaperSWA(SWA):
    """Plain mean of weights and batch-norm statistics at the end of each of the last ``epochs`` epochs."""

    name: str = "paper"
    epochs: int = MISSING

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "swa.epochs", self.epochs, "at least 1")


@dataclass
class LightningSWA(SWA):
    """Lightning's own callback: snapshots at the start of epochs, its own learning rate, a batch-norm epoch."""

    name: str = "lightning"
    epochs: int = MISSING
    lr: float = 1e-3
    annealing_epochs: int = 1

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "swa.epochs", self.epochs, "at least 1")
        _require(self.lr > 0, "swa.lr", self.lr, "positive")


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
    top_threshold: float | None = None  # the area is counted above this threshold; None: above the binarisation threshold
    contour_area: float = 0.0  # outlines that enclose no more than this are dropped; pixels, counted at removal_size²
    fill_holes: bool = False

    def __post_init__(self) -> None:
        for key in ("binarization_threshold", "top_threshold"):
            value = getattr(self, key)
            _require(value is None or 0 < value < 1, f"postprocess.{key}", value, "between 0 and 1, both exclusive")
        for key in ("removal_threshold", "contour_area"):
            _require(getattr(self, key) >= 0, f"postprocess.{key}", getattr(self, key), "0 or more")
        _require(self.removal_size > 0, "postprocess.removal_size", self.removal_size, "positive")
        if self.top_threshold is not None:
            least = f"at least postprocess.binarization_threshold={self.binarization_threshold}"
            _require(self.top_threshold >= self.binarization_threshold, "postprocess.top_threshold", self.top_threshold, least)
            _require(self.removal is Removal.total, "postprocess.removal", self.removal.name, "total if top_threshold is set")


@dataclass
class Scale:
    """Shrinks any experiment: the number of films, and factors on side, epochs and batch size (see ``Config.scaled``)."""

    name: str = "full"
    images: int | None = None
    positive_rate: float | None = None  # share of positives among them (and of phantoms); None keeps the data's own
    size: float = 1.0
    epochs: float = 1.0
    batch: float = 1.0
    encoder_weights: str | None = None  # replaces model.encoder_weights=imagenet, so that a trial needs no download

    def __post_init__(self) -> None:
        for key in ("size", "epochs", "batch"):
            _require(0 < getattr(self, key) <= 1, f"scale.{key}", getattr(self, key), "above 0, at most 1")
        _require(self.images is None or self.images >= 4, "scale.images", self.images, "at least 4")
        rate = self.positive_rate
        _require(rate is None or 0 < rate < 1, "scale.positive_rate", rate, "between 0 and 1, both exclusive")


class Source(Enum):
    """Which weights of a fit are judged and handed on."""

    swa = "swa"  # the average where one was made, else those of the last epoch
    best = "best"  # the raw epoch with the best validation IoU
    last = "last"


@dataclass
class Handoff:
    """What passes from parent to child."""

    source: Source = Source.swa


@dataclass
class Machine:
    """Where and how the work is done. Several devices share each batch."""

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "auto"  # auto: bf16-mixed on a GPU that has it, else 32-true
    workers: int = -1  # data loader processes; -1 chooses
    threads: int = 0  # threads of torch on the CPU; 0 leaves torch's choice
    deterministic: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        accelerators, precisions = ("auto", "cpu", "gpu", "cuda", "mps"), ("auto", "32-true", "16-mixed", "bf16-mixed")
        _require(self.accelerator in accelerators, "machine.accelerator", self.accelerator, f"one of {', '.join(accelerators)}")
        _require(self.precision in precisions, "machine.precision", self.precision, f"one of {', '.join(precisions)}")
        _require(self.devices >= 1, "machine.devices", self.devices, "at least 1")
        _require(self.workers >= -1, "machine.workers", self.workers, "-1 (choose) or more")
        _require(self.threads >= 0, "machine.threads", self.threads, "0 (torch's choice) or more")


class Wandb(Enum):
    """Weights & Biases: online where logged in, else offline."""

    auto = "auto"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Log:
    """What is recorded beside metrics.csv."""

    wandb: Wandb = Wandb.auto
    project: str = "pneumo"
    tensorboard: bool = False
    pictures: int = 4  # validation films shown as overlays; 0 for none
    pictures_every: int = 5  # epochs

    def __post_init__(self) -> None:
        _require(self.pictures >= 0, "log.pictures", self.pictures, "0 or more")
        _require(self.pictures_every >= 1, "log.pictures_every", self.pictures_every, "at least 1")


@dataclass
class Config:
    """One fit. An experiment with a parent starts from the parent's finished weights."""

    experiment: str = ""
    parent: str | None = None
    init_from: str | None = None  # weights to start from; by default the parent's
    runs_dir: str = "runs"
    tag: str = ""  # sets runs with other settings apart; filled from overrides (see runs.tags)
    variant: str = ""  # like tag, but not shared with the parent
    seed: int = 0
    fold: int = 0
    epochs: int = MISSING
    batch_size: int = MISSING
    lr: float = 1e-3
    data: Data = MISSING
    split: Split = field(default_factory=Split)
    resolution: Resolution = field(default_factory=Resolution)
    augmentation: Augmentation = field(default_factory=Augmentation)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    scheduler: Scheduler = MISSING
    swa: SWA = MISSING
    postprocess: Postprocess = field(default_factory=Postprocess)
    scale: Scale = field(default_factory=Scale)
    handoff: Handoff = field(default_factory=Handoff)
    machine: Machine = field(default_factory=Machine)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        devices = self.machine.devices
        rule = f"a multiple of machine.devices={devices}, at least {2 * devices} (batch norm needs two images on each)"
        _require(self.batch_size >= 2 * devices and self.batch_size % devices == 0, "batch_size", self.batch_size, rule)
        _require(self.lr > 0 and math.isfinite(self.lr), "lr", self.lr, "a positive number")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        parts = self.split.folds if self.split.kind is SplitKind.kfold else None
        _require(
            self.fold >= 0 and (parts is None or self.fold < parts),
            "fold",
            self.fold,
            f"0 to {(parts or 0) - 1}" if parts else "0 or more",
        )
        for key in ("experiment", "tag", "variant"):
            value = getattr(self, key)
            _require(re.fullmatch(r"[\w.+-]*", value) is not None, key, value, "letters, digits and . _ + - only")
        if isinstance(self.swa, PaperSWA | LightningSWA) and self.swa.epochs > self.epochs:
            raise PneumoError(f"swa.epochs={self.swa.epochs}: must not exceed epochs={self.epochs} (set swa.epochs, or swa=none)")

    @property
    def path(self) -> Path:
        """The folder of this fit."""
        return runs.path(
            self.runs_dir,
            self.experiment,
            self.data.name,
            self.scale.name,
            self.tag,
            self.fold,
            self.seed,
            self.variant,
        )

    def scaled(self, exact: Collection[str] = ()) -> "Config":
        """The configuration that is really run: ``scale`` applied to what the experiment declares.

        Keys in ``exact`` (those the user typed) stay as they are. Epochs of averaging shrink with the epochs; two remain, if
        the fit has more than two.
        """
        scale = self.scale

        def shrink(key: str, value: int, factor: float, least: int) -> int:
            return value if key in exact else max(least, round(value * factor)) if factor < 1 else value

        epochs = shrink("epochs", self.epochs, scale.epochs, min(5, self.epochs))
        side = self.resolution.size if "resolution.size" in exact else max(32, 32 * round(self.resolution.size * scale.size / 32))
        resolution = dataclasses.replace(self.resolution, size=side)
        swa = self.swa
        if isinstance(swa, PaperSWA | LightningSWA) and "swa.epochs" not in exact:
            swa = dataclasses.replace(swa, epochs=min(shrink("swa.epochs", swa.epochs, scale.epochs, 2), max(1, epochs - 1)))
        model = self.model
        if scale.encoder_weights and model.encoder_weights == "imagenet" and "model.encoder_weights" not in exact:
            model = dataclasses.replace(model, encoder_weights=scale.encoder_weights)
        batch_size = shrink("batch_size", self.batch_size, scale.batch, 8)
        if "data.images" in exact and "scale.images" not in exact:
            scale = dataclasses.replace(scale, images=None)
        if "data.positive_rate" in exact and "scale.positive_rate" not in exact:
            scale = dataclasses.replace(scale, positive_rate=None)
        return dataclasses.replace(self, epochs=epochs, batch_size=batch_size, resolution=resolution, swa=swa, model=model, scale=scale)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as recorded with a run."""
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(self), enum_to_str=True))


@dataclass
class Films:
    """Whose probability maps are asked for: of which runs, on which films."""

    run: Any = None  # a run's folder, a pattern of such folders, or a list: [runs/…/fold0-seed0,runs/…/fold1-seed0]
    on: str = "val"  # val (the run's own validation part), test (the round-1 test set; new phantoms), or a folder of films
    ids: str | None = None  # on=test: the challenge's stage_1_sample_submission.csv; by default the run's data.round1_test
    root: str | None = None  # on=val, test: where the run's films lie now, if not where they lay
    annotations: str | None = None  # table of run lengths: on=<folder> its own, if there is one; on=val, test instead of the run's
    patients: str | None = None  # CSV of image id and patient, as annotations
    on_error: OnError | None = None  # what to do with a film that cannot be read; null: stop, or as the run's data.on_error
    runs_dir: str = "runs"  # where means of several runs, and sweeps, are kept
    machine: Machine = field(default_factory=Machine)


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
        return dataclasses.replace(declared, **{key: value for key, value in vars(self).items() if value is not None})


class Polarity(Enum):
    """What decides whether a film is shown with dark lungs."""

    auto = "auto"  # its tags, unless the film clearly contradicts them
    tags = "tags"


@dataclass
class Save:
    """What is written for each film beside the table of all."""

    overlay: bool = True  # PNG: the film with outline and probability heat
    mask: bool = True  # PNG of 0 and 255, in the film's own geometry
    rle: bool = True  # one CSV of run lengths, in the film's own geometry
    segmentation: bool = False  # DICOM Segmentation
    capture: bool = False  # DICOM Secondary Capture of the overlay
    report: bool = False  # DICOM Structured Report


@dataclass
class Predict(Films):
    """What ``python -m pneumo.predict`` takes: a run, to judge it (``run``, ``on``), or a bundle, to use it (``model``, ``input``)."""

    batch_size: int = 16
    model: str | None = None  # a folder made by python -m pneumo.export
    input: Any = None  # DICOM files, PNG or JPEG pictures, folders, zip archives; one or a list
    out: str = "masks"
    save: Save = field(default_factory=Save)
    tta: bool | None = None  # flip TTA; null: as the bundle says
    postprocess: Rule = field(default_factory=Rule)
    engine: str = "auto"  # auto, torch, onnx
    polarity: Polarity = Polarity.auto
    colour: bool = False  # accept colour images, as their luminance
    max_megapixels: int = 100
    max_megabytes: int = 512  # of a file, or of an archive's member when unpacked

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(self.max_megapixels >= 1, "max_megapixels", self.max_megapixels, "at least 1")
        _require(self.max_megabytes >= 1, "max_megabytes", self.max_megabytes, "at least 1")
        _require(self.engine in ENGINES, "engine", self.engine, f"one of {', '.join(ENGINES)}")


ENGINES = ("auto", "torch", "onnx")


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
        _require(self.resamples >= 0, "resamples", self.resamples, "0 or more")


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
        _require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass
class Submission(Films):
    """What ``python -m pneumo.submission`` takes."""

    tta: bool = True
    postprocess: Rule = field(default_factory=Rule)
    sample: str | None = None  # the challenge's sample submission: every id of it is written once
    out: str = "submission.csv"


@dataclass
class View:
    """What ``python -m pneumo.view`` takes."""

    model: str | None = None
    folder: str | None = None  # films to begin with
    host: str = "127.0.0.1"
    port: int = 8765
    open: bool = True  # open a browser
    engine: str = "auto"
    polarity: Polarity = Polarity.auto
    colour: bool = False
    keep: int = 64  # films in memory
    max_megapixels: int = 50
    max_megabytes: int = 128
    runs_dir: str = "runs"
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        _require(0 < self.port < 65536, "port", self.port, "1 to 65535")
        _require(self.engine in ENGINES, "engine", self.engine, f"one of {', '.join(ENGINES)}")
        for key in ("keep", "max_megapixels", "max_megabytes"):
            _require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


@dataclass
class Report:
    """What ``python -m pneumo.report`` takes."""

    runs_dir: str = "runs"
    setting: str | None = None  # one of runs/<experiment>/<setting>, e.g. phantom-mini; by default all
    ids: str | None = None  # the challenge's stage_1_sample_submission.csv, for Table IV
    resamples: int = 1000
    gallery: int = 4  # films of each kind
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        _require(self.resamples >= 0, "resamples", self.resamples, "0 or more")
        _require(self.gallery >= 0, "gallery", self.gallery, "0 or more")


@dataclass
class Check:
    """What ``python -m pneumo.siim`` takes: a data set, and how much to say of it."""

    runs_dir: str = "runs"
    data: Data = MISSING
    decode: bool = True  # decode every film on disk, not only look for it
    verbose: bool = False  # list every case left aside


COMMANDS = {
    "check": Check,
    "predict": Predict,
    "evaluate": Evaluate,
    "submission": Submission,
    "report": Report,
    "export": Export,
    "view": View,
}
DATA = {"siim": Data, "phantom": PhantomData}
SCHEDULERS = {"constant": Scheduler, "cosine": Cosine, "plateau": Plateau}
SWAS = {"none": SWA, "paper": PaperSWA, "lightning": LightningSWA}

# what a parent takes over from its child: everything that is not the parent's own recipe
SHARED = ("runs_dir", "tag", "seed", "fold", "data", "split", "model", "scale", "handoff", "machine", "log")


def handoff(parent: str | None, *, _root_: DictConfig) -> str | None:
    """The ``${handoff:…}`` resolver: where the parent's finished weights are or will be. Pure; never raises, never looks."""
    if not parent:
        return None
    key = _root_
    folder = runs.path(key.runs_dir, parent, key.data.name, key.scale.name, key.tag, key.fold, key.seed)
    return str(folder / runs.WEIGHTS)


def register() -> None:
    """Make the dataclasses known to Hydra and the hand-off to OmegaConf. May be called again."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, node in COMMANDS.items():
        store.store(name=f"{name}_schema", node=node)
    for group, options in (("data", DATA), ("scheduler", SCHEDULERS), ("swa", SWAS)):
        for name, node in options.items():
            store.store(group=f"schema/{group}", name=name, node=node)
    OmegaConf.register_new_resolver("handoff", handoff, replace=True)


def typed(raw: DictConfig) -> Any:
    """A composed configuration → its checked dataclass. Raises PneumoError that names the key."""
    try:
        return OmegaConf.to_object(raw)
    except PneumoError:
        raise
    except OmegaConfBaseException as error:
        raise PneumoError(" ".join(str(error).split())) from None


def keys() -> list[str]:
    """Every key there is, dotted, and every option of a group, to suggest one for a typo."""

    def walk(node: type, prefix: str = "") -> list[str]:
        found = []
        for one in dataclasses.fields(node):
            found.append(prefix + one.name)
            inner = {"scheduler": Plateau, "swa": LightningSWA, "data": PhantomData}.get(one.name, one.type)
            if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                found += walk(inner, f"{prefix}{one.name}.")
        return found

    return walk(Config)


def load(raw: DictConfig) -> Config:
    """The configuration of a fit. Raises PneumoError."""
    config = typed(raw)
    assert isinstance(config, Config)
    if not config.experiment:
        names = ", ".join(sorted(p.stem for p in Path(CONF, "experiment").glob("*.yaml")))
        raise PneumoError(f"no experiment chosen: add +experiment=<name>, one of {names}")
    return config


def recorded(values: dict[str, Any]) -> Config:
    """The ``Config`` of a finished or interrupted run, from what ``to_dict`` recorded."""
    schema = OmegaConf.structured(Config)
    for group, options in (("data", DATA), ("scheduler", SCHEDULERS), ("swa", SWAS)):
        name = values[group]["name"]
        if name not in options:
            raise PneumoError(f"{group}.name={name} is not known; one of {', '.join(options)}")
        schema[group] = OmegaConf.structured(options[name])
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(schema, values)))


register()
