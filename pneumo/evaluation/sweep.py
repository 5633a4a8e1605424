"""The table and the plot that end a sweep of evaluations."""

import csv
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from pneumo import files, tracking
from pneumo.command import SweepEnd
from pneumo.masks.scores import LABELS, MAIN, TRAINING, number
from pneumo.settings import Tracking, checked
from pneumo.tables import Table

SWEPT = (
    "To take the best of a sweep is to choose on the films that are scored; "
    "a single evaluation (tune=honest) chooses on others."
)


class SweepTable(SweepEnd):
    """Ends a sweep with a table and a plot of its jobs, also in Weights & Biases."""

    def end(self, config: DictConfig, folder: Path, rows: list[dict[str, Any]]) -> None:
        """Print the table, write ``sweep.csv`` and ``sweep.html``."""
        swept = _swept([row["overrides"] for row in rows])
        print("\n" + sweep_table(rows, swept))
        table = [
            [*(_value(row["overrides"], key) for key in swept), *(row.get(name) for name in MAIN)]
            for row in rows
        ]
        with (
            files.replacing(folder / "sweep.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([[*swept, *MAIN, "note"], *([*row, SWEPT] for row in table)])
        figure = sweep_figure(rows, swept)
        files.write_text(
            folder / "sweep.html",
            figure.to_html(include_plotlyjs=True, config={"responsive": True}, div_id="sweep"),
        )
        print(f"\nTable: {folder / 'sweep.csv'}\nPlot:  {folder / 'sweep.html'}", flush=True)
        tracking.record(
            _log(config),
            folder,
            name=f"sweep of {', '.join(swept)}",
            job_type="sweep",
            group="evaluate",
            config={
                "weights": sorted({hash for row in rows for hash in row["weights"]}),
                "films": rows[0]["films"],
                "note": SWEPT,
            },
            tables={"sweep": ([*swept, *MAIN], table)},
            figures={"plot": figure},
        )


def _log(raw: DictConfig) -> Tracking:
    typed = checked(raw.log)
    assert isinstance(typed, Tracking)
    return typed


def _value(overrides: list[str], key: str) -> str:
    return next(
        (one.partition("=")[2] for one in overrides if one.partition("=")[0].lstrip("+") == key), ""
    )


def _swept(jobs: list[list[str]]) -> list[str]:
    """The keys whose values differ between jobs; of a single job, all of them."""
    keys = list(dict.fromkeys(one.partition("=")[0].lstrip("+") for job in jobs for one in job))
    return [key for key in keys if len({_value(job, key) for job in jobs}) > 1] or keys


def sweep_table(rows: list[dict[str, Any]], swept: list[str]) -> str:
    """One line a job: what was swept, and the scores."""
    head = [*(key.rpartition(".")[2] for key in swept), *(LABELS[key] for key in MAIN)]
    cells = [
        [*(_value(row["overrides"], key) for key in swept), *(number(row.get(key)) for key in MAIN)]
        for row in rows
    ]
    return Table("sweep", "", head, cells, SWEPT).aligned()


def sweep_figure(rows: list[dict[str, Any]], swept: list[str]) -> Any:
    """The scores over what was swept."""
    import plotly.graph_objects as go  # a second of import

    at = [", ".join(_value(row["overrides"], key) for key in swept) for row in rows]
    figure = go.Figure(
        [
            go.Scatter(x=at, y=[row[key] for row in rows], name=LABELS[key], mode="lines+markers")
            for key in TRAINING
            if key != "all_empty_dice" and key in rows[0]
        ]
    )
    empty = rows[0].get("all_empty_dice")
    if empty is not None:
        figure.add_hline(
            y=empty, line_dash="dot", annotation_text=f"empty masks alone: Dice {empty:.3f}"
        )
    return figure.update_layout(
        title={"text": SWEPT, "font": {"size": 12}},
        template="plotly_white",
        xaxis_title=", ".join(swept),
        xaxis_type="category",
        yaxis_range=[0, 1],
        yaxis_title="score",
    )
