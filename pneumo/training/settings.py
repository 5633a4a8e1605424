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

from omegaconf import MISSING, DictConfig, OmegaConf

from pneumo import runs
from pneumo.data.settings import Data, PhantomData, Split, SplitKind
from pneumo.errors import PneumoError
from pneumo.masks.settings import Postprocess
from pneumo.settings import (
    CONF,
    OPTIONS,
    Log,
    Machine,
    checked,
    register,
    register_options,
    require,
)


@dataclass
class Resolution:
    """Side of the square images the network sees (pixels), and what the paper ties to it."""

    size: int = 256
    crop_min: float = 0.609375  # least side of a random crop, as a share of the image's
    swa_epochs: int = 5  # epochs to average at the end, if weights are averaged

    def __post_init__(self) -> None:
        require(
            self.size >= 32 and self.size % 32 == 0,
            "resolution.size",
            self.size,
            "a multiple of 32, at least 32",
        )
        require(0 < self.crop_min <= 1, "resolution.crop_min", self.crop_min, "above 0, at most 1")


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
            require(
                0 <= getattr(self, key) <= 1,
                f"augmentation.{key}",
                getattr(self, key),
                "a probability (0 to 1)",
            )
        for key in (
            "contrast_limit",
            "brightness_limit",
            "elastic_alpha",
            "elastic_sigma",
            "optical_limit",
            "grid_limit",
        ):
            require(getattr(self, key) >= 0, f"augmentation.{key}", getattr(self, key), "0 or more")
        gamma = self.gamma_limit
        require(
            len(gamma) == 2 and 0 < gamma[0] <= gamma[1],
            "augmentation.gamma_limit",
            gamma,
            "two positive numbers, the lower first",
        )


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
        require(self.std > 0, "model.std", self.std, "positive")


@dataclass
class Loss:
    """Weighted sum of binary cross-entropy and soft Dice loss."""

    bce: float = 1.0
    dice: float = 1.0
    smooth: float = 1.0
    dice_per_image: bool = False  # False pools the batch, as Keras losses of the time did

    def __post_init__(self) -> None:
        require(
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
        require(
            0 < self.factor < 1, "scheduler.factor", self.factor, "between 0 and 1, both exclusive"
        )
        require(self.patience >= 1, "scheduler.patience", self.patience, "at least 1")


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
        require(self.epochs >= 1, "swa.epochs", self.epochs, "at least 1")


@dataclass
class LightningSWA(SWA):
    """Lightning's own callback: snapshots at the start of epochs, its own learning rate, a batch-norm epoch."""

    name: str = "lightning"
    epochs: int = MISSING
    lr: float = 1e-3
    annealing_epochs: int = 1

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "swa.epochs", self.epochs, "at least 1")
        require(self.lr > 0, "swa.lr", self.lr, "positive")


