"""The vocabulary of a run: every setting with its type, default and check. Imports no torch, so that help answers at once.

YAML files in ``conf/`` choose values; these dataclasses own names and types, so that a typo fails while the configuration
is composed. ``load`` turns a composed configuration into a checked ``Config``; no ``DictConfig`` travels further.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pneumo.data.settings import OnError
from pneumo.masks.settings import Rule
from pneumo.settings import Machine, register, require


@dataclass
class Films:
    """Whose probability maps are asked for: of which runs, on which films."""

    run: Any = None  # a run's folder, a pattern of such folders, or a list: [runs/…/fold0-seed0,runs/…/fold1-seed0]
    on: str = "val"  # val (the run's own validation part), test (the round-1 test set; new phantoms), or a folder of films
    ids: str | None = (
        None  # on=test: the challenge's stage_1_sample_submission.csv; by default the run's data.round1_test
    )
    root: str | None = None  # on=val, test: where the run's films lie now, if not where they lay
    annotations: str | None = (
        None  # table of run lengths: on=<folder> its own, if there is one; on=val, test instead of the run's
    )
    patients: str | None = None  # CSV of image id and patient, as annotations
    on_error: OnError | None = (
        None  # what to do with a film that cannot be read; null: stop, or as the run's data.on_error
    )
    runs_dir: str = "runs"  # where means of several runs, and sweeps, are kept
    machine: Machine = field(default_factory=Machine)


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
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(self.max_megapixels >= 1, "max_megapixels", self.max_megapixels, "at least 1")
        require(self.max_megabytes >= 1, "max_megabytes", self.max_megabytes, "at least 1")
        require(self.engine in ENGINES, "engine", self.engine, f"one of {', '.join(ENGINES)}")


ENGINES = ("auto", "torch", "onnx")


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
        require(0 < self.port < 65536, "port", self.port, "1 to 65535")
        require(self.engine in ENGINES, "engine", self.engine, f"one of {', '.join(ENGINES)}")
        for key in ("keep", "max_megapixels", "max_megabytes"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


register("predict_schema", Predict)
register("view_schema", View)
