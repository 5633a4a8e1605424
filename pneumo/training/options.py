"""What a fit can be made of: the options of its groups, their values and their limits."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate

from pneumo.settings import BETWEEN_0_AND_1, declare, register_options, require


@dataclass
class Resolution:
    """Side of the square films the network sees, and what the paper ties to it."""

    size: int = declare(256, "side of the square films, pixels")
    crop_min: float = declare(0.609375, "least side of a random crop, as a share of the film's")

    def __post_init__(self) -> None:
        multiple = self.size >= 32 and self.size % 32 == 0
        require(multiple, "resolution.size", self.size, "a multiple of 32, at least 32")
        require(0 < self.crop_min <= 1, "resolution.crop_min", self.crop_min, "above 0, at most 1")


class Intensity(Enum):
    """Changes of grey levels, of which the intensity group draws one."""

    contrast = "contrast"
    gamma = "gamma"
    brightness = "brightness"
    brightness_contrast = "brightness_contrast"  # both at once
    clahe = "clahe"  # contrast-limited adaptive histogram equalisation (Zuiderveld 1994)


class Border(Enum):
    """What lies beyond the edge of a film that is distorted or moved."""

    mirror = "mirror"
    black = "black"


@dataclass
class Augmentation:
    """Probabilities of the groups of changes (0 leaves a group out) and their limits.

    In this order: intensity, blur, flip, distortion, affine, crop, window. The first four settings
    are the paper's groups.
    """

    flip: float = declare(0.0, "probability of a mirror image")
    intensity: float = declare(0.0, "probability of one of intensity_choices")
    distortion: float = declare(0.0, "probability of elastic, grid or optical distortion")
    crop: float = declare(0.0, "probability of a random sized crop")
    affine: float = declare(0.0, "probability of a shift, change of scale and rotation")
    blur: float = declare(0.0, "probability of a mean, median or motion blur")
    intensity_choices: list[Intensity] = declare(
        factory=lambda: [Intensity.contrast, Intensity.gamma, Intensity.brightness],
        help="one is drawn: contrast, gamma, brightness, brightness_contrast, clahe",
    )
    contrast_limit: float = declare(0.2, "largest change of contrast, a share")
    brightness_limit: float = declare(0.2, "largest change of brightness, a share")
    brightness_of_mean: bool = declare(
        False, "that share is of the film's mean level, as in albumentations 0.3; else of white"
    )
    gamma_limit: list[int] = declare(
        factory=lambda: [80, 120], help="lowest and highest gamma, per cent"
    )
    clahe_limit: float = declare(4.0, "largest clip limit of CLAHE; the least is 1, nearly none")
    clahe_tiles: int = declare(8, "tiles of CLAHE along each side of a film")
    blur_kernel: int = declare(3, "largest side of a blur's kernel, pixels, odd")
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
    shift_limit: float = declare(0.0625, "largest shift along each axis, a share of the side")
    scale_limit: float = declare(0.1, "largest change of scale, a share")
    rotate_limit: float = declare(45.0, "largest rotation, degrees")
    border: Border = declare(
        Border.mirror, "beyond the edge of a distorted or moved film: mirror or black"
    )
    window: int = declare(
        0, "train on random squares of this side, pixels; 0: on whole films, as is validated"
    )
    window_nonempty: float = declare(
        0.0, "probability that the window of a film with a mask must hold some of it"
    )
    on_device: bool = declare(
        False, "do the first four groups in batches where the network is, not beside the loader"
    )

    def __post_init__(self) -> None:
        for key in (*GROUPS, "window_nonempty"):
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
            "shift_limit",
            "rotate_limit",
        ):
            require(getattr(self, key) >= 0, f"augmentation.{key}", getattr(self, key), "0 or more")
        gamma = self.gamma_limit
        require(
            len(gamma) == 2 and 0 < gamma[0] <= gamma[1],
            "augmentation.gamma_limit",
            gamma,
            "two positive numbers, the lower first",
        )
        some = len(self.intensity_choices) > 0
        names = ", ".join(one.name for one in Intensity)
        rule = f"one or more of {names}"
        require(some, "augmentation.intensity_choices", self.intensity_choices, rule)
        require(self.clahe_limit >= 1, "augmentation.clahe_limit", self.clahe_limit, "1 or more")
        require(self.clahe_tiles >= 1, "augmentation.clahe_tiles", self.clahe_tiles, "1 or more")
        odd = self.blur_kernel >= 3 and self.blur_kernel % 2 == 1
        require(odd, "augmentation.blur_kernel", self.blur_kernel, "odd, at least 3")
        scale = self.scale_limit
        require(0 <= scale < 1, "augmentation.scale_limit", scale, "0 or more, below 1")
        multiple = self.window >= 0 and self.window % 32 == 0
        rule = "a multiple of 32, or 0 for whole films"
        require(multiple, "augmentation.window", self.window, rule)
        beyond = {"affine": self.affine, "blur": self.blur, "window": self.window}
        beyond["intensity_choices=clahe"] = Intensity.clahe in self.intensity_choices
        for key, value in beyond.items():
            rule = f"false with augmentation.{key}, which only the loader does"
            require(not (self.on_device and value), "augmentation.on_device", True, rule)

    @property
    def changes(self) -> bool:
        """Whether any group is on."""
        return self.window > 0 or any(getattr(self, group) for group in GROUPS)


GROUPS = ("flip", "intensity", "distortion", "crop", "affine", "blur")  # of Augmentation


@dataclass
class Sampling:
    """Every training film once an epoch.

    Those with small masks may be left out, as Taylor et al. (PLOS Medicine 2018, doi
    10.1371/journal.pmed.1002697) trained without small pneumothorax. Validation keeps them.
    """

    name: str = declare("all", "name of the sampling")
    least_px: int = declare(
        0,
        "pixels at 1024²; training leaves out positive films whose mask has fewer, 0: none",
    )

    def __post_init__(self) -> None:
        require(self.least_px >= 0, "sampling.least_px", self.least_px, "0 or more")


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
        super().__post_init__()
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
        super().__post_init__()
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
        super().__post_init__()
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
    """Families of networks: segmentation-models-pytorch's, the winner's, and those of patches."""

    unet = "unet"
    unetplusplus = "unetplusplus"
    fpn = "fpn"
    deeplabv3plus = "deeplabv3plus"
    albunet = "albunet"  # sneddy's, without batch norm in its decoder
    classifier = "classifier"  # of whole films, whose activation map is the mask
    mil = "mil"  # multiple instances: patches, of which the film's label is pooled


LABELLED_BY_FILM = (Architecture.classifier, Architecture.mil)  # have no decoder


class Pooling(Enum):
    """How logits of patches become a film's."""

    max = "max"
    noisy_or = "noisy_or"  # positive unless every patch is negative, all independent
    lse = "lse"  # log-sum-exp, between mean and max
    mean = "mean"  # makes mil the same network as classifier


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
        Architecture.unet,
        "family: unet, unetplusplus, fpn, deeplabv3plus, albunet, classifier or mil",
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
    pooling: Pooling = declare(
        Pooling.max, "from patches to the film, with mil: max, noisy_or, lse or mean"
    )
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
        odd = 1 <= self.stem_kernel <= 63 and self.stem_kernel % 2 == 1
        require(odd, "model.stem_kernel", self.stem_kernel, "odd and positive, such as 1 or 3")
        # timm takes other names for addresses, hf-hub:… or local-dir:…
        named = re.fullmatch(r"[\w.-]+", self.encoder) is not None
        require(named, "model.encoder", self.encoder, "a name, of letters, digits, _ . and -")
        attention, family = self.decoder_attention, self.architecture
        able = family in (Architecture.unet, Architecture.unetplusplus)
        rule = f"none: {family.name} has no place for it, as unet and unetplusplus have"
        fits = able or attention is Attention.none
        require(fits, "model.decoder_attention", attention.name, rule)
        heads = self.presence or family not in LABELLED_BY_FILM
        rule = f"true with model.architecture={family.name}, which learns from it"
        require(heads, "model.presence", str(self.presence).lower(), rule)
        pools = family is Architecture.mil or self.pooling is Pooling.max
        rule = f"left out: model.architecture={family.name} does not choose, only mil does"
        require(pools, "model.pooling", self.pooling.name, rule)


