"""What runs a folder holds: how far each is, its scores, its size."""

from dataclasses import dataclass
from pathlib import Path

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.masks.scores import LABELS, number
from pneumo.tables import Table
from pneumo.training import record

SHOWN = ("dice", "dice_positive", "iou")


@dataclass
class Listed:
    """One run."""

    folder: Path
    state: str
    scores: dict[str, float | None]
    checkpoints: int  # bytes that a finished run does not need
    size: int  # bytes


def find(runs_dir: Path) -> list[Listed]:
    """All runs below a folder, sorted by path. Raises PneumoError if there is no such folder."""
    if not runs_dir.is_dir():
        raise PneumoError(f"runs_dir={runs_dir}: no such folder")
    return [_listed(path.parent) for path in sorted(runs_dir.glob(f"*/*/*/{runs.RECORD}"))]


def _listed(folder: Path) -> Listed:
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    finished = runs.is_finished(folder)
    scores = runs.read_metrics(folder) if finished else {}
    checkpoints = sum(size for path, size in sizes.items() if path.suffix == ".ckpt")
    known = {key: scores.get(key) for key in SHOWN}
    state = "finished" if finished else _progress(folder)
    return Listed(folder, state, known, checkpoints, sum(sizes.values()))


def _progress(folder: Path) -> str:
    """How far an unfinished run is."""
    try:
        epochs = record.read(folder).config.epochs
    except PneumoError:
        return "not understood"
    history = folder / runs.HISTORY
    lines = history.read_text(encoding="utf-8").splitlines() if history.is_file() else []
    return f"stopped after epoch {max(len(lines) - 1, 0)} of {epochs}"


def remove_checkpoints(found: list[Listed]) -> int:
    """Remove the checkpoints of finished runs; returns the bytes that were freed."""
    freed = 0
    for one in found:
        if one.state == "finished":
            for path in one.folder.rglob("*.ckpt"):
                path.unlink()
            freed += one.checkpoints
    return freed


def table(found: list[Listed]) -> str:
    """One line a run."""
    head = ["run", "state", *(LABELS[key] for key in SHOWN), "MB"]
    rows = [
        [
            str(one.folder),
            one.state,
            *(number(one.scores[key]) for key in SHOWN),
            f"{one.size / 1e6:,.0f}",
        ]
        for one in found
    ]
    note = "Scores are those of validation, at each network's own size."
    return Table("runs", "", head, rows, note).aligned()
