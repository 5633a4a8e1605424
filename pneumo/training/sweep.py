"""The table of finished fits that ends a training or a sweep of trainings."""

import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pneumo.command import SweepEnd
from pneumo.masks.scores import LABELS, TRAINING, number
from pneumo.tables import Table

NOTE = (
    "Validation scores of the final weights, at the network's own size; Dice is the challenge's "
    "(both empty = 1), beside what empty masks alone would score."
)


NAMES = ("experiment", "setting", "fold", "seed", "variant")


def table(rows: list[dict[str, Any]]) -> str:
    """Scores on validation, one line a fit, and the mean of the folds of each cross-validation."""
    cells = [
        [_name(row, rows), *(number(row.get(key)) for key in TRAINING), _spent(row)] for row in rows
    ]
    for folds in cross_validations(rows):
        means = [_mean([row.get(key) for row in folds]) for key in TRAINING]
        name = f"{_name({**folds[0], 'fold': None}, rows)}, mean of {len(folds)} folds"
        cells.append([name, *map(number, means), ""])
    head = ["", *(LABELS[key] for key in TRAINING), "time"]
    return Table("fits", "", head, cells, NOTE).aligned()


def cross_validations(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The fits that differ in nothing but their fold, where there are several of them."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["of_folds"]:
            key = tuple(row[name] for name in NAMES if name != "fold")
            groups.setdefault(key, []).append(row)
    return [group for group in groups.values() if len({row["fold"] for row in group}) > 1]


def _name(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """A fit by its experiment and by what else tells it from the others."""
    several = [name for name in NAMES if len({one[name] for one in rows}) > 1]
    words = [row["experiment"]]
    for name in several:
        if name in ("setting", "variant"):
            words.append(str(row[name]))
        elif name != "experiment" and row[name] is not None:
            words.append(f"{name} {row[name]}")
    return " ".join(filter(None, words))


def _mean(values: list[float | None]) -> float | None:
    """The mean of those that are known: a fold without positives has no score of positives."""
    present = [value for value in values if value is not None and not math.isnan(value)]
    return sum(present) / len(present) if present else None


def _spent(row: dict[str, Any]) -> str:
    return f"{row['seconds']:.0f} s" if row["trained"] else "before"


class SweepTable(SweepEnd):
    """Ends a sweep of trainings with a table of its jobs."""

    def end(self, config: DictConfig, folder: Path, rows: list[dict[str, Any]]) -> None:
        """Print the table."""
        print("\n" + table(rows))
        if not any(row["trained"] for row in rows):
            print("Nothing was trained: every run was finished before.")
        for folds in cross_validations(rows):
            where = Path(folds[0]["folder"])
            pattern = where.with_name(where.name.replace(f"fold{folds[0]['fold']}-", "fold*-", 1))
            print("\nNext: every film judged by the fold that held it out:")
            print(f"  python -m pneumo.evaluate 'run={pattern}' blend=folds")
        report = f"python -m pneumo.report runs_dir={config.runs_dir}"
        print(f"\nNext: tables and a page of all runs:\n  {report}", flush=True)
