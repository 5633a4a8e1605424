"""What predicting, bundles and the page take."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from pneumo.data.settings import Data, MaskSize, OnError
from pneumo.errors import PneumoError
from pneumo.inference.shards import Shard
from pneumo.masks.settings import Rule
from pneumo.settings import Machine, declare, register, require
from pneumo.training.settings import Blend, Checkpoints

ELSEWHERE = "<data>"  # what ``on`` is where ``data`` names the films


class Seen(Enum):
    """What to do with films that were in training, or whose patients were."""

    keep = "keep"  # judge them, and say how many they are
    exclude = "exclude"


@dataclass
class Films:
    """Whose probability maps are asked for: of which runs, on which films."""

    run: Any = declare(
        None,
        "a run's folder, a pattern of such folders, or a list: "
        "[runs/…/fold0-seed0,runs/…/fold1-seed0]",
        place=True,
    )
    blend: Blend | None = declare(
        None, "several runs: mean (same films), folds (join them) or mean_folds (mean, then join)"
    )
    checkpoints: Checkpoints | None = declare(
        None,
        "weights of each run: final (those it hands on), or best (the mean of the maps of its best "
        "epochs, see handoff.keep); null: final, or as the system says",
    )
    system: str | None = declare(None, "a system instead of runs: +system=<name>")
    setting: str | None = declare(
        None, "with a system: which of runs/<experiment>/<setting>, if there are several"
    )
    on: str = declare(
        "val",
        "val (the run's own validation part), test (the round-1 test set; new phantoms), or a "
        "folder of films",
        place=True,
    )
    data: Data | None = declare(
        None, "another data set instead of on: data=candid data.root=… data.annotations=…"
    )
    seen: Seen = declare(
        Seen.keep,
        "films of another data set that were in training, or whose patients were: keep or exclude",
    )
    size: int | None = declare(
        None, "side at which the network sees the films; null: as it was trained"
    )
    ids: str | None = declare(
        None,
        "on=test: the challenge's stage_1_sample_submission.csv; by default the run's "
        "data.round1_test",
        place=True,
    )
    root: str | None = declare(
        None, "on=val, test: where the run's films lie now, if not where they lay", place=True
    )
    annotations: str | None = declare(
        None,
        "table of run lengths: on=<folder> its own, if there is one; on=val, test instead of "
        "the run's",
        place=True,
    )
    mask_size: MaskSize | None = declare(
        None,
        "what the run lengths of annotations count: challenge (1024² of pictures, DICOM films' own "
        "pixels) or film (all films' own); null: challenge, or as the run's data.mask_size",
    )
    patients: str | None = declare(None, "CSV of image id and patient, as annotations", place=True)
    on_error: OnError | None = declare(
        None,
        "what to do with a film that cannot be read; null: stop, or as the run's data.on_error",
    )
    runs_dir: str = declare("runs", "where means of several runs, and sweeps, are kept", place=True)
    machine: Machine = declare(factory=Machine, help="where and how the work is done")

    def __post_init__(self) -> None:
        if self.data is None:
            return
        if self.on not in ("val", ELSEWHERE):
            raise PneumoError(f"on={self.on} and data={self.data.name}: choose one")
        for key in ("root", "annotations", "mask_size", "patients", "on_error", "ids"):
            if getattr(self, key) is not None:
                raise PneumoError(f"{key} is of the runs' own films; with data= say data.{key}=…")
        self.on = ELSEWHERE


class Polarity(Enum):
    """What decides whether a film is shown with dark lungs."""

    auto = "auto"  # its tags, unless the film clearly contradicts them
    tags = "tags"


class Names(Enum):
    """Names of outputs whose films' own names tell who the patient is."""

    hide = "hide"  # the film's UID, or a digest of its content
    keep = "keep"


class Unsuitable(Enum):
    """What to do with films that models of frontal chest films were not made for."""

    refuse = "refuse"
    use = "use"  # judge them, and mark every output


@dataclass
class Save:
    """What is written for each film beside the table of all."""

    overlay: bool = declare(True, "PNG: the film with outline and probability heat")
    mask: bool = declare(True, "PNG of 0 and 255, in the film's own geometry")
    rle: bool = declare(True, "one CSV of run lengths, in the film's own geometry")
    segmentation: bool = declare(False, "DICOM Segmentation")
    capture: bool = declare(False, "DICOM Secondary Capture of the overlay")
    report: bool = declare(False, "DICOM Structured Report")


ENGINES = ("auto", "torch", "onnx")


