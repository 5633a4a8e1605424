"""One fit: its parts, the scale that shrinks it, the hand-off from its parent; systems of fits."""

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pneumo import runs
from pneumo.data.settings import Data, PhantomData, Split, SplitKind
from pneumo.errors import PneumoError, brief
from pneumo.masks.settings import Postprocess
from pneumo.settings import (
    BETWEEN_0_AND_1,
    CONF,
    OPTIONS,
    Log,
    Machine,
    checked,
    declare,
    options_of,
    register,
    register_options,
    require,
    settings_from,
)


@dataclass
class Resolution:
    """Side of the square films the network sees, and what the paper ties to it."""

    size: int = declare(256, "side of the square films, pixels")
    crop_min: float = declare(0.609375, "least side of a random crop, as a share of the film's")

    def __post_init__(self) -> None:
        multiple = self.size >= 32 and self.size % 32 == 0
        require(multiple, "resolution.size", self.size, "a multiple of 32, at least 32")
        require(0 < self.crop_min <= 1, "resolution.crop_min", self.crop_min, "above 0, at most 1")


@dataclass
class Augmentation:
    """Probabilities of the paper's four groups (0 leaves a group out) and their limits."""

    flip: float = declare(0.0, "probability of a mirror image")
    intensity: float = declare(0.0, "probability of contrast, gamma or brightness")
    distortion: float = declare(0.0, "probability of elastic, grid or optical distortion")
    crop: float = declare(0.0, "probability of a random sized crop")
    contrast_limit: float = declare(0.2, "largest change of contrast, a share")
    brightness_limit: float = declare(0.2, "largest change of brightness, a share")
    gamma_limit: list[int] = declare(
        factory=lambda: [80, 120], help="lowest and highest gamma, per cent"
    )
    elastic_alpha: float = declare(120.0, "pixels at 256² and above; less in proportion below")
    elastic_sigma: float = declare(6.0, "smoothness of the elastic distortion, pixels")
    elastic_affine: float = declare(
        3.6, "its affine part: how far three points move along each axis at most, pixels"
    )
    optical_limit: float = declare(
        2.0, "largest coefficient of the optical distortion; below -.36 it folds the corners"
    )
    grid_limit: float = declare(0.3, "largest stretch of the grid distortion, a share of a cell")
    grid_normalized: bool = declare(
        False, "keep the film's borders in place, which nearly halves the grid distortion"
    )

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
            "elastic_affine",
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


@dataclass
class Sampling:
    """Every training film once an epoch."""

    name: str = declare("all", "name of the sampling")


@dataclass
class SharedEpochs(Sampling, ABC):
    """Every positive film once an epoch, and negatives drawn so that positives have a share p.

    Of n positives, int(n (1 - p) / p) negatives, anew in each epoch, as in the challenge's winner
    (github.com/sneddy/pneumothorax-segmentation, ``PneumoSampler``).
    """

    replacement: bool = declare(
        True, "an epoch may hold a negative film twice; false: once, so all of them at most"
    )

    @abstractmethod
    def at(self, epoch: int, epochs: int) -> float:
        """The share of an epoch (from 0) of so many epochs."""


@dataclass
class FixedShare(SharedEpochs):
    """The same share of positives in every epoch."""

    name: str = declare("share", "name of the sampling")
    share: float = declare(0.8, "share of positive films in an epoch")

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "sampling.share", self.share, "above 0, at most 1")

    def at(self, epoch: int, epochs: int) -> float:
        return self.share


@dataclass
class LinearShare(SharedEpochs):
    """A share of positives that moves by equal steps: start + (end - start) epoch / epochs.

    So the last epoch lies a step before ``end``, as in github.com/amirassov/kaggle-pneumothorax
    (``EmptySampler``), whose values are the default.
    """

    name: str = declare("linear", "name of the sampling")
    start: float = declare(0.8, "share of positive films in the first epoch")
    end: float = declare(0.22, "the share that an epoch after the last would have")

    def __post_init__(self) -> None:
        for key in ("start", "end"):
            value = getattr(self, key)
            require(0 < value <= 1, f"sampling.{key}", value, "above 0, at most 1")

    def at(self, epoch: int, epochs: int) -> float:
        return self.start + (self.end - self.start) * epoch / epochs


