"""The table of finished fits that ends a training or a sweep of trainings."""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pneumo.masks.scores import LABELS, TRAINING, number
from pneumo.tables import Table

JOBS = "jobs.jsonl"
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


class SweepTable(Callback):
    """Hydra's callback that ends a sweep with a table of its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table of the jobs that finished, by any launcher."""
        jobs = Path(config.hydra.sweep.dir) / JOBS
        if not jobs.is_file():
            return
        rows = [json.loads(line) for line in jobs.read_text(encoding="utf-8").splitlines()]
        print("\n" + table(rows))
        if not any(row["trained"] for row in rows):
            print("Nothing was trained: every run was finished before.")
        print(
            "\nNext: tables and a page of all runs:\n  python -m pneumo.report "
            f"runs_dir={config.runs_dir}",
            flush=True,
        )
