"""One fit: its parts, the scale that shrinks it, the hand-off from its parent; systems of fits."""

import dataclasses
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from pneumo import runs
from pneumo.data.settings import Data, PhantomData, Split, SplitKind
from pneumo.errors import PneumoError, brief
from pneumo.masks.scores import SCORES
from pneumo.masks.settings import Postprocess, Rule
from pneumo.settings import (
    BETWEEN_0_AND_1,
    CONF,
    OPTIONS,
    Log,
    Machine,
    check_plain,
    checked,
    declare,
    files_of,
    register,
    require,
    settings_from,
)
from pneumo.training.options import (
    Augmentation,
    Averaging,
    CyclesAveraging,
    Cyclic,
    EpochsAveraging,
    LastEpochs,
    Loss,
    Model,
    Optimizer,
    Resolution,
    Restarts,
    Sampling,
    Scheduler,
    StepShares,
    Stopping,
    Waves,
)


@dataclass
class Scale:
    """Shrinks any experiment, see ``Config.scaled``."""

    name: str = declare("full", "name of the scale, part of a run's folder")
    images: int | None = declare(None, "at most so many films")
    positive_rate: float | None = declare(
        None, "share of positives among them (and of phantoms); None keeps the data's own"
    )
    folds: int | None = declare(None, "at most so many folds of a system", incidental=True)
    size: float = declare(1.0, "factor on the side of the films")
    side: int | None = declare(
        None, "side of the films at most, pixels; see resolution.size", incidental=True
    )
    epochs: float = declare(1.0, "factor on the epochs")
    least_epochs: int = declare(5, "epochs that remain at least", incidental=True)
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
        require(self.least_epochs >= 1, "scale.least_epochs", self.least_epochs, "at least 1")
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
    keep: int = declare(
        0, "so many of the best epochs, by handoff.score, stay in best/1.safetensors, best/2…"
    )
    inherit: bool = declare(
        False, "the weights a fit starts from compete for source=best, as if they were an epoch"
    )

    def __post_init__(self) -> None:
        require(self.keep >= 0, "handoff.keep", self.keep, "0 or more")
        able = not self.inherit or self.source is Source.best
        require(able, "handoff.inherit", self.inherit, "false without handoff.source=best")


class Blend(Enum):
    """How the maps of several runs become one result."""

    mean = "mean"  # runs on the same films: the mean of their maps
    folds = "folds"  # the folds of one cross-validation: each film from the fold that held it out
    mean_folds = "mean_folds"  # first the mean of the networks of each fold, then join the folds


class Checkpoints(Enum):
    """Which weights of a run make its maps."""

    final = "final"  # those it hands on
    best = "best"  # its best epochs (handoff.keep): the mean of their maps


class Presence(Enum):
    """How the presence scores of several networks become a film's one."""

    mean = "mean"  # of the networks that tell one
    stack = "stack"  # a classifier of scores and map statistics, fitted on other films


