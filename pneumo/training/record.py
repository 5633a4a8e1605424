"""What a run says of itself: its settings, its origin, its data, its parent.

Every later stage reads it. ``config.yaml`` outlives the code that wrote it. A record of an older
version is brought to today's settings by ``_STEPS``; a setting that it lacks has the value that its
absence meant.
"""

import dataclasses
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from pneumo import runs, seals
from pneumo.errors import PneumoError, brief, one_line
from pneumo.training.settings import Config, recorded_config

VERSION = 3
PACKAGES = (
    "pneumo",
    "torch",
    "pytorch-lightning",
    "segmentation-models-pytorch",
    "timm",
    "opencv-python-headless",
    "numpy",
    "pydicom",
)


@dataclass
class Origin:
    """The command, versions and git commit that made a run."""

    commit: str | None = None
    command: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def now(cls) -> "Origin":
        """Of this process."""
        versions = {"python": sys.version.split()[0]}
        for name in PACKAGES:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
        return cls(runs.commit(), shlex.join(["python", "-m", *sys.argv]), versions)


@dataclass
class DataFacts:
    """What a run's data was: fingerprints and counts, no paths."""

    films: str  # fingerprint of the cache: ids, files, annotations, size
    parts: str  # digest of the ids of both parts
    annotations: str | None  # digest of ids and run lengths
    training: int
    validation: int
    validation_positive: int
    by_patient: bool
    validation_positives_sharing_a_patient: float | None
    left_aside: dict[str, int]


@dataclass
class Parent:
    """The weights a fit started from, fixed by their content."""

    path: str
    sha256: str


@dataclass
class Record:
    """Everything that ``config.yaml`` of a run holds."""

    config: Config
    origin: Origin
    data: DataFacts
    parent: Parent | None = None
    differs_from_one_device: list[str] = field(default_factory=list)  # of a fit on several

    def write(self, folder: Path) -> None:
        """Write ``config.yaml``, whole or not at all."""
        values = {
            "version": VERSION,
            "config": self.config.to_dict(),
            "origin": dataclasses.asdict(self.origin),
            "data": dataclasses.asdict(self.data),
            "parent": dataclasses.asdict(self.parent) if self.parent else None,
        }
        if self.differs_from_one_device:
            values["differs_from_one_device"] = self.differs_from_one_device
        seals.write_yaml(folder / runs.RECORD, values)


