"""The table of finished fits that ends a training or a sweep of trainings."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pneumo.command import SweepEnd
from pneumo.masks.scores import LABELS, TRAINING, number
from pneumo.tables import Table

NOTE = (
    "Validation scores; Dice is the challenge's (both empty = 1), beside what empty masks alone "
    "would score."
)


def table(rows: list[dict[str, Any]]) -> str:
    """Scores on validation, one line a fit."""
    cells = [
        [row["experiment"], *(number(row.get(key)) for key in TRAINING), _spent(row)]
        for row in rows
    ]
    head = ["", *(LABELS[key] for key in TRAINING), "time"]
    return Table("fits", "", head, cells, NOTE).aligned()


def _spent(row: dict[str, Any]) -> str:
    return f"{row['seconds']:.0f} s" if row["trained"] else "before"


class SweepTable(SweepEnd):
    """Ends a sweep of trainings with a table of its jobs."""

    def end(self, config: DictConfig, folder: Path, rows: list[dict[str, Any]]) -> None:
        """Print the table."""
        print("\n" + table(rows))
        if not any(row["trained"] for row in rows):
            print("Nothing was trained: every run was finished before.")
        report = f"python -m pneumo.report runs_dir={config.runs_dir}"
        print(f"\nNext: tables and a page of all runs:\n  {report}", flush=True)
