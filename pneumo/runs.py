"""A fit's folder: its name, lock, record and weights. What training, prediction and reports share. No torch."""

import glob
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO, cast

import filelock
import yaml

from pneumo import files
from pneumo.errors import PneumoError

WEIGHTS = "weights.safetensors"
METRICS = "metrics.json"
RECORD = "config.yaml"
PARTS = "parts.json"
HISTORY = "metrics.csv"
CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"
PICTURES = "pictures"
LOG = "train.log"
# recorded settings that do not change what is computed: where files lie, how fast, what is shown
INCIDENTAL = ("runs_dir", "machine", "log", "data.cache", "init_from", "hydra")


def path(
    runs_dir: str,
    experiment: str,
    data: str,
    scale: str,
    tag: str,
    fold: int,
    seed: int,
    variant: str = "",
) -> Path:
    """``<runs_dir>/<experiment>/<data>-<scale>[-<tag>]/fold<k>-seed<s>[-<variant>]``, the same whoever asks."""
    setting = "-".join(filter(None, (data, scale, tag)))
    return (
        Path(runs_dir)
        / experiment
        / setting
        / "-".join(filter(None, (f"fold{fold}", f"seed{seed}", variant)))
    )


def tags(
    overrides: Sequence[str], shared: Collection[str], named: Collection[str]
) -> tuple[str, str]:
    """What the user typed beyond the names in a run's path → (tag, variant), so that no two settings share a folder.

    Args:
        overrides: as typed, ``key=value``.
        shared: sections a parent takes over; their keys go into the tag, which parent and child share, others into the variant.
        named: keys that the path holds already, and keys or sections that do not change what is computed.
    """
    tag: list[str] = []
    variant: list[str] = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        section = key.partition(".")[0]
        if key in named or (section in named and section in INCIDENTAL):
            continue
        slug = re.sub(r"[^\w.+-]+", "_", f"{key}_{value}").strip("_")
        short = slug if len(slug) <= 40 else slug[:31] + "-" + files.digest(override)[:8]
        (tag if section in shared else variant).append(short)
    return _joined(tag), _joined(variant)


def _joined(slugs: list[str]) -> str:
    """Folder names must stay below 255 bytes."""
    text = "-".join(sorted(slugs))
    return text if len(text) <= 120 else f"{text[:100]}-{files.digest(text)[:16]}"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder alone; waits, with one line, while another process works on it. Freed by the system if that one dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PneumoError(
            f"{folder}: cannot be made ({error.strerror}); choose another place with runs_dir="
        ) from None
    held = filelock.FileLock(folder / ".lock")
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{folder}: another process is working on it; waiting for it to finish", flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