def read(folder: Path) -> Record:
    """The record of a run, whatever version wrote it.

    Raises:
        PneumoError: no run, a damaged record, or one that this version does not understand.
    """
    path = folder / runs.RECORD
    try:
        values = seals.read_yaml(path)
    except FileNotFoundError:
        raise PneumoError(f"{folder}: no run here (no {runs.RECORD}); train it first") from None
    except ValueError as error:
        raise PneumoError(
            f"{path}: damaged ({brief(error)}); restore it, or delete the folder to train it anew "
            f"(whoever changed it by hand removes its line {seals.KEY})"
        ) from None
    if not isinstance(values.get("config"), dict):
        raise PneumoError(
            f"{path}: holds no recorded configuration; delete the folder to train it anew"
        )
    try:
        return Record(
            config=read_config(values["config"], int(values.get("version", 1))),
            origin=Origin(**values["origin"]),
            data=DataFacts(**{"annotations": None, **values["data"]}),
            parent=Parent(**values["parent"]) if values.get("parent") else None,
            differs_from_one_device=list(values.get("differs_from_one_device", [])),
        )
    except (PneumoError, OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        raise PneumoError(
            f"{path}: written by {_writer(values)}, and not understood by this version "
            f"({one_line(error)})"
        ) from None


def _writer(values: dict[str, Any]) -> str:
    origin = values.get("origin")
    origin = origin if isinstance(origin, dict) else {}
    versions = origin.get("versions")
    number = versions.get("pneumo") if isinstance(versions, dict) else None
    return f"pneumo {number or 'of unknown version'} (commit {origin.get('commit') or 'unknown'})"


def read_config(values: dict[str, Any], written: int = VERSION) -> Config:
    """Recorded settings of any version → today's ``Config``. Raises PneumoError."""
    if written > VERSION:
        raise PneumoError(f"record version {written} is newer than {VERSION}; update pneumo")
    for step in _STEPS[written - 1 :]:
        values = step(values)
    return recorded_config(values)


def _from_1(values: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had no optimizer and called averaging ``swa``.

    It told stages by their names, and gave all data the same keys.
    """
    values = {**values, "optimizer": {"name": "adam"}, "averaging": values["swa"]}
    values.pop("swa")
    values["stage"] = values["experiment"].endswith("_stage1")
    values["resolution"] = {k: v for k, v in values["resolution"].items() if k != "swa_epochs"}
    data = dict(values["data"])
    data["format"] = "phantom" if "images" in data else "siim"  # data may bear any name
    if data["format"] == "phantom":
        for key in ("annotations", "round", "round1_test"):
            data.pop(key, None)
    return {**values, "data": data}


def _from_2(values: dict[str, Any]) -> dict[str, Any]:
    """Version 2 had one seed, which also decided who is in which part.

    It distorted films less: no affine part, and borders stayed in place. Its best epoch was that of
    the best IoU. Its Dice was over the batch or over each image.
    """
    split = {**values.get("split", {}), "seed": values.get("seed", 0)}
    augmentation = {"elastic_affine": 0.0, "grid_normalized": True, **values["augmentation"]}
    handoff = dict(values["handoff"])
    if handoff["source"] == "best":
        handoff.setdefault("score", "iou")
    loss = dict(values["loss"])
    loss["dice_over"] = "image" if loss.pop("dice_per_image", False) else "batch"
    return {
        **values,
        "split": split,
        "augmentation": augmentation,
        "model": model_as_meant(values["model"]),
        "handoff": handoff,
        "loss": loss,
    }


def model_as_meant(values: dict[str, Any]) -> dict[str, Any]:
    """A network's settings, of a record or a bundle's card, with what the absence of some meant."""
    values = dict(values)
    if values.get("stem") == "conv":
        values.setdefault("stem_kernel", 3)
    for key in ("mean", "std"):  # one number was of all channels
        if isinstance(values.get(key), int | float):
            values[key] = [values[key]]
    return values


# step n brings version n to version n + 1
_STEPS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (_from_1, _from_2)


def ancestors(folder: Path, record: Record) -> list[tuple[Path, Record]]:
    """Folder and record of the runs whose weights this one began with, the first one first.

    As far as they are still there: a parent lies beside its child's experiment.
    """
    if record.parent is None:
        return []
    recorded = Path(record.parent.path).parent
    parent = folder.resolve().parents[2].joinpath(*recorded.parts[-3:])
    if not (parent / runs.RECORD).is_file():
        return []
    theirs = read(parent)
    return [*ancestors(parent, theirs), (parent, theirs)]


def trained_on(folder: Path, record: Record) -> dict[str, str | None] | None:
    """Films that these weights or their ancestors' were trained on, with their patients.

    None if a part of it is not known.
    """
    lineage = ancestors(folder, record)
    if record.parent is not None and not lineage:
        return None
    films: dict[str, str | None] = {}
    for place, _ in [*lineage, (folder, record)]:
        parts = parts_of(place)
        if parts is None:
            return None
        films |= parts["training"]
    return films


def parts_of(folder: Path) -> dict[str, dict[str, str | None]] | None:
    """The films of ``training`` and of ``validation`` of a run, with their patients.

    None if that is not known: runs of older versions have no ``parts.json``. Raises PneumoError if
    it is damaged.
    """
    path = folder / runs.PARTS
    try:
        parts = seals.read_json(path)
        return {name: dict(parts[name]) for name in ("training", "validation")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise PneumoError(
            f"{path}: damaged ({brief(error)}); restore it, or delete it: which films these "
            "weights were trained on is then not known"
        ) from None