@dataclass
class Spacings:
    """A table of what films' pixels measure."""

    spacing: str | None = declare(
        None,
        "CSV of film, spacing (mm) and, where that is the spacing of an original of another size, "
        "width and height (px), such as NIH's Data_Entry_2017: used instead of the header's",
        place=True,
    )
    spacing_names: str | None = declare(
        None, "CSV of film id and its name in that table, e.g. nih_id.csv", place=True
    )

    def __post_init__(self) -> None:
        if self.spacing_names and not self.spacing:
            raise PneumoError("spacing_names without spacing: give the table too, spacing=<csv>")


@dataclass
class Use(Spacings):
    """How a bundle is used on any film."""

    engine: str = declare("auto", "auto, torch or onnx")
    polarity: Polarity = declare(
        Polarity.auto, "auto (tags, unless the film clearly contradicts them) or tags"
    )
    colour: bool = declare(False, "accept colour images, as their luminance")
    unsuitable: Unsuitable = declare(
        Unsuitable.refuse,
        "films of another body part, lateral films, and films unlike those the model was trained "
        "on: refuse, or use (judged, and marked in every output)",
    )
    max_megapixels: int = declare(100, "a film that claims more is refused before it is decoded")
    max_megabytes: int = declare(512, "of a file, or of an archive's member when unpacked")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.engine in ENGINES, "engine", self.engine, f"one of {', '.join(ENGINES)}")
        for key in ("max_megapixels", "max_megabytes"):
            require(getattr(self, key) >= 1, key, getattr(self, key), "at least 1")


@dataclass
class Predict(Use, Films):
    """What ``python -m pneumo.predict`` takes.

    A run, to judge it (``run``, ``on``), or a bundle, to use it (``model``, ``input``).
    """

    batch_size: int = declare(16, "films at a time")
    shard: str | None = declare(
        None,
        "k/n: only the k-th of n equal parts of the films, each by a process or machine of its "
        "own; the last of them joins all",
    )
    model: str | None = declare(None, "a folder made by python -m pneumo.export", place=True)
    input: Any = declare(
        None, "DICOM files, PNG or JPEG pictures, folders, zip archives; one or a list", place=True
    )
    out: str = declare("masks", "folder of a bundle's results", place=True)
    names: Names = declare(
        Names.hide,
        "where a film's file name tells who the patient is: hide (its UID or a digest instead) or "
        "keep",
    )
    save: Save = declare(factory=Save, help="what is written for each film")
    tta: bool | None = declare(None, "flip TTA; null: as the bundle says")
    postprocess: Rule = declare(factory=Rule, help="thresholds to use instead")

    def __post_init__(self) -> None:
        super().__post_init__()
        Films.__post_init__(self)
        if self.model is not None and self.data is not None:
            raise PneumoError(
                "model and data are both set: model=… input=… uses a bundle on films; to judge it "
                "on a data set, python -m pneumo.evaluate model=… data=…"
            )
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _ = self.part

    @property
    def part(self) -> Shard | None:
        """The part of the films that is asked for; None: all of them."""
        return None if self.shard is None else Shard.read(self.shard)


@dataclass
class View(Use):
    """What ``python -m pneumo.view`` takes. It holds films in memory, so its limits are lower."""

    max_megapixels: int = declare(50, "a film that claims more is refused before it is decoded")
    max_megabytes: int = declare(128, "of an uploaded file")
    model: str | None = declare(None, "a folder made by python -m pneumo.export", place=True)
    folder: str | None = declare(None, "films to begin with", place=True)
    annotations: str | None = declare(
        None, "table of run lengths: the truth is shown beside what is found", place=True
    )
    mask_size: MaskSize = declare(
        MaskSize.challenge,
        "what its run lengths count: challenge (1024² of pictures, DICOM films' own pixels) or "
        "film (all films' own)",
    )
    corrections: str | None = declare(
        None,
        "folder where readers' corrections are kept, as a table that data=siim trains on; without "
        "it nothing is written",
        place=True,
    )
    reader: str | None = declare(None, "with corrections: who corrects, by name or initials")
    host: str = declare("127.0.0.1", "address to listen on")
    port: int = declare(8765, "port to listen on")
    open: bool = declare(True, "open a browser")
    keep: int = declare(64, "films in memory")
    runs_dir: str = declare("runs", "folder of all runs", place=True)
    machine: Machine = declare(factory=Machine, help="where and how the work is done")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.port < 65536, "port", self.port, "1 to 65535")
        require(self.keep >= 1, "keep", self.keep, "at least 1")
        if bool(self.corrections) != bool((self.reader or "").strip()):
            raise PneumoError(
                "corrections and reader go together: corrections=<folder> reader=<who corrects>"
            )


register("predict_schema", Predict)
register("view_schema", View)
