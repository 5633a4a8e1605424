"""Time and memory of every stage against the number of films: both should be straight lines.

    python -m benchmarks.growth [--most 10000] [--svg .assets/growth.svg]

Films are tiny (32²; maps are judged at 1024² as always), so that what is measured is the work for
each film and not its decoding. Stages that only read tables of numbers go on to ten times as many
films. Every stage runs once at each size, in this process, while its anonymous memory is watched.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Template

from benchmarks import made, table
from benchmarks.table import Row
from pneumo import pool
from pneumo.data import cache, parts
from pneumo.data.settings import Split
from pneumo.data.sources import siim
from pneumo.evaluation import evaluation, page, published, report, scores, surfaces
from pneumo.evaluation.scores import Outcomes
from pneumo.evaluation.settings import Evaluate, Report
from pneumo.inference import engine, mapping, maps
from pneumo.masks.histograms import Histograms
from pneumo.settings import Machine
from pneumo.training.lineage import declared
from pneumo.training.loader import FilmData
from pneumo.training.network import build_network
from pneumo.training.options import Model
from pneumo.training.weights import save_weights

SIDE = 32
SIZES = (100, 1_000, 10_000)
MODEL = Model(name="tiny", encoder="tu-test_resnet", encoder_weights="none")
CPU = Machine(accelerator="cpu")
LINEAR = 0.8  # a film may take so much longer, where there are ten times as many


@dataclass
class Taken:
    """What one stage took for so many films: seconds by the clock and of CPU, MiB at most."""

    stage: str
    films: int
    wall: float
    cpu: float
    peak: float


Stages = Iterator[tuple[str, Callable[[], object]]]


def on_films(place: Path, count: int) -> Stages:
    """The stages that need films or maps on disk, each made ready by those before it."""
    data = made.films(place / "films", count, SIDE)
    yield "index", lambda: siim.read_index(data)
    items = siim.read_index(data).items
    yield "cache", lambda: cache.build(items, SIDE, Path(data.cache), workers=0)
    films = cache.build(items, SIDE, Path(data.cache))
    config = declared(
        [
            *("+experiment=exp5_stage1", "data=siim", "data.name=made", "data.mask_size=film"),
            *(f"data.root='{data.root}'", f"data.annotations='{data.annotations}'"),
            *(f"data.cache='{data.cache}'", f"runs_dir='{place}/runs'"),
            *(f"resolution.size={SIDE}", "machine.workers=0", "machine.accelerator=cpu"),
        ]
    )
    loaded = FilmData(config)
    yield "data made ready", loaded.prepare
    yield "an epoch's films", lambda: [None for _ in loaded.train_dataloader()]
    weights = place / "tiny.safetensors"
    save_weights(build_network(MODEL), weights, {})
    part = mapping.Part(maps.cases_of(items, labelled=True), films, np.arange(count))
    run = engine.torch_engine(MODEL, weights, "tiny", CPU)
    yield (
        "prediction",
        lambda: maps.write(place / "maps", "key", part.cases, SIDE, _filler(part, run), _facts()),
    )
    folder = made.finished_run(place / "runs", count, SIDE)
    predictions = maps.load(folder / maps.FOLDER / "val")
    yield "levels counted", lambda: predictions.histograms(tta=True)
    asked = Evaluate(run=str(folder), runs_dir=str(place / "runs"), machine=CPU)
    yield "evaluation", lambda: evaluation.evaluate(asked)
    settings = Report(runs_dir=str(place / "runs"), machine=CPU)
    yield "report", lambda: _report(settings)


def on_tables(count: int) -> Stages:
    """The stages that need numbers alone."""
    rng = np.random.default_rng(0)
    positive = [film % 3 == 0 for film in range(count)]
    patients = [f"p{film * 2 // 3}" for film in range(count)]
    split = Split()
    yield "division", lambda: parts.divide(positive, patients, split, 0)
    inside = np.zeros((count, 256), np.int32)
    inside[::3] = rng.integers(0, 300, (len(inside[::3]), 256))
    total = inside + rng.integers(0, 3000, (count, 256), dtype=np.int32)
    yield "threshold surface", lambda: surfaces.surface(Histograms(total, inside))
    histograms = Histograms(total, inside)
    truth = histograms.truth.astype(np.int64)
    predicted = histograms.predicted([0.5])[:, 0].astype(np.int64)
    films = Outcomes(
        [str(film) for film in range(count)],
        predicted,
        truth,
        np.minimum(truth, predicted) // 2,
        rng.random(count).round(3),
        list(patients),
        [None] * count,
    )
    del histograms
    yield "bootstrap", lambda: scores.intervals(films, 1000)


def _filler(part: mapping.Part, run: engine.Engine) -> maps.Fill:
    def fill(arrays: maps.Arrays, begin: int) -> Iterator[int]:
        for start in range(begin, len(part.rows), 64):
            stop = min(start + 64, len(part.rows))
            both = engine.with_flip(run, part.at(start, stop))
            arrays.plain[start:stop], arrays.flip[start:stop] = (
                engine.to_levels(said.maps) for said in both
            )
            yield stop

    return fill


def _facts() -> dict[str, Any]:
    return {"on": "folder", "run": "", "weights": "", "left_out": [], "seen_in_training": 0}


def _report(settings: Report) -> str:
    (found,) = report.collect(settings).values()
    judged = report.judge_runs(found, settings)
    return page.render("growth", "", judged, published.build(judged), 4)


def taken(stages: Stages, count: int) -> Iterator[Taken]:
    """Run stages one after the other, each once."""
    for stage, work in stages:
        spent: list[table.Spent] = []
        peak = table.peak_memory(lambda work=work, spent=spent: spent.append(table.spent(work)))
        yield Taken(stage, count, spent[0].wall, spent[0].cpu, peak)


def grown(sizes: tuple[int, ...], beyond: int) -> list[Taken]:
    """All stages at all sizes; those of tables also at ``beyond``, if that is more."""
    logging.getLogger("pneumo").setLevel(logging.WARNING)
    pool.cores = lambda: 1  # other processes' memory would not be seen
    found: list[Taken] = []
    with tempfile.TemporaryDirectory() as name:
        for count in sizes:
            found += taken(on_films(Path(name) / str(count), count), count)
    for count in (*sizes, beyond) if beyond > sizes[-1] else sizes:
        found += taken(on_tables(count), count)
    return found


def rows_of(found: list[Taken]) -> list[Row]:
    """One row a stage: a film's time among the most films against ten times fewer."""
    rows = []
    for stage in dict.fromkeys(one.stage for one in found):
        own = [one for one in found if one.stage == stage]
        last, before = own[-1], own[-2]
        each = [1000 * one.cpu / one.films for one in (last, before)]
        megabytes = ", ".join(f"{one.peak:,.0f} for {one.films:,}" for one in own)
        rows.append(
            Row(
                f"{stage}, {last.films:,} films",
                *each,
                "ms of CPU a film",
                [each[1] / each[0]],
                last.peak,
                before.peak,
                at_least=LINEAR,
                against=f"a film among {before.films:,}",
                limit=f"MiB at most: {megabytes}",
            )
        )
    return rows