@dataclass
class StepShares(SharedEpochs):
    """A share of positives that changes at stated epochs."""

    name: str = declare("steps", "name of the sampling")
    shares: list[float] = declare(
        factory=lambda: [0.8, 0.6, 0.4], help="shares of positive films, one after another"
    )
    epochs: list[int] = declare(
        factory=lambda: [0, 12, 24], help="the epochs from which they hold, counted from 0"
    )

    def __post_init__(self) -> None:
        shares, epochs = self.shares, self.epochs
        valid = bool(shares) and all(0 < share <= 1 for share in shares)
        require(valid, "sampling.shares", shares, "numbers above 0, at most 1")
        rule = f"as many as sampling.shares={shares}, ascending, the first 0"
        ascending = len(epochs) == len(shares) and epochs[0] == 0 and sorted(epochs) == epochs
        require(ascending, "sampling.epochs", epochs, rule)

    def at(self, epoch: int, epochs: int) -> float:
        begun = sum(first <= epoch for first in self.epochs)
        return self.shares[begun - 1]


class Stem(Enum):
    """How one grey channel becomes the encoder's three."""

    repeat = "repeat"  # three equal channels
    conv = "conv"  # a learned 1 → 3 convolution (Exp1)


class Architecture(Enum):
    """Families of segmentation networks: segmentation-models-pytorch's, and the winner's."""

    unet = "unet"
    unetplusplus = "unetplusplus"
    fpn = "fpn"
    deeplabv3plus = "deeplabv3plus"
    albunet = "albunet"  # sneddy's, without batch norm in its decoder


class Attention(Enum):
    """What weighs the maps of a U-Net's decoder."""

    none = "none"
    scse = "scse"  # each channel and each pixel (Roy et al. 2018)


@dataclass
class BatchNorm:
    """Of every batch-norm layer. null leaves each as its library has it.

    Most have torch's .1 and 1e-5; encoders that come from TensorFlow have an eps of 1e-3.
    """

    momentum: float | None = declare(
        None, "weight of the new batch, as in torch: Keras' .99 is .01 here, its .9 is .1"
    )
    eps: float | None = declare(None, "added to the variance; torch 1e-5, Keras 1e-3")

    def __post_init__(self) -> None:
        momentum, eps = self.momentum, self.eps
        rule = "above 0, at most .5: the weight of the new batch, not of the past as in Keras"
        valid = momentum is None or 0 < momentum <= 0.5
        require(valid, "model.batch_norm.momentum", momentum, rule)
        require(eps is None or 0 < eps < 1, "model.batch_norm.eps", eps, BETWEEN_0_AND_1)


ENCODER_WEIGHTS = ("imagenet", "lite", "none")  # anything else is a local file


@dataclass
class Model:
    """A network with a pretrained encoder.

    The encoder sees (x - mean) / std of grey levels x in [0, 1]. The default leaves them as they
    are, as the paper does (section "Pre-processing and augmentation"); its encoder was pretrained
    with ImageNet's statistics of each channel, which ``model=unet_resnet34_imagenet`` uses.
    """

    name: str = declare(help="name of the model, for records")
    architecture: Architecture = declare(
        Architecture.unet, "family: unet, unetplusplus, fpn, deeplabv3plus or albunet"
    )
    encoder: str = declare("resnet34", "a name of segmentation-models-pytorch, or tu-<timm's name>")
    encoder_weights: str = declare(
        "imagenet", "imagenet (from the hub), lite (extra `lite`), none, or a local file"
    )
    stem: Stem = declare(
        Stem.repeat, "how one grey channel becomes three: repeat, or conv (learned)"
    )
    stem_kernel: int = declare(1, "side of that convolution, pixels; Exp1's mixes none")
    decoder_attention: Attention = declare(
        Attention.none, "scse (squeeze and excitation of channels and pixels) or none"
    )
    presence: bool = declare(False, "a second head: the probability of any pneumothorax in a film")
    batch_norm: BatchNorm = declare(factory=BatchNorm, help="running statistics and their floor")
    mean: list[float] = declare(
        factory=lambda: [0.0],
        help="grey levels in [0, 1] become (x - mean) / std: one number, or one for each channel",
    )
    std: list[float] = declare(factory=lambda: [1.0], help="see mean; the paper's levels stay")

    def __post_init__(self) -> None:
        for key in ("mean", "std"):
            value = getattr(self, key)
            require(len(value) in (1, 3), f"model.{key}", value, "one number or three")
            alike = len(value) == 1 or self.stem is Stem.repeat
            require(alike, f"model.{key}", value, "one number: stem=conv takes one channel")
        require(min(self.std) > 0, "model.std", self.std, "positive")
        odd = self.stem_kernel >= 1 and self.stem_kernel % 2 == 1
        require(odd, "model.stem_kernel", self.stem_kernel, "odd and positive, such as 1 or 3")
        attention, family = self.decoder_attention, self.architecture
        able = family in (Architecture.unet, Architecture.unetplusplus)
        rule = f"none: {family.name} has no place for it, as unet and unetplusplus have"
        fits = able or attention is Attention.none
        require(fits, "model.decoder_attention", attention.name, rule)


