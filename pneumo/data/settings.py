"""Data sets, one dataclass a format, and how films are divided."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore

from pneumo.errors import PneumoError
from pneumo.settings import (
    BETWEEN_0_AND_1,
    NAMED,
    OPTIONS,
    declare,
    register,
    register_options,
    require,
    settings_from,
)


class OnError(Enum):
    """What to do with a film or row that cannot be read."""

    stop = "stop"
    skip = "skip"


class MaskSize(Enum):
    """The size of the image that run lengths count the pixels of."""

    challenge = "challenge"  # pictures 1024², whatever their own size; DICOM films their own
    film = "film"  # every film its own


class Difficulty(Enum):
    """How hard drawn films are to read."""

    easy = "easy"  # lesions twice as dark against their ring as on the challenge's films
    hard = "hard"  # lesions as faint as on the challenge's films, among things that look like them


@dataclass
class Data:
    """Films on disk. Every format adds what it needs."""

    needed: ClassVar[Sequence[str]] = ()  # places without which there is nothing to read

    name: str = declare(help="name of the data set, part of a run's folder", named=True)
    format: str = declare("", "which of the formats this is")
    root: str | None = declare(None, "folder of the films, nested or flat", place=True)
    patients: str | None = declare(None, "CSV of image id and patient, e.g. nih_id.csv", place=True)
    on_error: OnError = declare(OnError.stop, "stop at a film that cannot be used, or skip it")
    cache: str = declare(
        "${runs_dir}/cache", "folder of decoded and resized films", place=True, incidental=True
    )
    max_megapixels: int = declare(
        100, "a film that claims more is refused before it is decoded", named=True
    )

    def __post_init__(self) -> None:
        own = type(self).format
        require(self.format == own, "data.format", self.format, f"{own} (choose with data=)")
        require(self.max_megapixels > 0, "data.max_megapixels", self.max_megapixels, "positive")

    @property
    def formats(self) -> list[str]:
        """The formats of its films."""
        return [self.format]

    def check_places(self) -> None:
        """Raise PneumoError for a folder or file that is not named, or is not there."""
        places = [one for one in dataclasses.fields(self) if one.metadata["place"]]
        for one in places:
            if one.name in self.needed and getattr(self, one.name) is None:
                key = f"data.{one.name}"
                raise PneumoError(f"{key} is not set: give the {one.metadata['help']}, {key}=…")
        for one in places:
            value = getattr(self, one.name)
            if one.name != "cache" and value is not None and not Path(value).exists():
                raise PneumoError(f"data.{one.name}={value}: no such file or folder")


@dataclass
class TableData(Data):
    """A folder of films and a file of what is known of them."""

    needed = ("root", "annotations")

    annotations: str | None = declare(None, "file of what is known of the films", place=True)
    on_missing: OnError = declare(
        OnError.stop,
        "stop if more than a twentieth of the table's images are not on disk, or skip them",
        incidental=True,
    )


@dataclass
class SiimData(TableData):
    """The challenge's layout: a folder of films and a table of run lengths."""

    format: str = declare("siim", "which of the formats this is")
    annotations: str | None = declare(
        None, "table (CSV or .csv.gz) of image id and run lengths", place=True
    )
    mask_size: MaskSize = declare(
        MaskSize.challenge,
        "size that run lengths refer to: challenge (pictures are mirrors of the challenge's films, "
        "so 1024² at any size of theirs; DICOM films their own size) or film (all their own size)",
    )
    round: int = declare(
        2, "1 leaves out the images of round1_test, as the challenge's round 1 did"
    )
    round1_test: str | None = declare(
        None, "the challenge's stage_1_sample_submission.csv", place=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.round in (1, 2), "data.round", self.round, "1 or 2")
        if self.round == 1 and not self.round1_test:
            raise PneumoError(
                "data.round=1 needs data.round1_test=<stage_1_sample_submission.csv>, "
                "the ids to leave out"
            )


@dataclass
class PhantomData(Data):
    """Synthetic films, drawn on first use into ``root`` (below ``runs_dir`` unless given)."""

    format: str = declare("phantom", "which of the formats this is")
    images: int = declare(2000, "how many films are drawn")
    positive_rate: float = declare(
        0.22, "share of films with pneumothorax; the challenge's training set has .2215"
    )
    seed: int = declare(0, "other seeds draw other films")
    difficulty: Difficulty = declare(
        Difficulty.easy,
        "easy, or hard: lesions as faint as real ones, and skin folds, clothing and bullae",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.images >= 4, "data.images", self.images, "at least 4")
        require(
            0 < self.positive_rate < 1, "data.positive_rate", self.positive_rate, BETWEEN_0_AND_1
        )
        require(self.seed >= 0, "data.seed", self.seed, "0 or more")

    def check_places(self) -> None:
        """Nothing need be there: films are drawn into ``root``."""