@dataclass
class System:
    """A named combination of finished experiments, judged and handed on like a single one."""

    name: str = declare(help="name of the system")
    experiments: list[str] = declare(help="the experiments it is made of")
    folds: list[int] = declare(factory=lambda: [0], help="the folds of each of them")
    blend: Blend | None = declare(None, "mean, folds or mean_folds; not needed for a single run")
    weights: list[float] = declare(
        factory=list, help="of each experiment's maps in their mean; none: equal ones"
    )
    checkpoints: Checkpoints = declare(
        Checkpoints.final,
        "weights of each fit: final, or best (the mean of the maps of its best epochs)",
    )
    presence_from: list[str] = declare(
        factory=list,
        help="experiments that tell whether a film shows pneumothorax at all; none: those whose "
        "maps are averaged",
    )
    presence: Presence = declare(
        Presence.mean,
        "how their presence scores become one: mean, or stack (a classifier fitted on other films)",
    )
    postprocess: Rule = declare(factory=Rule, help="thresholds instead of the experiments' own")
    published: str = declare("", "what its authors report, and of which films")
    overrides: list[str] = declare(
        factory=list, help="settings of all its fits, as typed: split=kfold5"
    )

    def __post_init__(self) -> None:
        require(bool(self.experiments), "system.experiments", self.experiments, "at least one")
        require(bool(self.folds), "system.folds", self.folds, "at least one")
        rule = f"as many positive numbers as system.experiments={self.experiments}, or none"
        fits = len(self.weights) in (0, len(self.experiments))
        require(fits and all(w > 0 for w in self.weights), "system.weights", self.weights, rule)
        several = len(self.experiments) * len(self.folds) > 1
        choices = "mean, folds or mean_folds, since the system has several runs"
        require(not several or self.blend is not None, "system.blend", self.blend, choices)

    @property
    def members(self) -> list[str]:
        """All its experiments, those that only tell presence last."""
        return list(dict.fromkeys([*self.experiments, *self.presence_from]))

    def describe(self, folds: Sequence[int]) -> str:
        """Its parts in a few lines, as they are on these folds."""
        weights = self.weights or [1.0] * len(self.experiments)
        names = [
            name if weight == 1 else f"{weight:g} {name}"
            for name, weight in zip(self.experiments, weights, strict=True)
        ]
        how = self.blend.name if self.blend else "alone"
        epochs = ", the best epochs of each" if self.checkpoints is Checkpoints.best else ""
        lines = [f"system {self.name}: {how} of {', '.join(names)}{epochs}"]
        if self.presence_from:
            lines.append(f"  presence: {self.presence.name} of {', '.join(self.presence_from)}")
        lines.append(f"  folds: {', '.join(map(str, folds))}")
        return "\n".join(lines)


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
    stopping: Stopping = declare(factory=Stopping, help="an end before the last epoch")
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
        devices = self.machine.processes
        shares = self.batch_size >= 2 * devices and self.batch_size % devices == 0
        rule = (
            f"a multiple of {self.machine.shared}, at least {2 * devices} "
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
        needing = {f"loss.{key}": getattr(self.loss, key) for key in ("presence", "presence_focal")}
        needing["postprocess.presence_threshold"] = self.postprocess.presence_threshold
        for key, value in needing.items():
            if value and not self.model.presence:
                raise PneumoError(f"{key} needs a network with that head: model.presence=true")
        side, window = self.resolution.size, self.augmentation.window
        rule = f"at most resolution.size={side}, or 0 for whole films"
        require(window <= side, "augmentation.window", window, rule)
        averaging = self.averaging
        if isinstance(averaging, LastEpochs) and averaging.epochs > self.epochs:
            raise PneumoError(
                f"averaging.epochs={averaging.epochs}: must not exceed epochs={self.epochs} "
                "(set averaging.epochs, or averaging=none)"
            )
        if self.stopping.patience is not None and averaging.name not in ("none", "ema"):
            raise PneumoError(
                f"stopping.patience={self.stopping.patience}: averaging={averaging.name} must know "
                "its epochs beforehand; use averaging=ema or none, or leave stopping.patience out"
            )
        frozen = self.optimizer.freeze_epochs
        rule = f"below epochs={self.epochs} (optimizer.freeze_encoder=true freezes it for good)"
        require(frozen < self.epochs, "optimizer.freeze_epochs", frozen, rule)
        rule = f"0 with {self.machine.shared}: what is frozen at first would not be synchronized"
        require(not frozen or devices == 1, "optimizer.freeze_epochs", frozen, rule)
        if isinstance(averaging, EpochsAveraging):
            rule = f"below epochs={self.epochs} (set averaging.at, or averaging=none)"
            require(averaging.at[-1] < self.epochs, "averaging.at", averaging.at, rule)
        if isinstance(averaging, CyclesAveraging):
            ends = self.scheduler.cycle_ends([1] * self.epochs)
            name = self.scheduler.name
            rule = f"at most {len(ends)}, what scheduler={name} completes in epochs={self.epochs}"
            cycles = isinstance(self.scheduler, Cyclic | Restarts)
            require(cycles, "averaging", "cycles", f"with cyclic or restarts, not scheduler={name}")
            require(averaging.cycles <= len(ends), "averaging.cycles", averaging.cycles, rule)
        if isinstance(self.scheduler, Restarts) and self.scheduler.tail_epochs:
            tail = self.scheduler.tail_epochs
            rule = f"below epochs={self.epochs}, or the last rate would never hold"
            require(tail[-1] < self.epochs, "scheduler.tail_epochs", tail, rule)
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
        the epochs; two remain, if the fit has more than two. So does whatever else counts or names
        epochs: at least one remains of each, in the order that they had, and of cycles to be
        averaged as many as the shorter fit completes.
        """
        scale = self.scale

        def shrink(key: str, value: int, factor: float, least: int) -> int:
            if key in exact or factor >= 1:
                return value
            return max(least, round(value * factor))

        epochs = shrink("epochs", self.epochs, scale.epochs, min(scale.least_epochs, self.epochs))
        side = 32 * shrink("resolution.size", self.resolution.size // 32, scale.size, 1)
        if scale.side and "resolution.size" not in exact:
            side = min(side, scale.side)
        augmentation = self.augmentation
        if augmentation.window and "augmentation.window" not in exact:
            shrunk = round(augmentation.window // 32 * side / self.resolution.size)
            augmentation = dataclasses.replace(augmentation, window=32 * max(1, shrunk))
        scheduler, averaging, stopping, optimizer = self._shortened(epochs, exact)
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
            augmentation=augmentation,
            averaging=averaging,
            model=model,
            scale=scale,
            scheduler=scheduler,
            stopping=stopping,
            optimizer=optimizer,
        )

    def _shortened(
        self, epochs: int, exact: Collection[str]
    ) -> tuple[Scheduler, Averaging, Stopping, Optimizer]:
        """The parts that count or name epochs, as a fit of so many epochs has them."""
        before, scheduler, averaging = self.epochs, self.scheduler, self.averaging

        def fewer(key: str, count: int, most: int = epochs) -> int:
            if key in exact or epochs == before:
                return count
            return min(most, max(1, round(count * epochs / before)))

        if isinstance(scheduler, Waves):
            half = fewer("scheduler.half_period", scheduler.half_period)
            scheduler = dataclasses.replace(scheduler, half_period=half)
        if isinstance(scheduler, Restarts):
            first = fewer("scheduler.first", scheduler.first)
            tail = scheduler.tail_epochs
            if "scheduler.tail_epochs" not in exact:
                tail = earlier(tail, before, epochs)
            rates = scheduler.tail_rates[len(scheduler.tail_rates) - len(tail) :]
            scheduler = dataclasses.replace(
                scheduler, first=first, tail_epochs=tail, tail_rates=rates
            )
        if isinstance(averaging, EpochsAveraging) and "averaging.at" not in exact:
            ends = [epoch + 1 for epoch in averaging.at]
            moved = earlier(ends, before, epochs, latest=epochs)
            averaging = dataclasses.replace(averaging, at=[end - 1 for end in moved])
        if isinstance(averaging, CyclesAveraging) and "averaging.cycles" not in exact:
            whole = len(scheduler.cycle_ends([1] * epochs))
            cycles = max(1, min(averaging.cycles, whole))
            averaging = dataclasses.replace(averaging, cycles=cycles)
        stopping, optimizer = self.stopping, self.optimizer
        if stopping.patience is not None:
            patience = fewer("stopping.patience", stopping.patience)
            stopping = dataclasses.replace(stopping, patience=patience)
        if optimizer.freeze_epochs:
            key = "optimizer.freeze_epochs"
            frozen = fewer(key, optimizer.freeze_epochs, most=epochs - 1)
            optimizer = dataclasses.replace(optimizer, freeze_epochs=frozen)
        return scheduler, averaging, stopping, optimizer

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as recorded with a run; the system that asked for it is not part of it."""
        alone = dataclasses.replace(self, system=None)
        values = OmegaConf.to_container(OmegaConf.structured(alone), enum_to_str=True)
        return {
            key: value for key, value in cast(dict[str, Any], values).items() if key != "system"
        }


def earlier(places: list[int], old: int, new: int, latest: int | None = None) -> list[int]:
    """Ascending places in ``old`` epochs → in ``new`` epochs, none equal and none the first.

    The last of them is at most ``latest``, by default the last epoch counted from 0. Where that
    leaves room for fewer, the first ones go.
    """
    latest = new - 1 if latest is None else latest
    if old == new:
        return places
    places = places[max(0, len(places) - latest) :]
    moved: list[int] = []
    for place in places:
        most = latest - (len(places) - len(moved) - 1)
        least = moved[-1] + 1 if moved else 1
        moved.append(max(least, min(round(place * new / old), most)))
    return moved


@dataclass
class Listing:
    """What ``python -m pneumo.list`` takes."""

    runs_dir: str = declare("runs", "folder of all runs", place=True)
    prune: bool = declare(False, "remove the checkpoints of finished runs; weights stay")


@dataclass
class Search:
    """What ``python -m pneumo.search`` tries."""

    name: str = declare("", "name of the search, beside that of the experiment")
    space: dict[str, Any] = declare(
        factory=dict,
        help="what is tried of each setting: [low,high,log], linear or int for a range, else a "
        "list of choices: {lr:[1e-4,1e-2,log],averaging:[paper,none]}",
    )
    trials: int = declare(20, "how many runs in all, those that are finished among them")
    score: str = declare("dice_positive", "validation score that is to become as high as can be")
    seed: int = declare(0, "of what is proposed")

    def __post_init__(self) -> None:
        plain = re.fullmatch(r"[\w.+-]*", self.name) is not None
        require(plain, "search.name", self.name, "letters, digits and . _ + - only")
        require(self.trials >= 1, "search.trials", self.trials, "at least 1")
        require(self.seed >= 0, "search.seed", self.seed, "0 or more")
        known = [one.key for one in SCORES if one.varies and not one.needs and one.higher_is_better]
        require(self.score in known, "search.score", self.score, f"one of {', '.join(known)}")


@dataclass
class SearchFits(Config):
    """What ``python -m pneumo.search`` takes: a search, and settings of all its trials."""

    search: Search = declare(factory=Search, help="what is tried")


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
    known = files_of("system")
    if name not in known:
        raise PneumoError(f"system={name}: not known; one of {', '.join(known)}")
    path = known[name]
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
        return settings_from(System, cast(dict[str, Any], values)["system"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PneumoError(f"{path}: not a system ({brief(error)})") from None


def recorded_config(values: dict[str, Any]) -> Config:
    """The ``Config`` of a run from recorded values; keys that are not there take their defaults.

    Raises ValueError for options or keys that this version does not know.
    """
    check_plain(values)
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
register("search_schema", SearchFits)
OmegaConf.register_new_resolver("handoff", handoff, replace=True)