def measure(quick: bool) -> list[Row]:
    """All stages; quick at a handful of films."""
    return rows_of(grown((6, 12), 24) if quick else grown(SIZES, 10 * SIZES[-1]))


# Okabe and Ito 2008: told apart by colour-blind readers too; the last two are lighter and darker
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#8A8A00", "#999999", "#882255", "#44AA99", "#AA4499", "#6699CC"),
)
FIGURE = Path(__file__).with_suffix(".svg")  # a template of Jinja


def svg(found: list[Taken]) -> str:
    """The figure, on logarithmic axes: a straight line of slope one is linear growth."""
    stages = list(dict.fromkeys(one.stage for one in found))
    films = sorted({one.films for one in found})
    panels = [
        _panel("seconds of CPU", 60, 370, found, stages, films, lambda one: one.cpu, 1e-3),
        _panel("MiB at most", 440, 730, found, stages, films, lambda one: one.peak, 1.0),
    ]
    legend = [
        {"at": 60 + 24 * place, "text": stage, "colour": COLOURS[place % len(COLOURS)]}
        for place, stage in enumerate(stages)
    ]
    template = Template(FIGURE.read_text(encoding="utf-8"))
    return template.render(panels=panels, legend=legend, height=456)


def _panel(
    title: str,
    left: int,
    right: int,
    found: list[Taken],
    stages: list[str],
    films: list[int],
    value: Callable[[Taken], float],
    least: float,
) -> dict[str, Any]:
    """One diagram; values below ``least`` lie on its lower edge."""
    high = max(value(one) for one in found)
    decades = np.arange(np.log10(least), max(np.ceil(np.log10(high)), np.log10(least) + 1) + 1)

    def across(count: float) -> float:
        span = np.log10(films[-1] / films[0])
        return round(left + 15 + float(np.log10(count / films[0]) / span) * (right - left - 30), 1)

    def down(what: float) -> float:
        share = (np.log10(max(what, least)) - decades[0]) / (decades[-1] - decades[0])
        return round(400 - float(share) * 360, 1)

    lines = []
    for place, stage in enumerate(stages):
        own = [one for one in found if one.stage == stage]
        points = [f"{across(one.films)} {down(value(one))}" for one in own]
        lines.append({"points": points, "colour": COLOURS[place % len(COLOURS)]})
    return {
        "title": title,
        "left": left,
        "right": right,
        "lines": lines,
        "x": [{"at": across(count), "text": f"{count:,}"} for count in films],
        "y": [{"at": down(10**power), "text": f"{10**power:,.10g}"} for power in decades],
    }


def main() -> None:
    """Measure, print, and draw the figure."""
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="films of the largest set")
    parser.add_argument("--svg", type=Path, help="draw the figure into this file")
    parser.add_argument("--json", type=Path, help="write what was taken to this file")
    asked = parser.parse_args()
    sizes = tuple(size for size in SIZES if size <= asked.most)
    found = grown(sizes, 10 * sizes[-1])
    print(table.shown(rows_of(found), "Growth").aligned())
    if asked.svg:
        asked.svg.write_text(svg(found), encoding="utf-8")
    if asked.json:
        content = [vars(one) for one in found]
        asked.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