@dataclass
class FolderData(Data):
    """A folder of films beside a folder of mask pictures with the same names."""

    needed = ("root", "masks")

    format: str = declare("folder", "which of the formats this is")
    masks: str | None = declare(
        None, "folder of mask pictures; a film's has its name, 0 is background", place=True
    )


@dataclass
class CandidData(TableData):
    """CANDID-PTX: films, their table of run lengths and reports, and one of chest tubes."""

    format: str = declare("candid", "which of the formats this is")
    annotations: str | None = declare(None, "Pneumothorax_reports.csv", place=True)
    tubes: str | None = declare(None, "chest_tube.csv, the films with a chest tube", place=True)


@dataclass
class ChexlocalizeData(TableData):
    """CheXlocalize: films of CheXpert and a JSON file of run lengths or polygons."""

    format: str = declare("chexlocalize", "which of the formats this is")
    annotations: str | None = declare(
        None,
        "gt_segmentations_….json (run lengths) or gt_annotations_….json (polygons)",
        place=True,
    )


@dataclass
class CocoData(TableData):
    """A folder of films and a JSON file of instances in COCO's layout."""

    format: str = declare("coco", "which of the formats this is")
    annotations: str | None = declare(
        None, "JSON file of images, categories and annotations", place=True
    )
    category: str = declare("pneumothorax", "name of the category of pneumothorax, in any case")


class Agreement(Enum):
    """How several readers of one film become one."""

    any = "any"  # positive if one of them says so
    majority = "majority"  # what more than half of them say; half and half is unknown
    all = "all"  # positive if all of them say so


@dataclass
class BoxesData(TableData):
    """A folder of films and boxes around findings: of VinDr-CXR, NIH or PadChest-GR."""

    format: str = declare("boxes", "which of the formats this is")
    annotations: str | None = declare(
        None,
        "annotations_train.csv (VinDr-CXR), BBox_List_2017.csv (NIH) or grounded_reports_*.json "
        "(PadChest-GR)",
        place=True,
    )
    readers: Agreement = declare(
        Agreement.majority, "how several readers of a film become one: any, majority or all"
    )
    labels: str | None = declare(
        None, "table of labels of whole films, for sets that list only positive ones", place=True
    )
    column: str = declare("Pneumothorax", "the column of that table")


@dataclass
class LabelsData(TableData):
    """A folder of films and a table of labels of whole films."""

    format: str = declare("labels", "which of the formats this is")
    annotations: str | None = declare(None, "table of image id and labels", place=True)
    column: str = declare("Pneumothorax", "the column of the label")
    readers: Agreement = declare(
        Agreement.majority, "how several rows of a film become one: any, majority or all"
    )


