"""In what finished runs differ from the paper's own protocol, in plain words.

A figure beside a published one invites comparison, so whatever differs stands below both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pneumo.data.settings import SplitKind
from pneumo.masks.settings import Removal
from pneumo.training.options import Averaging, LastEpochs, PaperAveraging, Stem
from pneumo.training.record import Record
from pneumo.training.settings import Config

PROTOCOL = (
    "python -m pneumo.train -m +experiment=exp1,exp2,exp3,exp4,exp5 data.root=… "
    "data.annotations=… data.round=1 data.round1_test=<stage_1_sample_submission.csv> "
    "split.group=image"
)

PROTOCOL_TAGS = ("data.round_1", "split.group_image")  # what of it stands in a run's name


@dataclass(frozen=True)
class Stage:
    """A stage of Table II; ``averaged`` epochs, none where nothing was averaged."""

    size: int
    batch: int
    epochs: int
    averaged: str

    def __str__(self) -> str:
        return f"{self.size}²: {self.batch} / {self.epochs}, averaged {self.averaged}"


@dataclass(frozen=True)
class Plan:
    """An experiment as the paper declares it."""

    stages: tuple[Stage, ...]
    threshold: float
    validation: float = 0.1
    stem: Stem = Stem.repeat


_SECOND = Stage(256, 40, 35, "5")
# Table II and section "Training"
PAPER = {
    "exp1": Plan((Stage(256, 40, 50, "no"),), 0.5, 0.2, Stem.conv),
    "exp2": Plan((_SECOND,), 0.55),
    "exp3": Plan((_SECOND, Stage(512, 14, 10, "3")), 0.55),
    "exp4": Plan((Stage(256, 40, 60, "5"), Stage(512, 14, 29, "3")), 0.75),
    "exp5": Plan((Stage(256, 64, 100, "5"), Stage(512, 16, 70, "3")), 0.75),
}
REMOVAL = (2048, 1024, Removal.total)  # pixels, the side they are counted at, of the whole mask


def note(chains: Sequence[Sequence[Record]]) -> str:
    """What all runs, each with its ancestors first, differ in; empty if in nothing."""
    of_difference: dict[str, list[str]] = {}
    names = list(dict.fromkeys(chain[-1].config.experiment for chain in chains))
    for chain in chains:
        name = chain[-1].config.experiment
        for difference in differences(chain):
            experiments = of_difference.setdefault(difference, [])
            if name not in experiments:
                experiments.append(name)
    if not of_difference:
        return ""
    told = []
    for difference, experiments in of_difference.items():
        of = "" if experiments == names else f" ({', '.join(experiments)})"
        told.append(difference + of)
    return (
        f"Not comparable with the published figures: {'; '.join(told)}. "
        f"The paper's own protocol: {PROTOCOL}"
    )


def differences(chain: Sequence[Record]) -> list[str]:
    """In what a run, with its ancestors first, differs from the paper's protocol."""
    about = chain[-1]
    config = about.config
    plan = PAPER.get(config.experiment)
    if plan is None:
        return ["no experiment of the paper"]
    if config.data.name != "siim":
        return [f"data {config.data.name}, not the challenge's", *_scaled(config)]
    found = _scaled(config)
    if getattr(config.data, "round", None) != 1:
        found.append("round 2 of the data, not 1")
    if about.data.by_patient:
        found.append("split by patient, not by image")
    held = config.split.validation
    if config.split.kind is SplitKind.kfold:
        found.append(f"{config.split.folds} folds, not one division")
    elif held != plan.validation:
        found.append(f"{held:.0%} of the films held out, not {plan.validation:.0%}")
    model = config.model
    network = f"{model.architecture.name} {model.encoder} from {model.encoder_weights}"
    if network != "unet resnet34 from imagenet":
        found.append(f"network {network}, not unet resnet34 from imagenet")
    if model.stem is not plan.stem:
        found.append(f"{model.stem.name} stem, not {plan.stem.name}")
    stages = tuple(_stage(one.config) for one in chain)
    if stages != plan.stages:
        found.append(f"stages {_text(stages)}, not {_text(plan.stages)}")
    return [*found, *_thresholds(config, plan), *_typed(config)]


def _scaled(config: Config) -> list[str]:
    return [] if config.scale.name == "full" else [f"scale={config.scale.name}"]


def _thresholds(config: Config, plan: Plan) -> list[str]:
    rule = config.postprocess
    found = []
    if rule.binarization_threshold != plan.threshold:
        found.append(f"B-TH {rule.binarization_threshold:g}, not {plan.threshold:g}")
    removal = (rule.removal_threshold, rule.removal_size, rule.removal)
    refined = rule.top_threshold is not None or rule.contour_area or rule.fill_holes
    if removal != REMOVAL or refined:
        found.append("another removal rule than 2,048 px of the whole mask at 1024²")
    return found


def _typed(config: Config) -> list[str]:
    """What a run's name says was typed, beyond the protocol's own settings."""
    words = [*config.tag.split("-"), *config.variant.split("-")]
    typed = [word for word in words if word and word not in PROTOCOL_TAGS]
    return [f"typed settings ({', '.join(typed)})"] if typed else []


def _stage(config: Config) -> Stage:
    return Stage(
        config.resolution.size, config.batch_size, config.epochs, averaged(config.averaging)
    )


def _text(stages: Sequence[Stage]) -> str:
    return ", then ".join(map(str, stages))


def averaged(averaging: Averaging) -> str:
    """How many epochs were averaged, and the way's name where it is not the paper's."""
    if isinstance(averaging, PaperAveraging):
        return str(averaging.epochs)
    if isinstance(averaging, LastEpochs):
        return f"{averaging.epochs} ({averaging.name})"
    return "no" if averaging.name == "none" else averaging.name