class Over(Enum):
    """The pixels of one Dice score or one Jaccard index; a loss is the mean of such."""

    batch = "batch"  # all of a batch together, as Keras losses of the time did
    image = "image"
    positives = "positives"  # each image with a mask that is not empty; without any, the loss is 0


@dataclass
class Loss:
    """A weighted sum of losses; a weight of 0 leaves one out.

    Without any loss of masks, a network learns from the labels of whole films alone.
    """

    name: str = declare("bce_dice", "name of the loss, for records")
    bce: float = declare(1.0, "weight of binary cross-entropy")
    dice: float = declare(1.0, "weight of soft Dice loss")
    focal: float = declare(0.0, "weight of focal loss")
    lovasz: float = declare(0.0, "weight of the Lovász hinge, a surrogate of the Jaccard index")
    presence: float = declare(0.0, "weight of the presence head's binary cross-entropy")
    presence_focal: float = declare(0.0, "weight of the presence head's focal loss")
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

    @property
    def needs_masks(self) -> bool:
        """Whether any part of it compares masks."""
        return any(self._of_masks())

    def _of_masks(self) -> list[float]:
        """The weights of the losses of masks."""
        weights = [self.bce, self.dice, self.focal, self.lovasz]
        return [*weights, self.own_weight] if self.own else weights

    def __post_init__(self) -> None:
        weights = [*self._of_masks(), self.presence, self.presence_focal]
        valid = min(weights) >= 0 and sum(weights) > 0
        rule = (
            "of non-negative weights, one of bce, dice, focal, lovasz and own, or presence or "
            "presence_focal, positive"
        )
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
    freeze_epochs: int = declare(
        0, "so many first epochs leave the encoder as it is, later ones train it"
    )
    freeze_batch_norm: bool = declare(
        False, "leave every batch-norm layer as it is: running statistics, scale and shift"
    )
    freeze_batch_norm_affine: bool = declare(
        False, "leave scale and shift of every batch-norm layer; its running statistics move"
    )
    layer_decay: float = declare(
        1.0,
        "factor on the learning rate for each stage of the encoder, from output to input",
    )
    clip: float = declare(0.0, "largest norm of the gradient; 0 does not clip")
    accumulate: int = declare(1, "batches whose gradients are added up before a step")

    def __post_init__(self) -> None:
        for key in ("weight_decay", "clip"):
            require(getattr(self, key) >= 0, f"optimizer.{key}", getattr(self, key), "0 or more")
        require(self.encoder_lr > 0, "optimizer.encoder_lr", self.encoder_lr, "positive")
        require(self.accumulate >= 1, "optimizer.accumulate", self.accumulate, "at least 1")
        decay, frozen = self.layer_decay, self.freeze_epochs
        require(0 < decay <= 1, "optimizer.layer_decay", decay, "above 0, at most 1")
        require(frozen >= 0, "optimizer.freeze_epochs", frozen, "0 or more")


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

    def cycle_ends(self, steps: Sequence[int]) -> list[int]:
        """The epochs (from 0) at whose ends a cycle ends, for a fit of so many steps an epoch.

        None of a schedule that has no cycles.
        """
        return []


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
class Waves(Scheduler):
    """A cosine that goes down to ``lr_min`` and up again, and so on, per epoch.

    It is what torch's CosineAnnealingLR does beyond its ``T_max``, which the first and the fourth
    of the challenge left at 8 of 50 and 60 epochs (github.com/sneddy/pneumothorax-segmentation,
    ``experiments/*/train_config_part1.yaml``; github.com/amirassov/kaggle-pneumothorax, with an
    ``lr_min`` of 1e-6).
    """

    name: str = declare("waves", "name of the schedule")
    half_period: int = declare(8, "epochs from the highest rate to the lowest")
    lr_min: float = declare(1e-7, "lowest rate, where the highest is lr")

    def __post_init__(self) -> None:
        require(self.half_period >= 1, "scheduler.half_period", self.half_period, "at least 1")
        require(self.lr_min >= 0, "scheduler.lr_min", self.lr_min, "0 or more")