@dataclass
class SeveralData(Data):
    """Several data sets in one training, each by its own settings."""

    format: str = declare("several", "which of the formats this is")
    sets: dict[str, Any] = declare(
        factory=dict,
        help="each set's settings by its name: +data.sets.<name>={format:candid,root:…}",
        place=True,
    )
    shares: dict[str, float] = declare(
        factory=dict,
        help="of each set in an epoch, +data.shares.<name>=0.5; none: as many films as there are",
    )
    leave_out: str | None = declare(
        None, "a set that is not trained on, but is the test set (on=test)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        names = list(self.sets)
        if self.leave_out is not None:
            require(self.leave_out in names, "data.leave_out", self.leave_out, _one_of(names))
            require(len(names) > 1, "data.leave_out", self.leave_out, "not the only set")
        trained = sorted(name for name in names if name != self.leave_out)
        if self.shares:
            told = {name: self.shares[name] for name in self.shares if name != self.leave_out}
            all_told = sorted(told) == trained and all(share > 0 for share in told.values())
            rule = f"a share above 0 for each of {', '.join(trained)}"
            require(all_told, "data.shares", dict(self.shares), rule)

    @property
    def each(self) -> dict[str, Data]:
        """The settings of every set by its name. Raises PneumoError."""
        return {name: self._set(name, values) for name, values in self.sets.items()}

    @property
    def formats(self) -> list[str]:
        """The formats of the sets that are trained on."""
        return [one.format for name, one in self.each.items() if name != self.leave_out]

    def scaled(self, scale: Callable[[PhantomData], PhantomData]) -> "SeveralData":
        """The same with the phantoms that a scale asks for."""
        smaller = {}
        for name, one in self.each.items():
            values = dict(self.sets[name])
            if isinstance(one, PhantomData):
                few = scale(one)
                values |= {"images": few.images, "positive_rate": few.positive_rate}
            smaller[name] = values
        return dataclasses.replace(self, sets=smaller)

    def _set(self, name: str, values: Any) -> Data:
        known = {key: node for key, node in OPTIONS["data"].items() if key != "several"}
        if not isinstance(values, Mapping) or values.get("format") not in known:
            raise PneumoError(
                f"data.sets.{name}: needs its format, {_one_of(list(known))}: "
                f"data.sets.{name}.format=…"
            )
        if "cache" in values or "max_megapixels" in values:
            raise PneumoError(
                f"data.sets.{name}: cache and max_megapixels are said once for all sets"
            )
        shared = {"name": name, "cache": self.cache, "max_megapixels": self.max_megapixels}
        try:
            return settings_from(known[values["format"]], {**shared, **values})
        except ValueError as error:
            raise PneumoError(f"data.sets.{name}: {error}") from None

    def check_places(self) -> None:
        """Raise PneumoError for a set without a place, or whose place is not there."""
        if not self.sets:
            raise PneumoError(
                "data.sets is not set: give the settings of each set by a name of yours, "
                "+data.sets.<name>={format:candid,root:…,annotations:…}"
            )
        for name, one in self.each.items():
            try:
                one.check_places()
            except PneumoError as error:
                raise PneumoError(f"data.sets.{name}: {error}") from None


def _one_of(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"


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

    kind: SplitKind = declare(SplitKind.holdout, "holdout or kfold")
    validation: float = declare(0.1, "share of a hold-out")
    folds: int = declare(5, "parts of a k-fold split")
    group: Grouping = declare(
        Grouping.auto, "auto (patients where they are known, else images), patient or image"
    )
    seed: int = declare(0, "other seeds put other films into the parts")

    def __post_init__(self) -> None:
        require(
            0 < self.validation < 1,
            "split.validation",
            self.validation,
            BETWEEN_0_AND_1,
        )
        require(self.folds >= 2, "split.folds", self.folds, "at least 2")
        require(self.seed >= 0, "split.seed", self.seed, "0 or more")


@dataclass
class Check:
    """What ``python -m pneumo.siim`` takes: a data set, and how much to say of it."""

    runs_dir: str = declare("runs", "folder of all runs", place=True)
    data: Data = declare(help="the data set to check")
    decode: bool = declare(True, "decode every film on disk, not only look for it")
    verbose: bool = declare(False, "list every case left aside")


class Layout(Enum):
    """Data sets in whose layout phantoms can be written."""

    candid = "candid"
    chexlocalize = "chexlocalize"
    coco = "coco"
    vindr = "vindr"
    nih = "nih"
    padchest = "padchest"
    labels = "labels"
    ptx498 = "ptx498"


@dataclass
class Drawing:
    """What ``python -m pneumo.phantoms`` takes."""

    runs_dir: str = declare("runs", "folder of all runs", place=True)
    layout: Layout | None = declare(
        None, f"the data set whose layout they have: {', '.join(one.name for one in Layout)}"
    )
    out: str | None = declare(None, "folder to write, which must not be there yet", place=True)
    images: int = declare(60, "how many films are drawn")
    positive_rate: float = declare(0.34, "share of films with pneumothorax")
    seed: int = declare(0, "other seeds draw other films")
    difficulty: Difficulty = declare(
        Difficulty.easy, "easy or hard, as data.difficulty of phantoms"
    )

    def __post_init__(self) -> None:
        for key, value in (("layout", self.layout), ("out", self.out)):
            if value is None:
                choices = ", ".join(one.name for one in Layout)
                what = f"one of {choices}" if key == "layout" else "a folder to write"
                raise PneumoError(f"{key} is not set: give {what}, {key}=…")

    @property
    def phantoms(self) -> PhantomData:
        """The films to draw. Raises PneumoError, in the words of ``data=phantom``."""
        return PhantomData(
            name="phantom",
            images=self.images,
            positive_rate=self.positive_rate,
            seed=self.seed,
            difficulty=self.difficulty,
        )


register("check_schema", Check)
register("phantoms_schema", Drawing)
register_options(
    "data",
    siim=SiimData,
    phantom=PhantomData,
    folder=FolderData,
    candid=CandidData,
    chexlocalize=ChexlocalizeData,
    coco=CocoData,
    boxes=BoxesData,
    labels=LabelsData,
    several=SeveralData,
)
for format_name, node in OPTIONS["data"].items():  # for commands that see no conf/data
    ConfigStore.instance().store(group=NAMED, name=format_name, node=node(name=format_name))