class Over(Enum):
    """The pixels of one Dice score or one Jaccard index; a loss is the mean of such."""

    batch = "batch"  # all of a batch together, as Keras losses of the time did
    image = "image"
    positives = "positives"  # each image with a mask that is not empty; without any, the loss is 0


@dataclass
class Loss:
    """A weighted sum of losses; a weight of 0 leaves one out."""

    name: str = declare("bce_dice", "name of the loss, for records")
    bce: float = declare(1.0, "weight of binary cross-entropy")
    dice: float = declare(1.0, "weight of soft Dice loss")
    focal: float = declare(0.0, "weight of focal loss")
    lovasz: float = declare(0.0, "weight of the Lovász hinge, a surrogate of the Jaccard index")
    presence: float = declare(0.0, "weight of the presence head's binary cross-entropy")
    own: str | None = declare(
        None, "a loss of yours, <module>.<function>: logits and masks (N, 1, H, W) → a scalar"
    )
    own_weight: float = declare(1.0, "weight of loss.own, where there is one")
    smooth: float = declare(1.0, "added to both sides of the Dice fraction")
    dice_over: Over = declare(
        Over.batch, "one Dice over the whole batch, over each image, or over positives alone"
    )
    dice_squared: bool = declare(False, "square the probabilities below the Dice fraction (V-Net)")
    focal_gamma: float = declare(2.0, "how much focal loss plays down what is right already")
    lovasz_over: Over = declare(
        Over.image, "one Jaccard index over the batch, over each image, or over positives alone"
    )
    lovasz_symmetric: bool = declare(False, "the mean of the index of mask and of background")

    def __post_init__(self) -> None:
        of_masks = [self.bce, self.dice, self.focal, self.lovasz]
        if self.own:
            of_masks.append(self.own_weight)
        valid = min(*of_masks, self.presence) >= 0 and sum(of_masks) > 0
        rule = "of non-negative weights, one of bce, dice, focal, lovasz and own positive"
        require(valid, "loss", self, rule)
        require(self.smooth > 0, "loss.smooth", self.smooth, "positive")
        require(self.focal_gamma >= 0, "loss.focal_gamma", self.focal_gamma, "0 or more")


@dataclass
class Optimizer:
    """Adam (Kingma & Ba 2015), the paper's; what all optimizers share."""

    name: str = declare("adam", "name of the optimizer")
    weight_decay: float = declare(0.0, "of weights and biases; Adam adds it to the gradient")
    encoder_lr: float = declare(1.0, "factor on the encoder's learning rate")
    freeze_encoder: bool = declare(
        False, "leave the encoder as it is, batch-norm statistics included"
    )
    clip: float = declare(0.0, "largest norm of the gradient; 0 does not clip")
    accumulate: int = declare(1, "batches whose gradients are added up before a step")

    def __post_init__(self) -> None:
        for key in ("weight_decay", "clip"):
            require(getattr(self, key) >= 0, f"optimizer.{key}", getattr(self, key), "0 or more")
        require(self.encoder_lr > 0, "optimizer.encoder_lr", self.encoder_lr, "positive")
        require(self.accumulate >= 1, "optimizer.accumulate", self.accumulate, "at least 1")