class _Tee(io.TextIOBase):
    """Writes to the screen and to a file."""

    def __init__(self, screen: TextIO, file: TextIO):
        self.screen, self.file = screen, file

    def write(self, text: str) -> int:
        self.file.write(text)
        return self.screen.write(text)

    def flush(self) -> None:
        self.file.flush()
        self.screen.flush()

    def isatty(self) -> bool:
        return self.screen.isatty()


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Keep what is printed meanwhile in ``train.log``, too."""
    with (
        open(folder / LOG, "a", encoding="utf-8") as file,
        redirect_stdout(cast(TextIO, _Tee(sys.stdout, file))),
    ):
        print(f"# {time.strftime('%Y-%m-%d %H:%M:%S')}, commit {commit()}", file=file)
        yield


def find(wanted: Any) -> list[Path]:
    """The finished runs that a folder, a pattern (``runs/exp5/siim-full/*``) or a list of them names, sorted as given.

    Raises:
        PneumoError: nothing named, no such folder, or a run that is not finished.
    """
    names = (
        [wanted] if isinstance(wanted, str) else list(wanted) if isinstance(wanted, list) else []
    )
    if not names or not all(isinstance(name, str) for name in names):
        what = "run is not set: give" if wanted is None else f"run={wanted}: must be"
        raise PneumoError(
            f"{what} a run's folder (runs/<experiment>/<data>-<scale>/fold<k>-seed<s>), a pattern of such, or a list"
        )
    found = []
    for name in names:
        folders = sorted(
            Path(hit)
            for hit in glob.glob(glob.escape(name) if Path(name).is_dir() else name)
            if Path(hit, RECORD).is_file()
        )
        folders = folders or [Path(name)]
        found += [folder for folder in folders if folder not in found]
    for folder in found:
        if not is_finished(folder):
            begun = (
                "not finished; run its python -m pneumo.train command again"
                if is_begun(folder)
                else "no finished run here"
            )
            raise PneumoError(
                f"run={folder}: {begun} (a run lies in runs/<experiment>/<data>-<scale>/fold<k>-seed<s>)"
            )
    return found


def is_begun(folder: Path) -> bool:
    """True once something was trained there."""
    return (folder / RECORD).is_file() and any(
        (folder / name).is_file() for name in (CHECKPOINT, WEIGHTS)
    )


def is_finished(folder: Path) -> bool:
    """True once weights, scores and record are all there; the scores are written last."""
    return all((folder / name).is_file() for name in (WEIGHTS, METRICS, RECORD))


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write ``config.yaml``, whole or not at all."""
    files.write_text(folder / RECORD, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))


def read_record(folder: Path) -> dict[str, Any]:
    """What ``config.yaml`` of a run holds: ``config``, ``origin``, ``parent``, ``data``. Raises PneumoError."""
    try:
        record = yaml.safe_load((folder / RECORD).read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
            raise PneumoError(
                f"{folder / RECORD}: holds no recorded configuration; delete the folder to train it anew"
            )
        return record
    except FileNotFoundError:
        raise PneumoError(f"{folder}: no run here (no {RECORD}); train it first") from None
    except yaml.YAMLError:
        raise PneumoError(
            f"{folder / RECORD}: damaged; delete the folder to train it anew"
        ) from None


def read_metrics(folder: Path) -> dict[str, Any]:
    """What ``metrics.json`` of a finished run holds. Raises PneumoError."""
    try:
        return dict(json.loads((folder / METRICS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise PneumoError(
            f"{folder / METRICS}: missing or damaged; delete the folder to train it anew"
        ) from None


def ancestors(folder: Path, record: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Folder and record of the runs whose weights this one began with, the first one first, as far as they are still there."""
    if not record.get("parent"):
        return []
    parent = folder.resolve().parents[2].joinpath(*Path(record["parent"]["path"]).parent.parts[-3:])
    if not (parent / RECORD).is_file():
        return []
    theirs = read_record(parent)
    return [*ancestors(parent, theirs), (parent, theirs)]


def trained_on(folder: Path, record: dict[str, Any]) -> dict[str, str | None] | None:
    """Films that these weights or their ancestors' were trained on, with their patients; None if a part of it is not known."""
    if record.get("parent") and not ancestors(folder, record):
        return None
    films: dict[str, str | None] = {}
    for place, _ in [*ancestors(folder, record), (folder, record)]:
        try:
            films |= json.loads((place / PARTS).read_text(encoding="utf-8"))["training"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return films


def differences(recorded: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Settings that differ, each as ``key: recorded → wanted``, leaving aside the incidental ones."""
    old, new = _leaves(recorded), _leaves(wanted)
    keys = [
        key
        for key in {**old, **new}
        if not any(key == name or key.startswith(name + ".") for name in INCIDENTAL)
    ]
    return [
        f"{key}: {old.get(key)} → {new.get(key)}" for key in keys if old.get(key) != new.get(key)
    ]


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(
            _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def origin() -> dict[str, Any]:
    """The command, versions and git commit that make a run."""
    versions: dict[str, str] = {"python": sys.version.split()[0]}
    for name in (
        "pneumo",
        "torch",
        "pytorch-lightning",
        "segmentation-models-pytorch",
        "timm",
        "albumentations",
        "numpy",
        "pydicom",
    ):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "commit": commit(),
        "command": shlex.join(["python", "-m", *sys.argv]),
        "versions": versions,
    }


def commit() -> str | None:
    """The git commit of the code, with ``+`` if it has uncommitted changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        if os.environ.get("GIT_DIR"):
            return None
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty.strip() else "")