@dataclass
class Scale:
    """Shrinks any experiment: the number of films, and factors on side, epochs and batch size (see ``Config.scaled``)."""

    name: str = "full"
    images: int | None = None
    positive_rate: float | None = (
        None  # share of positives among them (and of phantoms); None keeps the data's own
    )
    size: float = 1.0
    epochs: float = 1.0
    batch: float = 1.0
    encoder_weights: str | None = (
        None  # replaces model.encoder_weights=imagenet, so that a trial needs no download
    )

    def __post_init__(self) -> None:
        for key in ("size", "epochs", "batch"):
            require(
                0 < getattr(self, key) <= 1,
                f"scale.{key}",
                getattr(self, key),
                "above 0, at most 1",
            )
        require(self.images is None or self.images >= 4, "scale.images", self.images, "at least 4")
        rate = self.positive_rate
        require(
            rate is None or 0 < rate < 1,
            "scale.positive_rate",
            rate,
            "between 0 and 1, both exclusive",
        )

    def of(self, data: PhantomData) -> PhantomData:
        """The phantoms that this scale asks for."""
        images = min(data.images, self.images or data.images)
        rate = self.positive_rate or data.positive_rate
        return dataclasses.replace(data, images=images, positive_rate=rate)


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
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        devices = self.machine.devices
        rule = f"a multiple of machine.devices={devices}, at least {2 * devices} (batch norm needs two images on each)"
        require(
            self.batch_size >= 2 * devices and self.batch_size % devices == 0,
            "batch_size",
            self.batch_size,
            rule,
        )
        require(self.lr > 0 and math.isfinite(self.lr), "lr", self.lr, "a positive number")
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        parts = self.split.folds if self.split.kind is SplitKind.kfold else None
        require(
            self.fold >= 0 and (parts is None or self.fold < parts),
            "fold",
            self.fold,
            f"0 to {(parts or 0) - 1}" if parts else "0 or more",
        )
        for key in ("experiment", "tag", "variant"):
            value = getattr(self, key)
            require(
                re.fullmatch(r"[\w.+-]*", value) is not None,
                key,
                value,
                "letters, digits and . _ + - only",
            )
        if isinstance(self.swa, PaperSWA | LightningSWA) and self.swa.epochs > self.epochs:
            raise PneumoError(
                f"swa.epochs={self.swa.epochs}: must not exceed epochs={self.epochs} (set swa.epochs, or swa=none)"
            )

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
            return (
                value
                if key in exact
                else max(least, round(value * factor))
                if factor < 1
                else value
            )

        epochs = shrink("epochs", self.epochs, scale.epochs, min(5, self.epochs))
        side = (
            self.resolution.size
            if "resolution.size" in exact
            else max(32, 32 * round(self.resolution.size * scale.size / 32))
        )
        resolution = dataclasses.replace(self.resolution, size=side)
        swa = self.swa
        if isinstance(swa, PaperSWA | LightningSWA) and "swa.epochs" not in exact:
            swa = dataclasses.replace(
                swa,
                epochs=min(shrink("swa.epochs", swa.epochs, scale.epochs, 2), max(1, epochs - 1)),
            )
        model = self.model
        if (
            scale.encoder_weights
            and model.encoder_weights == "imagenet"
            and "model.encoder_weights" not in exact
        ):
            model = dataclasses.replace(model, encoder_weights=scale.encoder_weights)
        batch_size = shrink("batch_size", self.batch_size, scale.batch, 8)
        if "data.images" in exact and "scale.images" not in exact:
            scale = dataclasses.replace(scale, images=None)
        if "data.positive_rate" in exact and "scale.positive_rate" not in exact:
            scale = dataclasses.replace(scale, positive_rate=None)
        return dataclasses.replace(
            self,
            epochs=epochs,
            batch_size=batch_size,
            resolution=resolution,
            swa=swa,
            model=model,
            scale=scale,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as recorded with a run."""
        return cast(
            dict[str, Any], OmegaConf.to_container(OmegaConf.structured(self), enum_to_str=True)
        )


# what a parent takes over from its child: everything that is not the parent's own recipe
SHARED = (
    "runs_dir",
    "tag",
    "seed",
    "fold",
    "data",
    "split",
    "model",
    "scale",
    "handoff",
    "machine",
    "log",
)


def handoff(parent: str | None, *, _root_: DictConfig) -> str | None:
    """The ``${handoff:…}`` resolver: where the parent's finished weights are or will be. Pure; never raises, never looks."""
    if not parent:
        return None
    key = _root_
    folder = runs.path(
        key.runs_dir, parent, key.data.name, key.scale.name, key.tag, key.fold, key.seed
    )
    return str(folder / runs.WEIGHTS)


def load_config(raw: DictConfig) -> Config:
    """The configuration of a fit. Raises PneumoError."""
    config = checked(raw)
    assert isinstance(config, Config)
    if not config.experiment:
        names = ", ".join(sorted(p.stem for p in Path(CONF, "experiment").glob("*.yaml")))
        raise PneumoError(f"no experiment chosen: add +experiment=<name>, one of {names}")
    return config


def recorded_config(values: dict[str, Any]) -> Config:
    """The ``Config`` of a finished or interrupted run, from what ``to_dict`` recorded."""
    schema = OmegaConf.structured(Config)
    for group, options in OPTIONS.items():
        name = values[group]["name"]
        if name not in options:
            raise PneumoError(f"{group}.name={name} is not known; one of {', '.join(options)}")
        schema[group] = OmegaConf.structured(options[name])
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(schema, values)))


register("schema", Config)
register_options("scheduler", constant=Scheduler, cosine=Cosine, plateau=Plateau)
register_options("swa", none=SWA, paper=PaperSWA, lightning=LightningSWA)
OmegaConf.register_new_resolver("handoff", handoff, replace=True)