@dataclass
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: str = declare("adamw", "name of the optimizer")
    weight_decay: float = declare(0.01, "of weights, not of biases and norms; decoupled")


class Interval(Enum):
    """When a learning rate is stepped."""

    epoch = "epoch"
    step = "step"


@dataclass
class Scheduler:
    """The learning rate stays as it is."""

    name: str = declare("constant", "name of the schedule")


@dataclass
class Cosine(Scheduler):
    """Cosine annealing from ``lr`` to ``lr_min``, per epoch (the paper's) or per step."""

    name: str = declare("cosine", "name of the schedule")
    lr_min: float = declare(0.0, "learning rate at the end")
    interval: Interval = declare(Interval.epoch, "stepped per epoch or per step")
    warmup: float = declare(0.0, "share of the steps in which the rate rises linearly from 0")

    def __post_init__(self) -> None:
        require(self.lr_min >= 0, "scheduler.lr_min", self.lr_min, "0 or more")
        require(0 <= self.warmup < 1, "scheduler.warmup", self.warmup, "0 or more, below 1")


@dataclass
class Plateau(Scheduler):
    """Keras' ReduceLROnPlateau on the validation loss."""

    name: str = declare("plateau", "name of the schedule")
    factor: float = declare(0.2, "by which the rate shrinks")
    patience: int = declare(5, "epochs without improvement before it shrinks")
    min_delta: float = declare(1e-4, "least improvement that counts")
    lr_min: float = declare(0.0, "least learning rate")

    def __post_init__(self) -> None:
        require(0 < self.factor < 1, "scheduler.factor", self.factor, BETWEEN_0_AND_1)
        require(self.patience >= 1, "scheduler.patience", self.patience, "at least 1")


@dataclass
class OneCycle(Scheduler):
    """One rise to ``lr`` and one fall (Smith & Topin 2017), per step."""

    name: str = declare("onecycle", "name of the schedule")
    rise: float = declare(0.3, "share of the steps in which the rate rises")
    start_factor: float = declare(0.04, "first learning rate, as a share of lr")
    end_factor: float = declare(4e-6, "last learning rate, as a share of lr")

    def __post_init__(self) -> None:
        require(0 < self.rise < 1, "scheduler.rise", self.rise, BETWEEN_0_AND_1)
        for key in ("start_factor", "end_factor"):
            value = getattr(self, key)
            require(0 < value <= 1, f"scheduler.{key}", value, "above 0, at most 1")


@dataclass
class Cyclic(Scheduler):
    """Cosine cycles of equal length that restart at ``lr`` (Loshchilov & Hutter 2017), per step."""

    name: str = declare("cyclic", "name of the schedule")
    cycles: int = declare(4, "how many cycles the fit has")
    lr_min: float = declare(0.0, "learning rate at the end of each cycle")

    def __post_init__(self) -> None:
        require(self.cycles >= 1, "scheduler.cycles", self.cycles, "at least 1")
        require(self.lr_min >= 0, "scheduler.lr_min", self.lr_min, "0 or more")


@dataclass
class Averaging:
    """No averaging of weights."""

    name: str = declare("none", "name of the averaging")


@dataclass
class LastEpochs(Averaging):
    """Averaging of the last ``epochs`` epochs."""

    epochs: int = declare(help="how many of the last epochs are averaged")

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "averaging.epochs", self.epochs, "at least 1")


@dataclass
class PaperAveraging(LastEpochs):
    """Plain mean of weights and batch-norm statistics at the end of each of the last epochs."""

    name: str = declare("paper", "name of the averaging")
    update_bn: bool = declare(False, "re-estimate batch-norm statistics of the mean")