@dataclass
class Restarts(Scheduler):
    """Cosine cycles that each last ``factor`` times the one before (Loshchilov & Hutter 2017).

    Stepped per epoch. From ``tail_epochs`` on, stated rates take the place of the cycles; a cycle
    that they, or the end of the fit, cut short has no end.
    """

    name: str = declare("restarts", "name of the schedule")
    first: int = declare(5, "epochs of the first cycle")
    factor: int = declare(2, "by which each cycle is longer than the one before")
    lr_min: float = declare(1e-6, "rate that a cycle falls towards, where the highest is lr")
    tail_epochs: list[int] = declare(
        factory=list, help="epochs, counted from 0, from which stated rates hold"
    )
    tail_rates: list[float] = declare(factory=list, help="those rates, where the highest is lr")

    def __post_init__(self) -> None:
        for key in ("first", "factor"):
            require(getattr(self, key) >= 1, f"scheduler.{key}", getattr(self, key), "at least 1")
        require(self.lr_min >= 0, "scheduler.lr_min", self.lr_min, "0 or more")
        epochs, rates = self.tail_epochs, self.tail_rates
        ascending = sorted(set(epochs)) == epochs and min(epochs, default=0) >= 0
        require(ascending, "scheduler.tail_epochs", epochs, "ascending, none below 0")
        valid = len(rates) == len(epochs) and min(rates, default=1) > 0
        rule = f"positive, as many as scheduler.tail_epochs={epochs}"
        require(valid, "scheduler.tail_rates", rates, rule)

    def cycle(self, epoch: int) -> tuple[int, int]:
        """The first epoch of the cycle that an epoch is in, and how many it would last."""
        start, length = 0, self.first
        while epoch >= start + length:
            start, length = start + length, length * self.factor
        return start, length

    def cycle_ends(self, steps: Sequence[int]) -> list[int]:
        last = len(steps) - 1
        before_tail = min([len(steps), *self.tail_epochs])
        ends = [epoch for epoch in range(before_tail) if sum(self.cycle(epoch)) == epoch + 1]
        # the stated rates are the lowest ones, so their end is one more
        return [*ends, last] if before_tail <= last else ends


