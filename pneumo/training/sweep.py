"""The table of finished fits that ends a training or a sweep of trainings."""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

JOBS = "jobs.jsonl"
COLUMNS = ("dice", "dice_positive", "iou", "sensitivity", "specificity", "all_empty_dice")


def table(rows: list[dict[str, Any]]) -> str:
    """Scores on validation, one line a fit."""
    width = max(len(row["experiment"]) for row in rows)
    names = ("Dice", "positives", "IoU", "sensit.", "specif.", "all-empty")
    lines = [" " * width + "  " + " ".join(f"{name:>9}" for name in names) + "      time"]
    for row in rows:
        scores = " ".join(f"{row.get(key, float('nan')):>9.4f}" for key in COLUMNS)
        spent = f"{row['seconds']:>6.0f} s" if row["trained"] else "  before"
        lines.append(f"{row['experiment']:<{width}}  {scores}  {spent}")
    lines.append(
        "Validation scores; Dice is the challenge's (both empty = 1), beside what empty masks alone would score."
    )
    return "\n".join(lines)


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
            f"\nNext: tables and a page of all runs:\n  python -m pneumo.report runs_dir={config.runs_dir}",
            flush=True,
        )