@dataclass
class LightningAveraging(LastEpochs):
    """Lightning's own callback: snapshots at the start of epochs, its own learning rate."""

    name: str = declare("lightning", "name of the averaging")
    lr: float = declare(1e-3, "learning rate while averaging")
    annealing_epochs: int = declare(1, "epochs in which the rate moves to it")
    update_bn: bool = declare(True, "re-estimate batch-norm statistics in an extra epoch")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lr > 0, "averaging.lr", self.lr, "positive")


@dataclass
class Ema(Averaging):
    """Exponential moving average of weights and batch-norm statistics, updated every step."""

    name: str = declare("ema", "name of the averaging")
    decay: float = declare(0.999, "weight of the past in each step")
    update_bn: bool = declare(False, "re-estimate batch-norm statistics of the average")

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, "averaging.decay", self.decay, BETWEEN_0_AND_1)


@dataclass
class Scale:
    """Shrinks any experiment, see ``Config.scaled``."""

    name: str = declare("full", "name of the scale, part of a run's folder")
    images: int | None = declare(None, "at most so many films")
    positive_rate: float | None = declare(
        None, "share of positives among them (and of phantoms); None keeps the data's own"
    )
    size: float = declare(1.0, "factor on the side of the films")
    epochs: float = declare(1.0, "factor on the epochs")
    batch: float = declare(1.0, "factor on the batch size")
    encoder_weights: str | None = declare(
        None, "replaces model.encoder_weights=imagenet, so that a trial needs no download"
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
            BETWEEN_0_AND_1,
        )

    def of(self, data: PhantomData) -> PhantomData:
        """The phantoms that this scale asks for."""
        images = min(data.images, self.images or data.images)
        rate = self.positive_rate or data.positive_rate
        return dataclasses.replace(data, images=images, positive_rate=rate)


class Source(Enum):
    """Which weights of a fit are judged and handed on."""

    swa = "swa"  # the average where one was made, else those of the last epoch
    best = "best"  # the raw epoch that scored best on the validation films
    last = "last"


class Watched(Enum):
    """The validation score that tells which epoch is best."""

    dice_positive = "dice_positive"  # over positive films alone, so that empty masks score 0
    # Both count an empty mask as right on a film without pneumothorax. On the challenge's films
    # empty masks alone score .7785, more than any experiment of the paper in IoU without TTA.
    dice = "dice"
    iou = "iou"


@dataclass
class Handoff:
    """What passes from parent to child."""

    source: Source = declare(
        Source.swa, "swa (the average where one was made, else the last epoch), best or last"
    )
    score: Watched = declare(
        Watched.dice_positive,
        "validation score of source=best: dice_positive, or dice or iou, which empty masks can win",
    )


class Blend(Enum):
    """How the maps of several runs become one result."""

    mean = "mean"  # runs on the same films: the mean of their maps
    folds = "folds"  # the folds of one cross-validation: each film from the fold that held it out
    mean_folds = "mean_folds"  # first the mean of the networks of each fold, then join the folds


@dataclass
class System:
    """A named combination of finished experiments, judged and handed on like a single one."""

    name: str = declare(help="name of the system")
    experiments: list[str] = declare(help="the experiments it is made of")
    folds: list[int] = declare(factory=lambda: [0], help="the folds of each of them")
    blend: Blend | None = declare(None, "mean, folds or mean_folds; not needed for a single run")

    overrides: list[str] = declare(
        factory=list, help="settings of all its fits, as typed: split=kfold5"
    )

    def __post_init__(self) -> None:
        require(bool(self.experiments), "system.experiments", self.experiments, "at least one")
        require(bool(self.folds), "system.folds", self.folds, "at least one")
        several = len(self.experiments) * len(self.folds) > 1
        choices = "mean, folds or mean_folds, since the system has several runs"
        require(not several or self.blend is not None, "system.blend", self.blend, choices)


