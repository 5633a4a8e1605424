"""``python -m pneumo.evaluate run=…``: scores of finished runs from their probability maps; a sweep ends with table and plot."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from pneumo import command, config, files, runs, scores, tracking
from pneumo.config import Evaluate, Postprocess, Source, Tune
from pneumo.errors import PneumoError
from pneumo.judge import SHOWN, Result, compare, joined, judge, outcomes, plain, rule_text

FOLDER = "evaluations"  # beside the maps
JOBS = "jobs.jsonl"
SWEPT = "To take the best of a sweep is to choose on the films that are scored; a single evaluation (tune=honest) chooses on others."


def task(raw: DictConfig) -> None:
    """One Hydra job: a single evaluation, or one of a sweep."""
    settings = config.typed(raw)
    overrides = list(HydraConfig.get().overrides.task)
    sweeping = HydraConfig.get().mode is RunMode.MULTIRUN
    if sweeping and not any(one.startswith("tune=") for one in overrides):
        settings = dataclasses.replace(settings, tune=Tune.none)  # a sweep scores what it sweeps
    found, path = evaluate(settings)
    if sweeping:
        row = {"overrides": overrides, "films": found["films"], "weights": found["weights"], **found["results"][0]["scores"]}
        with open(Path(HydraConfig.get().sweep.dir) / JOBS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return
    print(describe(found))
    print(f"\nIn full: {path}\nFilms one by one: {path.with_suffix('.csv')}")
    _track(settings, found, path)


def evaluate(settings: Evaluate) -> tuple[dict[str, Any], Path]:
    """Score the runs of ``settings``; returns what was found and the JSON file it was written to. Raises PneumoError."""
    from pneumo import predict  # torch takes seconds, and help needs none

    parts = predict.gather(settings)
    folders = runs.find(settings.run)
    records = [runs.read_record(folder) for folder in folders]
    rule = declared_rule(settings, records)
    results = judge(parts, rule, settings.tta, settings.tune, settings.seed)
    if settings.on == "val" and any(record["config"]["handoff"]["source"] == Source.best.name for record in records):
        for result in results:
            result.how += "; the weights themselves were chosen on these films (handoff.source=best)"
    patients = results[0].outcomes.patients
    found: dict[str, Any] = {
        "runs": [part.contents["run"] for part in parts],
        "weights": [part.contents["weights"] for part in parts],
        "on": settings.on,
        "data": records[0]["config"]["data"]["name"] if settings.on in ("val", "test") else "folder",
        "tta": settings.tta,
        "films": len(results[0].outcomes),
        "positives": int(results[0].outcomes.positive.sum()),
        "patients": len({name for name in patients if name}),
        "films_of_unknown_patient": sum(not name for name in patients),
        "left_out": sum(len(part.contents["left_out"]) for part in parts),
        # of a validation part, that of the training part it belongs to
        "seen_in_training": _total([part.contents["seen_in_training"] for part in parts]),
        "patients_in_training": _total([part.contents["patients_in_training"] for part in parts]),
        "results": [result.to_dict(settings.resamples, settings.seed) for result in results],
        "calibration": dataclasses.asdict(scores.calibration(joined(parts, settings.tta))),
        "commit": runs.commit(),
        "command": _command(settings, rule),
    }
    if settings.against is not None:
        if not settings.resamples:
            raise PneumoError("against needs resamples of at least 1, better 1000, for its interval and p")
        theirs = dataclasses.replace(settings, run=settings.against)
        their_rule = declared_rule(theirs, [runs.read_record(folder) for folder in runs.find(settings.against)])
        other = outcomes(predict.gather(theirs), their_rule, settings.tta)
        found["against"] = {"run": str(settings.against), **compare(results[0].outcomes, other, settings.resamples, settings.seed)}
    slug = files.digest([settings.tta, settings.tune.name, settings.seed, settings.resamples, str(settings.against), plain(rule)])[:8]
    folder = parts[0].folder if len(parts) == 1 else Path(settings.runs_dir) / "joined" / files.digest(found["runs"])[:12]
    path = folder / FOLDER / f"{'tta' if settings.tta else 'plain'}-{slug}.json"
    files.write_json(path, found)
    _write_films(path.with_suffix(".csv"), results)
    return found, path


def declared_rule(settings: Any, records: Sequence[dict[str, Any]]) -> Postprocess:
    """The rule that all these runs declare, under what is typed. Raises PneumoError if they declare different ones."""
    rules = [settings.postprocess.over(config.recorded(record["config"]).postprocess) for record in records]
    if any(rule != rules[0] for rule in rules):
        told = "; ".join(dict.fromkeys(rule_text(plain(rule)) for rule in rules))
        raise PneumoError(f"these runs declare different thresholds ({told}): type the ones to use, postprocess.binarization_threshold=…")
    return rules[0]


def _total(counts: Sequence[int | None]) -> int | None:
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)


def _command(settings: Evaluate, rule: Postprocess) -> str:
    """The command that gives the same again."""
    from pneumo.predict import asked_for

    more = {"tta": settings.tta, "tune": settings.tune.name, "resamples": settings.resamples, "seed": settings.seed}
    chosen = {f"postprocess.{key}": value for key, value in plain(rule).items() if getattr(settings.postprocess, key) is not None}
    against = {} if settings.against is None else {"against": settings.against}
    asked = [f"{key}={value}" for key, value in {**asked_for(settings), **more, **chosen, **against}.items()]
    return shlex.join(["python", "-m", "pneumo.evaluate", *asked])


def _write_films(path: Path, results: Sequence[Result]) -> None:
    with files.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["result", "id", "patient", "view", "truth_px", "predicted_px", "overlap_px", "score", "dice", "iou"])
        for result in results:
            o = result.outcomes
            columns = (o.ids, o.patients, o.views, o.truth, o.predicted, o.overlap, o.score.round(4), o.dice.round(6), o.iou.round(6))
            writer.writerows([result.name, *row] for row in zip(*columns, strict=True))


def describe(found: dict[str, Any]) -> str:
    """Everything a reader must know of an evaluation, as text."""
    unknown = found["films_of_unknown_patient"]
    who = f"{found['patients']:,} patients" + (f" and {unknown:,} films of unknown patient" if unknown else "")
    lines = [
        f"{', '.join(found['runs'])} on {found['on']}, {'flip TTA' if found['tta'] else 'no TTA'}: "
        f"{found['films']:,} films, {found['positives']:,} positive, {who}"
    ]
    lines += warnings_of(found)
    for result in found["results"]:
        lines.append(f"\n{result['name']} ({result['how']})")
        lines += [f"  {rule_text(rule)}" for rule in result["rules"]]
        for name in (*SHOWN[:3], "iou_stepped", "iou_mean_precision", *SHOWN[3:]):
            lines.append(f"  {name:<19}{_value_text(result, name)}")
        for name, group in result["groups"].items():
            key = "dice_positive" if name.startswith("size") else "dice"
            lines.append(f"  {name:<19}{_value_text(group, key)}  ({group['films']:,} films)")
    lines.append(f"\nCalibration error of a pixel's probability (ECE): {found['calibration']['ece']:.4f}")
    for name, gap in found.get("against", {}).items():
        if name != "run" and gap["mean"] is not None:
            spread = f"[{gap['low']:+.4f}, {gap['high']:+.4f}], p = {gap['p']:.3f}"
            lines.append(f"minus {found['against']['run']}, {name}: {gap['mean']:+.4f} {spread}")
    if found["results"][0]["intervals"]:
        by = "patient" if not unknown else "patient where known, else by film"
        lines.append(f"Brackets: 95 % intervals, bootstrap by {by}. Dice at 1024², both empty = 1; size groups: Dice of their films.")
    return "\n".join(lines)


def warnings_of(found: dict[str, Any]) -> list[str]:
    """What makes the scores of an evaluation worth less than they seem."""
    lines = []
    if found["seen_in_training"]:
        lines.append(f"WARNING: {found['seen_in_training']:,} of these films were in the training data of these weights")
    elif found["seen_in_training"] is None:
        lines.append("WARNING: whether these films were in the training data of these weights is not known")
    if found["patients_in_training"]:
        lines.append(
            f"WARNING: {found['patients_in_training']:,} of these films are of patients whose other films were in the training data"
        )
    if found["left_out"]:
        lines.append(f"WARNING: {found['left_out']:,} films that belong to this set are not here or cannot be read")
    return lines


def _value_text(scored: dict[str, Any], name: str) -> str:
    value, bounds = scored["scores"][name], scored["intervals"].get(name)
    spread = f"  [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds and name != "all_empty_dice" else ""
    return "–" if value is None else f"{value:.4f}{spread}"


def _track(settings: Evaluate, found: dict[str, Any], path: Path) -> None:
    """Scores, groups and calibration to Weights & Biases, without paths of this machine."""
    rows = [
        [result["name"], group, name, value, *result_or_group["intervals"].get(name, (None, None))]
        for result in found["results"]
        for group, result_or_group in [("all", result), *result["groups"].items()]
        for name, value in result_or_group["scores"].items()
    ]
    about = {key: found[key] for key in ("weights", "data", "tta", "films", "positives", "commit", "left_out", "seen_in_training")}
    calibration = found["calibration"]
    tracking.record(
        settings.log,
        path.parents[1],
        name="-".join(Path(found["runs"][0]).parts[-3:]) + ("-tta" if found["tta"] else ""),
        job_type="evaluate",
        group="evaluate",
        config={**about, "rules": {result["name"]: result["rules"] for result in found["results"]}},
        summary={f"{result['name']}/{key}": value for result in found["results"] for key, value in result["scores"].items()},
        tables={
            "scores": (["thresholds", "films", "score", "value", "low", "high"], rows),
            "calibration": (
                ["probability", "share", "pixels"],
                [list(row) for row in zip(calibration["probability"], calibration["share"], calibration["pixels"], strict=True)],
            ),
        },
    )


class SweepTable(Callback):
    """Hydra's callback that ends a sweep with a table and a plot of its jobs, also in Weights & Biases."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table, write ``sweep.csv`` and ``sweep.html``."""
        folder = Path(config.hydra.sweep.dir)
        if not (folder / JOBS).is_file():
            return
        rows = [json.loads(line) for line in (folder / JOBS).read_text(encoding="utf-8").splitlines()]
        swept = _swept([row["overrides"] for row in rows])
        print("\n" + sweep_table(rows, swept))
        table = [[*(_value(row["overrides"], key) for key in swept), *(row[name] for name in SHOWN)] for row in rows]
        with files.replacing(folder / "sweep.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([[*swept, *SHOWN, "note"], *([*row, SWEPT] for row in table)])
        figure = sweep_figure(rows, swept)
        files.write_text(folder / "sweep.html", figure.to_html(include_plotlyjs=True, config={"responsive": True}))
        print(f"\nTable: {folder / 'sweep.csv'}\nPlot:  {folder / 'sweep.html'}", flush=True)
        tracking.record(
            _log(config),
            folder,
            name=f"sweep of {', '.join(swept)}",
            job_type="sweep",
            group="evaluate",
            config={"weights": sorted({hash for row in rows for hash in row["weights"]}), "films": rows[0]["films"], "note": SWEPT},
            tables={"sweep": ([*swept, *SHOWN], table)},
            figures={"plot": figure},
        )


def _log(raw: DictConfig) -> config.Log:
    typed = config.typed(raw.log)
    assert isinstance(typed, config.Log)
    return typed


def _value(overrides: list[str], key: str) -> str:
    return next((one.partition("=")[2] for one in overrides if one.partition("=")[0].lstrip("+") == key), "")


def _swept(jobs: list[list[str]]) -> list[str]:
    """The keys whose values differ between jobs; of a single job, all of them."""
    keys = list(dict.fromkeys(one.partition("=")[0].lstrip("+") for job in jobs for one in job))
    return [key for key in keys if len({_value(job, key) for job in jobs}) > 1] or keys


def sweep_table(rows: list[dict[str, Any]], swept: list[str]) -> str:
    """One line a job: what was swept, and the scores."""
    heads = [key.rpartition(".")[2] for key in swept]
    values = [[_value(row["overrides"], key) for key in swept] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *values, strict=True)]
    names = ("Dice", "positives", "IoU", "sensit.", "specif.", "ROC AUC", "PR AUC", "all-empty")
    lines = ["  ".join([*(f"{head:>{w}}" for head, w in zip(heads, widths, strict=True)), *(f"{name:>9}" for name in names)])]
    for row, cells in zip(rows, values, strict=True):
        found = ("        –" if row[name] is None else f"{row[name]:>9.4f}" for name in SHOWN)
        lines.append("  ".join([*(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)), *found]))
    lines.append(SWEPT)
    return "\n".join(lines)


def sweep_figure(rows: list[dict[str, Any]], swept: list[str]) -> Any:
    """The scores over what was swept."""
    import plotly.graph_objects as go  # a second of import

    names = {"dice": "Dice", "dice_positive": "Dice on positives", "iou": "IoU", "sensitivity": "sensitivity", "specificity": "specificity"}
    at = [", ".join(_value(row["overrides"], key) for key in swept) for row in rows]
    figure = go.Figure([go.Scatter(x=at, y=[row[key] for row in rows], name=name, mode="lines+markers") for key, name in names.items()])
    empty = rows[0]["all_empty_dice"]
    figure.add_hline(y=empty, line_dash="dot", annotation_text=f"empty masks alone: Dice {empty:.3f}")
    return figure.update_layout(
        title={"text": SWEPT, "font": {"size": 12}},
        template="plotly_white",
        xaxis_title=", ".join(swept),
        xaxis_type="category",
        yaxis_range=[0, 1],
        yaxis_title="score",
    )


if __name__ == "__main__":
    sys.argv[0] = "pneumo.evaluate"
    command.run(task, "evaluate", "judging")