class Signal(Enum):
    """What a plateau watches: the validation loss, or a validation score."""

    loss = "loss"
    dice_positive = "dice_positive"
    dice = "dice"
    iou = "iou"


@dataclass
class Plateau(Scheduler):
    """Keras' ReduceLROnPlateau; of a score, higher is better.

    ``patience`` counts as in Keras: torch's ReduceLROnPlateau waits one epoch more, so its 2 is 3
    here.
    """

    name: str = declare("plateau", "name of the schedule")
    factor: float = declare(0.2, "by which the rate shrinks")
    patience: int = declare(5, "epochs without improvement before it shrinks")
    min_delta: float = declare(1e-4, "least improvement that counts")
    lr_min: float = declare(0.0, "least learning rate")
    watched: Signal = declare(Signal.loss, "loss, or a score: dice_positive, dice or iou")
    relative: bool = declare(
        False, "min_delta is a share of the best value, as torch has it by default"
    )

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

    def cycle_ends(self, steps: Sequence[int]) -> list[int]:
        """The last epochs that lie wholly in a cycle, where cycles do not end with epochs."""
        done = list(accumulate(steps))
        length = done[-1] / self.cycles
        ends = [length * (cycle + 1) + 1e-6 for cycle in range(self.cycles)]
        epochs = {sum(count <= end for count in done) for end in ends}
        return [number - 1 for number in sorted(epochs) if number]


@dataclass
class Stopping:
    """An end before the last epoch."""

    patience: int | None = declare(
        None, "stop after so many epochs without a better handoff.score; null: never"
    )

    def __post_init__(self) -> None:
        valid = self.patience is None or self.patience >= 1
        require(valid, "stopping.patience", self.patience, "at least 1, or null")


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
class EpochsAveraging(Averaging):
    """Plain mean of the weights at the ends of stated epochs.

    The second of the challenge took those of epochs 34, 39 and 43 of 44, and re-estimated batch
    norm (github.com/yelanlan/Pneumothorax-Segmentation-2nd-place-solution, ``swa_models.py``).
    """

    name: str = declare("epochs", "name of the averaging")
    at: list[int] = declare(help="the epochs, counted from 0")
    update_bn: bool = declare(True, "re-estimate batch-norm statistics of the mean")

    def __post_init__(self) -> None:
        ascending = sorted(set(self.at)) == self.at and min(self.at, default=-1) >= 0
        require(ascending, "averaging.at", self.at, "epochs from 0, ascending, at least one")


@dataclass
class CyclesAveraging(Averaging):
    """Plain mean of the weights at the ends of the last cycles of the learning rate."""

    name: str = declare("cycles", "name of the averaging")
    cycles: int = declare(3, "how many of the last cycles of scheduler=cyclic or restarts")
    update_bn: bool = declare(True, "re-estimate batch-norm statistics of the mean")

    def __post_init__(self) -> None:
        require(self.cycles >= 1, "averaging.cycles", self.cycles, "at least 1")


@dataclass
class Ema(Averaging):
    """Exponential moving average of weights and batch-norm statistics, updated every step."""

    name: str = declare("ema", "name of the averaging")
    decay: float = declare(0.999, "weight of the past in each step")
    update_bn: bool = declare(False, "re-estimate batch-norm statistics of the average")

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, "averaging.decay", self.decay, BETWEEN_0_AND_1)


register_options("sampling", all=Sampling, share=FixedShare, linear=LinearShare, steps=StepShares)
register_options("optimizer", adam=Optimizer, adamw=AdamW)
register_options(
    "scheduler",
    constant=Scheduler,
    cosine=Cosine,
    plateau=Plateau,
    onecycle=OneCycle,
    cyclic=Cyclic,
    waves=Waves,
    restarts=Restarts,
)
register_options(
    "averaging",
    none=Averaging,
    paper=PaperAveraging,
    lightning=LightningAveraging,
    ema=Ema,
    epochs=EpochsAveraging,
    cycles=CyclesAveraging,
)
