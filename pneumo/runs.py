"""A fit's folder: its name, lock, record and weights.

It is what training, prediction and reports share. No torch is needed here.
"""

import csv
import glob
import io
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

import filelock

from pneumo import files, seals
from pneumo.errors import PneumoError

log = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
METRICS = "metrics.json"
RECORD = "config.yaml"
PLAN = "job.json"  # what a fit that was handed over is to be made from
PARTS = "parts.json"
HISTORY = "metrics.csv"
CHECKPOINT = "last.ckpt"
BEST = "best.ckpt"
CHECKPOINTS = "best"  # folder of the weights of the best epochs, by their rank
OWN_LOSS = "own_loss.py"  # a copy of the module that loss.own names
PICTURES = "pictures"
LOG = "train.log"
LOCK = ".lock"
TRAIN_SECONDS = "train_seconds"  # in metrics.json: what the fit took, beside its scores
DEVICE = "device"
HISTORY_SHA256 = "history_sha256"  # of metrics.csv, which others read and so bears no seal


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
    """``<runs_dir>/<experiment>/<data>-<scale>[-<tag>]/fold<k>-seed<s>[-<variant>]``."""
    setting = "-".join(filter(None, (data, scale, tag)))
    fit = "-".join(filter(None, (f"fold{fold}", f"seed{seed}", variant)))
    return Path(runs_dir) / experiment / setting / fit


def tags(
    overrides: Sequence[str],
    shared: Collection[str],
    named: Collection[str],
    incidental: Collection[str],
) -> tuple[str, str]:
    """What was typed beyond a run's path → (tag, variant), so that no two settings share a folder.

    Args:
        overrides: as typed, ``key=value``.
        shared: sections that a parent takes over; their keys go into the tag, which parent and
            child share, others into the variant.
        named: keys that the path holds already.
        incidental: keys and sections that do not change what is computed.
    """
    tag: list[str] = []
    variant: list[str] = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        section = key.partition(".")[0]
        passing = section in ("hydra", "sweep")  # what a sweep sets is typed for each of its jobs
        if key in named or key in incidental or section in incidental or passing:
            continue
        if "/" in value:  # a path of this machine: its last part says enough
            value = f"{Path(value).name}-{files.digest(value)[:8]}"
        slug = re.sub(r"[^\w.+-]+", "_", f"{key}_{value}").strip("_")
        short = slug if len(slug) <= 40 else slug[:31] + "-" + files.digest(override)[:8]
        if section in shared:
            tag.append(short)
        else:
            variant.append(short)
    return _joined(tag), _joined(variant)


def _joined(slugs: list[str]) -> str:
    """Parts of a folder's name, cut short so that the name stays below 255 bytes."""
    text = "-".join(sorted(slugs))
    return text if len(text) <= 120 else f"{text[:100]}-{files.digest(text)[:16]}"


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder alone, made if it is not there.

    Waits, and says so in one line, while another process works on it. The system frees the folder
    if that process dies.
    """
    held = None
    while held is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PneumoError(
                f"{folder}: cannot be made ({error.strerror}); choose another place with runs_dir= "
                "or out="
            ) from None
        with suppress(FileNotFoundError):  # the one that held it has removed or renamed it
            held = _held(folder)
    try:
        yield
    finally:
        held.release()


def _held(folder: Path) -> filelock.BaseFileLock:
    """A folder's lock, once it is ours."""
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.warning("%s: another process is working on it; waiting for it to finish", folder)
        lock.acquire()
    return lock


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder alone now."""
    if not (folder / LOCK).is_file():
        return False
    held = filelock.FileLock(folder / LOCK)
    try:
        with held.acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


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
    """Keep what is printed meanwhile in ``train.log`` as well as on the screen."""
    with (
        open(folder / LOG, "a", encoding="utf-8") as file,
        redirect_stdout(cast(TextIO, _Tee(sys.stdout, file))),
    ):
        print(f"# {time.strftime('%Y-%m-%d %H:%M:%S')}, commit {commit()}", file=file)
        yield


def find(wanted: Any) -> list[Path]:
    """The finished runs that a folder, a pattern or a list of them names.

    A pattern is one such as ``runs/exp5/siim-full/*``. The runs of each come in sorted order, the
    entries of a list in the order given.

    Raises:
        PneumoError: nothing named, no such folder, or a run that is not finished.
    """
    names = []
    if isinstance(wanted, str):
        names = [wanted]
    elif isinstance(wanted, list):
        names = wanted
    if not names or not all(isinstance(name, str) for name in names):
        what = "run is not set: give" if wanted is None else f"run={wanted}: must be"
        raise PneumoError(
            f"{what} a run's folder (runs/<experiment>/<data>-<scale>/fold<k>-seed<s>), "
            "a pattern of such, or a list"
        )
    folders: list[Path] = []
    for name in names:
        # the name of a folder that exists may hold characters that are special in a pattern
        pattern = glob.escape(name) if Path(name).is_dir() else name
        matches = sorted(Path(match) for match in glob.glob(pattern))
        with_record = [folder for folder in matches if (folder / RECORD).is_file()]
        for folder in with_record or [Path(name)]:
            if folder not in folders:
                folders.append(folder)
    for folder in folders:
        if is_finished(folder):
            continue
        reason = "no finished run here"
        below = [] if (folder / RECORD).is_file() else sorted(folder.glob(f"**/{RECORD}"))[:5]
        if below:
            listed = ", ".join(str(path.parent) for path in below)
            raise PneumoError(f"run={folder}: no run itself; below it are {listed}")
        if is_begun(folder):
            reason = "not finished; run its python -m pneumo.train command again"
        raise PneumoError(
            f"run={folder}: {reason} "
            "(a run lies in runs/<experiment>/<data>-<scale>/fold<k>-seed<s>)"
        )
    return folders