@dataclass
class Config:
    """One fit. An experiment with a parent starts from the parent's finished weights."""

    experiment: str = declare("", "name of the experiment", named=True)
    parent: str | None = declare(None, "experiment whose finished weights this one starts from")
    init_from: str | None = declare(
        None, "weights to start from; by default the parent's", place=True, incidental=True
    )
    runs_dir: str = declare("runs", "folder of all runs", place=True, incidental=True, shared=True)
    stage: bool = declare(
        False, "only a step towards its children, not reported by itself", incidental=True
    )
    tag: str = declare(
        "",
        "sets runs with other settings apart; filled from what is typed",
        shared=True,
        named=True,
    )
    variant: str = declare("", "like tag, but not shared with the parent", named=True)
    whole_chain: list[str] = declare(
        factory=list,
        help="settings and groups: what is typed of them holds for the parents too: [averaging]",
        shared=True,
        named=True,
        incidental=True,
    )
    seed: int = declare(
        0, "of everything random in a fit; split.seed divides the films", shared=True, named=True
    )
    fold: int = declare(
        0,
        "which part of a k-fold is validation; of a hold-out, which division",
        shared=True,
        named=True,
    )
    epochs: int = declare(help="passes over the training films")
    batch_size: int = declare(help="films a step, over all devices")
    lr: float = declare(1e-3, "learning rate")
    data: Data = declare(help="the data set", shared=True, named=True)
    split: Split = declare(factory=Split, help="training and validation parts", shared=True)
    sampling: Sampling = declare(factory=Sampling, help="which training films an epoch holds")
    resolution: Resolution = declare(factory=Resolution, help="side of the films")
    augmentation: Augmentation = declare(
        factory=Augmentation, help="random changes of training films"
    )
    model: Model = declare(factory=Model, help="the network", shared=True)
    loss: Loss = declare(factory=Loss, help="what training minimises")
    optimizer: Optimizer = declare(help="how the weights move")
    scheduler: Scheduler = declare(help="the learning rate's course")
    averaging: Averaging = declare(help="averaging of weights")
    postprocess: Postprocess = declare(factory=Postprocess, help="from probabilities to a mask")
    scale: Scale = declare(factory=Scale, help="shrinks any experiment", shared=True, named=True)
    handoff: Handoff = declare(factory=Handoff, help="what a child starts from", shared=True)
    machine: Machine = declare(
        factory=Machine, help="where and how the work is done", incidental=True, shared=True
    )
    log: Log = declare(
        factory=Log, help="what is recorded beside metrics.csv", incidental=True, shared=True
    )
    system: System | None = declare(
        None, "fit all experiments and folds of a system: +system=<name>", incidental=True
    )

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        devices = self.machine.devices
        shares = self.batch_size >= 2 * devices and self.batch_size % devices == 0
        rule = (
            f"a multiple of machine.devices={devices}, at least {2 * devices} "
            "(batch norm needs two images on each)"
        )
        require(shares, "batch_size", self.batch_size, rule)
        require(self.lr > 0 and math.isfinite(self.lr), "lr", self.lr, "a positive number")
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        if self.split.kind is SplitKind.kfold:
            last = self.split.folds - 1
            require(0 <= self.fold <= last, "fold", self.fold, f"0 to {last}")
        require(self.fold >= 0, "fold", self.fold, "0 or more")
        for key in ("experiment", "tag", "variant"):
            value = getattr(self, key)
            plain = re.fullmatch(r"[\w.+-]*", value) is not None
            require(plain, key, value, "letters, digits and . _ + - only")
        names = [one.name for one in dataclasses.fields(self)]
        for name in self.whole_chain:
            require(name in names, "whole_chain", name, "a setting or a group of settings")
        if self.loss.presence and not self.model.presence:
            raise PneumoError("loss.presence needs a network with that head: model.presence=true")
        averaging = self.averaging
        if isinstance(averaging, LastEpochs) and averaging.epochs > self.epochs:
            raise PneumoError(
                f"averaging.epochs={averaging.epochs}: must not exceed epochs={self.epochs} "
                "(set averaging.epochs, or averaging=none)"
            )
        if isinstance(self.sampling, StepShares):
            begins = self.sampling.epochs
            rule = f"below epochs={self.epochs}, or the last share would never hold"
            require(begins[-1] < self.epochs, "sampling.epochs", begins, rule)

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

        Keys in ``exact`` (those the user typed) stay as they are. Epochs of averaging shrink with
        the epochs; two remain, if the fit has more than two.
        """
        scale = self.scale

        def shrink(key: str, value: int, factor: float, least: int) -> int:
            if key in exact or factor >= 1:
                return value
            return max(least, round(value * factor))

        epochs = shrink("epochs", self.epochs, scale.epochs, min(5, self.epochs))
        side = 32 * shrink("resolution.size", self.resolution.size // 32, scale.size, 1)
        averaging = self.averaging
        if isinstance(averaging, LastEpochs):
            fewer = shrink("averaging.epochs", averaging.epochs, scale.epochs, 2)
            if "averaging.epochs" not in exact:
                fewer = min(fewer, max(1, epochs - 1))
            averaging = dataclasses.replace(averaging, epochs=fewer)
        sampling = self.sampling
        if isinstance(sampling, StepShares) and "sampling.epochs" not in exact:
            factor = epochs / self.epochs
            begins = [min(epochs - 1, round(first * factor)) for first in sampling.epochs]
            sampling = dataclasses.replace(sampling, epochs=begins)
        model = self.model
        pretrained = model.encoder_weights == "imagenet"
        if scale.encoder_weights and pretrained and "model.encoder_weights" not in exact:
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
            sampling=sampling,
            resolution=dataclasses.replace(self.resolution, size=side),
            averaging=averaging,
            model=model,
            scale=scale,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as recorded with a run; the system that asked for it is not part of it."""
        alone = dataclasses.replace(self, system=None)
        values = OmegaConf.to_container(OmegaConf.structured(alone), enum_to_str=True)
        return {
            key: value for key, value in cast(dict[str, Any], values).items() if key != "system"
        }


