"""The vocabulary of a run: every setting with its type, default and check. Imports no torch, so that help answers at once.

YAML files in ``conf/`` choose values; these dataclasses own names and types, so that a typo fails while the configuration
is composed. ``load`` turns a composed configuration into a checked ``Config``; no ``DictConfig`` travels further.
"""

from dataclasses import dataclass
from enum import Enum

from omegaconf import MISSING

from pneumo.errors import PneumoError
from pneumo.settings import register, register_options, require


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
    round: int = (
        2  # 1 leaves out the images listed in round1_test, as the challenge's first round did
    )
    round1_test: str | None = None  # the challenge's stage_1_sample_submission.csv
    on_error: OnError = OnError.stop
    cache: str = "${runs_dir}/cache"
    max_megapixels: int = 100  # a film that claims more is refused before it is decoded

    def __post_init__(self) -> None:
        require(self.round in (1, 2), "data.round", self.round, "1 or 2")
        require(self.max_megapixels > 0, "data.max_megapixels", self.max_megapixels, "positive")
        if self.round == 1 and not self.round1_test:
            raise PneumoError(
                "data.round=1 needs data.round1_test=<stage_1_sample_submission.csv>, the ids to leave out"
            )


@dataclass
class PhantomData(Data):
    """Synthetic films, drawn on first use into ``root`` (below ``runs_dir`` unless given)."""

    images: int = 2000
    positive_rate: float = (
        0.22  # share of films with pneumothorax; the challenge's training set has .2215
    )
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.images >= 4, "data.images", self.images, "at least 4")
        require(
            0 < self.positive_rate < 1,
            "data.positive_rate",
            self.positive_rate,
            "between 0 and 1, both exclusive",
        )
        require(self.seed >= 0, "data.seed", self.seed, "0 or more")


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
        require(
            0 < self.validation < 1,
            "split.validation",
            self.validation,
            "between 0 and 1, both exclusive",
        )
        require(self.folds >= 2, "split.folds", self.folds, "at least 2")


@dataclass
class Check:
    """What ``python -m pneumo.siim`` takes: a data set, and how much to say of it."""

    runs_dir: str = "runs"
    data: Data = MISSING
    decode: bool = True  # decode every film on disk, not only look for it
    verbose: bool = False  # list every case left aside


register("check_schema", Check)
register_options("data", siim=Data, phantom=PhantomData)