def is_begun(folder: Path) -> bool:
    """True once something was trained there."""
    has_network = (folder / CHECKPOINT).is_file() or (folder / WEIGHTS).is_file()
    return (folder / RECORD).is_file() and has_network


def is_finished(folder: Path) -> bool:
    """True once weights, scores and record are all there; the scores are written last."""
    return all((folder / name).is_file() for name in (WEIGHTS, METRICS, RECORD))


def read_metrics(folder: Path) -> dict[str, Any]:
    """What ``metrics.json`` of a finished run holds. Raises PneumoError."""
    try:
        return seals.read_json(folder / METRICS)
    except (OSError, ValueError):
        raise PneumoError(
            f"{folder / METRICS}: missing or damaged; delete the folder to train it anew"
        ) from None


def check(folder: Path) -> None:
    """Raise PneumoError if a file of a finished run is missing or not as it was written."""
    for path in (*(folder / name for name in (WEIGHTS, METRICS, RECORD)), *checkpoints(folder)):
        try:
            seals.check(path)
        except (OSError, ValueError):
            raise PneumoError(
                f"{path}: missing or damaged; delete the folder to train it anew"
            ) from None


def history(folder: Path) -> list[dict[str, str]]:
    """The rows of a finished run's ``metrics.csv``; none where there is no such file.

    Raises PneumoError if it is not as it was written.
    """
    path = folder / HISTORY
    if not path.is_file():
        return []
    written = read_metrics(folder).get(HISTORY_SHA256)
    if written is not None and files.sha256(path) != written:
        raise PneumoError(f"{path}: damaged; restore it, or delete it to go on without its curves")
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores(folder: Path) -> dict[str, float]:
    """The validation scores of a finished run, those that are known. Raises PneumoError."""
    return {
        key: value
        for key, value in read_metrics(folder).items()
        if isinstance(value, float) and key != TRAIN_SECONDS
    }


def checkpoints(folder: Path) -> list[Path]:
    """The weights of the best epochs that lie beside a run's own, the best ones first."""
    kept = [path for path in (folder / CHECKPOINTS).glob("*.safetensors") if path.stem.isdecimal()]
    return sorted(kept, key=lambda path: int(path.stem))


def tidy(folder: Path, checkpoints: bool) -> None:
    """Remove what a finished fit needs no more: checkpoints of its best epochs, whose weights stay,
    and, unless ``checkpoints``, those from which it could go on.
    """
    unneeded = [*(folder / CHECKPOINTS).glob("epoch*.ckpt")]
    if not checkpoints:
        unneeded += [folder / CHECKPOINT, folder / BEST]
    for path in unneeded:
        path.unlink(missing_ok=True)


def differences(
    recorded: dict[str, Any], wanted: dict[str, Any], incidental: Collection[str]
) -> list[str]:
    """Settings that differ, each as ``key: recorded → wanted``, without the incidental ones."""
    old, new = leaves(recorded), leaves(wanted)
    lines = []
    for key in {**old, **new}:
        is_incidental = any(key == name or key.startswith(f"{name}.") for name in incidental)
        if not is_incidental and old.get(key) != new.get(key):
            lines.append(f"{key}: {old.get(key)} → {new.get(key)}")
    return lines


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings as one dictionary, its keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(leaves(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def commit() -> str | None:
    """The git commit of the code, with ``+`` if it has uncommitted changes.

    None outside a checkout.
    """
    # GIT_DIR, which git sets for its hooks, would have git speak of another repository
    if os.environ.get("GIT_DIR"):
        return None
    try:
        head = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+" if changes else head


def _git(*arguments: str) -> str:
    """What a git command prints about the repository that holds this code."""
    here = Path(__file__).parent
    command = ["git", *arguments]
    run = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return run.stdout.strip()