@dataclass
class Listing:
    """What ``python -m pneumo.list`` takes."""

    runs_dir: str = declare("runs", "folder of all runs", place=True)
    prune: bool = declare(False, "remove the checkpoints of finished runs; weights stay")


def handoff(parent: str | None, *, _root_: DictConfig) -> str | None:
    """The ``${handoff:…}`` resolver: where the parent's finished weights are or will be.

    Pure: it never raises and never looks.
    """
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
    if config.system is not None and not config.experiment:
        raise PneumoError(
            f"system {config.system.name}: its file needs a defaults list with one of its "
            f"experiments, - /experiment: {config.system.experiments[0]}"
        )
    if not config.experiment:
        names = ", ".join(sorted(p.stem for p in Path(CONF, "experiment").glob("*.yaml")))
        raise PneumoError(f"no experiment chosen: add +experiment=<name>, one of {names}")
    return config


def system_of(name: str) -> System:
    """A system by its name, from ``conf/system``. Raises PneumoError."""
    path = Path(CONF, "system", f"{name}.yaml")
    if name not in options_of("system"):
        names = ", ".join(options_of("system"))
        raise PneumoError(f"system={name}: not known; one of {names}")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
        return settings_from(System, cast(dict[str, Any], values)["system"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PneumoError(f"{path}: not a system ({brief(error)})") from None


def recorded_config(values: dict[str, Any]) -> Config:
    """The ``Config`` of a run from recorded values; keys that are not there take their defaults.

    Raises PneumoError for options or keys that this version does not know.
    """
    schema = OmegaConf.structured(Config)
    for group, options in OPTIONS.items():
        if group not in values:
            continue
        key = "format" if group == "data" else "name"  # data may bear any name
        name = values[group][key]
        if name not in options:
            raise PneumoError(f"{group}.{key}={name} is not known; one of {', '.join(options)}")
        schema[group] = OmegaConf.structured(options[name])
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(schema, values)))


register("schema", Config)
register("listing_schema", Listing)
register_options("sampling", all=Sampling, share=FixedShare, linear=LinearShare, steps=StepShares)
register_options("optimizer", adam=Optimizer, adamw=AdamW)
register_options(
    "scheduler",
    constant=Scheduler,
    cosine=Cosine,
    plateau=Plateau,
    onecycle=OneCycle,
    cyclic=Cyclic,
)
register_options(
    "averaging", none=Averaging, paper=PaperAveraging, lightning=LightningAveraging, ema=Ema
)
OmegaConf.register_new_resolver("handoff", handoff, replace=True)
