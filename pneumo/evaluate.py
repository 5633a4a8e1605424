"""``python -m pneumo.evaluate run=…``: scores of finished runs from their probability maps, with thresholds chosen honestly."""

import csv
import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from pneumo import command, config, files, folds, postprocess, runs, scores, thresholds, tracking
from pneumo.config import Evaluate, Postprocess, Removal, Split, SplitKind, Tune
from pneumo.errors import PneumoError
from pneumo.predictions import JUDGED, Predictions
from pneumo.scores import Outcomes

FOLDER = "evaluations"  # beside the maps
COARSE = tuple(round(0.05 * i, 2) for i in range(1, 20))  # thresholds tried where each costs more than a table look-up
JOBS = "jobs.jsonl"
SHOWN = ("dice", "dice_positive", "iou", "sensitivity", "specificity", "roc_auc", "pr_auc", "all_empty_dice")
OPTIMISTIC = "OPTIMISTIC: thresholds chosen on the films they are scored on"


@dataclass
class Result:
    """Scores of one set of films under thresholds that were declared beforehand, or chosen in a way that ``how`` tells."""

    name: str
    how: str
    rules: list[Postprocess]
    outcomes: Outcomes

    def to_dict(self, resamples: int, seed: int) -> dict[str, Any]:
        """Plain values: rules, scores, 95 % intervals, scores by group."""
        spread = scores.intervals(self.outcomes, resamples, seed) if resamples else {}
        return {
            "name": self.name,
            "how": self.how,
            "rules": [_plain(rule) for rule in self.rules],
            "scores": _numbers(scores.summary(self.outcomes)),
            "intervals": {name: list(bounds) for name, bounds in spread.items()},
            "groups": {
                name: {"films": len(rows), **_numbers(scores.summary(self.outcomes[rows]))}
                for name, rows in scores.groups(self.outcomes).items()
            },
        }


def task(raw: DictConfig) -> None:
    """One Hydra job: a single evaluation, or one of a sweep."""
    settings = config.typed(raw)
    sweeping = HydraConfig.get().mode is RunMode.MULTIRUN
    if sweeping and settings.tune is not Tune.none:
        settings = dataclasses.replace(settings, tune=Tune.none)  # a sweep scores what it sweeps
    found, path = evaluate(settings)
    if sweeping:
        row = {"overrides": list(HydraConfig.get().overrides.task), "path": str(path), **found["results"][0]["scores"]}
        with open(Path(HydraConfig.get().sweep.dir) / JOBS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return
    print(describe(found))
    print(f"\nIn full: {path}\nFilms one by one: {path.with_suffix('.csv')}")
    run = tracking.start(settings.log, path.parent, name=_title(found), job_type="evaluate", group="evaluate", config=_shareable(found))
    if run is not None:
        for result in found["results"]:
            run.summary.update({f"{result['name']}/{key}": value for key, value in result["scores"].items()})
        run.finish()


def evaluate(settings: Evaluate) -> tuple[dict[str, Any], Path]:
    """Score the runs of ``settings``; returns what was found and the JSON file it was written to. Raises PneumoError."""
    from pneumo import predict  # torch takes seconds, and help needs none

    parts = predict.gather(settings)
    record = runs.read_record(runs.find(settings.run)[0])
    rule = settings.postprocess.over(config.recorded(record["config"]).postprocess)
    results = judge(parts, rule, settings.tta, settings.tune, settings.seed)
    histograms = joined(parts, settings.tta)
    found: dict[str, Any] = {
        "runs": [part.contents["run"] for part in parts],
        "weights": [part.contents["weights"] for part in parts],
        "on": parts[0].contents["on"],
        "data": record["config"]["data"]["name"],
        "tta": settings.tta,
        "films": len(results[0].outcomes),
        "positives": int(results[0].outcomes.positive.sum()),
        "patients": len({name for name in results[0].outcomes.patients if name}) or None,
        "seen_in_training": sum(part.contents["seen_in_training"] for part in parts),
        "validation_positives_sharing_a_patient": record["data"]["validation_positives_sharing_a_patient"],
        "results": [result.to_dict(settings.resamples, settings.seed) for result in results],
        "calibration": dataclasses.asdict(scores.calibration(histograms)),
        "commit": runs.commit(),
        "command": shlex.join(["python", "-m", "pneumo.evaluate", *sys.argv[1:]]),
    }
    if settings.against is not None:
        other = predict.gather(dataclasses.replace(settings, run=settings.against))
        theirs = runs.read_record(runs.find(settings.against)[0])
        their_rule = settings.postprocess.over(config.recorded(theirs["config"]).postprocess)
        found["against"] = _compare(results[0].outcomes, outcomes(other, their_rule, settings.tta), settings)
    slug = files.digest([settings.tta, settings.tune.name, settings.seed, settings.resamples, str(settings.against), _plain(rule)])[:8]
    folder = parts[0].folder if len(parts) == 1 else Path(settings.runs_dir) / "joined" / files.digest(found["runs"])[:12]
    path = folder / FOLDER / f"{'tta' if settings.tta else 'plain'}-{slug}.json"
    files.write_json(path, found)
    _write_films(path.with_suffix(".csv"), results)
    return found, path


def judge(parts: Sequence[Predictions], rule: Postprocess, tta: bool, tune: Tune = Tune.none, seed: int = 0) -> list[Result]:
    """The result under the declared rule and, if asked for, under thresholds chosen on other films than they are scored on.

    For the folds of a cross-validation each fold is scored with thresholds chosen on all others; a single part is halved by
    patient, and each half scored with the other's. ``Tune.optimistic`` adds the choice on the very same films, marked. Where
    thresholds cannot be chosen, that is said and left out. Raises PneumoError where the truth of a film is unknown.
    """
    results = [Result("declared", "thresholds declared beforehand", [rule], outcomes(parts, rule, tta))]
    if tune is Tune.none:
        return results
    if rule.contour_area or rule.fill_holes:
        print("No thresholds were chosen from these films: they are not chosen together with contours and holes")
        return results
    everything = results[0].outcomes
    try:
        group, how = _groups(parts, everything, seed)
    except PneumoError:
        print(f"No thresholds were chosen from these films: {len(everything)} cannot be halved by patient so that both halves have some")
        return results
    chosen, scored = [], []
    for number in range(int(group.max()) + 1):
        chosen.append(search(parts, np.flatnonzero(group != number), rule, tta))
        scored.append(np.flatnonzero(group == number))
    picked = [outcomes(parts, one, tta)[rows] for one, rows in zip(chosen, scored, strict=True)]
    results.append(Result("tuned", how, chosen, Outcomes.join(picked)))
    if tune is Tune.optimistic:
        one = search(parts, np.arange(len(everything)), rule, tta)
        results.append(Result("optimistic", OPTIMISTIC, [one], outcomes(parts, one, tta)))
    return results


def _groups(parts: Sequence[Predictions], everything: Outcomes, seed: int) -> tuple[np.ndarray, str]:
    """Which films are scored together: the folds, or two halves by patient."""
    if len(parts) > 1:
        return np.repeat(np.arange(len(parts)), [len(part) for part in parts]), "out of fold: chosen on the other folds"
    half = Split(kind=SplitKind.kfold, folds=2)
    second = folds.divide(everything.positive.tolist(), everything.patients, half, 0, seed).validation
    by = "patient" if any(everything.patients) else "film"
    return np.isin(np.arange(len(everything)), second).astype(np.int64), f"nested halves by {by}: chosen on one half, scored on the other"


def outcomes(parts: Sequence[Predictions], rule: Postprocess, tta: bool) -> Outcomes:
    """Results of every film of the parts under a rule, at 1024². Raises PneumoError where the truth is unknown."""
    histograms = joined(parts, tta)
    area = postprocess.removal_pixels(rule, (JUDGED, JUDGED))
    cases = [case for part in parts for case in part.cases]
    if rule.removal is Removal.total and not rule.contour_area and not rule.fill_holes:
        counted = histograms.predicted([rule.top_threshold or rule.binarization_threshold])[:, 0]
        kept = counted >= area
        predicted = np.where(kept, histograms.predicted([rule.binarization_threshold])[:, 0], 0)
        overlap = np.where(kept, histograms.overlap([rule.binarization_threshold])[:, 0], 0)
    else:
        pairs = []
        for part in parts:
            for row, case in enumerate(part.cases):
                mask = postprocess.to_mask(part.map(row, tta), rule)
                pairs.append((int(mask.sum()), int((mask & case.mask()).sum())))
        predicted, overlap = np.array(pairs, np.int64).reshape(-1, 2).T
    return Outcomes(
        [case.id for case in cases],
        predicted.astype(np.int64),
        histograms.truth.astype(np.int64),
        overlap.astype(np.int64),
        histograms.score(area),
        [case.patient for case in cases],
        [case.view for case in cases],
    )


def joined(parts: Sequence[Predictions], tta: bool) -> thresholds.Histograms:
    """The histograms of all parts, one after the other. Raises PneumoError where the truth is unknown."""
    for part in parts:
        if not part.labelled:
            raise PneumoError(f"{part.folder}: the truth of these films is not known; give their table with annotations=<file.csv>")
    tables = [part.histograms(tta) for part in parts]
    return thresholds.Histograms(np.concatenate([t.total for t in tables]), np.concatenate([t.inside for t in tables]))


def search(parts: Sequence[Predictions], rows: np.ndarray, rule: Postprocess, tta: bool) -> Postprocess:
    """The thresholds with the best mean Dice on these rows: B-TH and R-TH, or the triplet if ``rule`` has a top threshold."""
    histograms = joined(parts, tta)[rows]
    if rule.top_threshold is not None:
        table = thresholds.triplets(histograms, COARSE, thresholds.AREAS, COARSE)["dice"]
        table[np.array(COARSE)[:, None] < np.array(COARSE)] = np.nan  # a top below the bottom
        top, bottom, area = thresholds.best(table)
        return _at(rule, COARSE[bottom], thresholds.AREAS[area], COARSE[top])
    if rule.removal is Removal.component:
        cases = [(part, row) for part in parts for row in range(len(part))]
        found = []
        for film, place in enumerate(rows.tolist()):
            part, row = cases[place]
            found.append(thresholds.components(part.map(row, tta), part.cases[row].mask(), film, COARSE))
        table = thresholds.component_surface(found, histograms.truth, COARSE, thresholds.AREAS)["dice"]
        threshold, area = thresholds.best(table)
        return _at(rule, COARSE[threshold], thresholds.AREAS[area])
    threshold, area = thresholds.best(thresholds.surface(histograms)["dice"])
    return _at(rule, thresholds.THRESHOLDS[threshold], thresholds.AREAS[area])


def _at(rule: Postprocess, threshold: float, area: int, top: float | None = None) -> Postprocess:
    return dataclasses.replace(rule, binarization_threshold=threshold, removal_threshold=area, removal_size=JUDGED, top_threshold=top)


def _compare(ours: Outcomes, theirs: Outcomes, settings: Evaluate) -> dict[str, Any]:
    place = {image: row for row, image in enumerate(theirs.ids)}
    if set(place) != set(ours.ids):
        raise PneumoError(f"against={settings.against}: was not judged on the same films, so the two cannot be compared film by film")
    aligned = theirs[np.array([place[image] for image in ours.ids])]
    gaps = scores.paired(ours, aligned, max(settings.resamples, 1), settings.seed)
    return {"run": str(settings.against), **{name: dataclasses.asdict(gap) for name, gap in gaps.items()}}


def _plain(rule: Postprocess) -> dict[str, Any]:
    return {**dataclasses.asdict(rule), "removal": rule.removal.name}


def _numbers(values: dict[str, np.ndarray]) -> dict[str, float | None]:
    """NaN is no JSON."""
    return {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in values.items()}


def _shareable(found: dict[str, Any]) -> dict[str, Any]:
    """Without paths of this machine, for Weights & Biases."""
    return {key: value for key, value in found.items() if key not in ("runs", "command")}


def _write_films(path: Path, results: Sequence[Result]) -> None:
    with files.replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["result", "id", "patient", "view", "truth_px", "predicted_px", "overlap_px", "score", "dice", "iou"])
        for result in results:
            o = result.outcomes
            columns = (o.ids, o.patients, o.views, o.truth, o.predicted, o.overlap, o.score.round(4), o.dice.round(6), o.iou.round(6))
            writer.writerows([result.name, *row] for row in zip(*columns, strict=True))


def rule_text(rule: dict[str, Any]) -> str:
    """A rule in a few words."""
    top = f", counted above {rule['top_threshold']:g}" if rule["top_threshold"] is not None else ""
    each = "each component" if rule["removal"] == "component" else "total"
    more = f", outlines above {rule['contour_area']:g} px" if rule["contour_area"] else ""
    return (
        f"B-TH {rule['binarization_threshold']:g}, R-TH {rule['removal_threshold']:,} px at {rule['removal_size']}² ({each}{top})"
        f"{more}{', holes filled' if rule['fill_holes'] else ''}"
    )


def _title(found: dict[str, Any]) -> str:
    name = "-".join(Path(found["runs"][0]).parts[-3:])
    return f"{name}-{found['on'] if found['on'] in ('val', 'test') else 'folder'}-{'tta' if found['tta'] else 'plain'}"


def describe(found: dict[str, Any]) -> str:
    """Everything a reader must know of an evaluation, as text."""
    who = f"{found['patients']:,} patients" if found["patients"] else "patients unknown"
    lines = [
        f"{', '.join(found['runs'])} on {found['on']}, {'flip TTA' if found['tta'] else 'no TTA'}: "
        f"{found['films']:,} films, {found['positives']:,} positive, {who}"
    ]
    if found["seen_in_training"]:
        lines.append(f"WARNING: {found['seen_in_training']:,} of these films were in the training data of these weights")
    for result in found["results"]:
        lines.append(f"\n{result['name']} ({result['how']})")
        lines += [f"  {rule_text(rule)}" for rule in result["rules"]]
        for name in (*SHOWN[:3], "iou_stepped", "iou_mean_precision", *SHOWN[3:]):
            value, bounds = result["scores"][name], result["intervals"].get(name)
            spread = f"  [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds and name != "all_empty_dice" else ""
            lines.append(f"  {name:<19}{'–' if value is None else f'{value:.4f}'}{spread}")
        for name, group in result["groups"].items():
            dice = group["dice"] if group["dice_positive"] is None or name.startswith("view") else group["dice_positive"]
            lines.append(f"  {name:<19}{dice:.4f}  ({group['films']:,} films)")
    lines.append(f"\nCalibration error of a pixel's probability (ECE): {found['calibration']['ece']:.4f}")
    for name, gap in found.get("against", {}).items():
        if name != "run":
            lines.append(
                f"minus {found['against']['run']}, {name}: {gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}], p = {gap['p']:.3f}"
            )
    if found["results"][0]["intervals"]:
        by = "patient" if found["patients"] else "film"
        lines.append(f"Brackets: 95 % intervals, bootstrap by {by}. Dice at 1024², both empty = 1; size groups: mean Dice of their films.")
    return "\n".join(lines)


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
        with files.replacing(folder / "sweep.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*swept, *SHOWN])
            writer.writerows([*(_value(row["overrides"], key) for key in swept), *(row[name] for name in SHOWN)] for row in rows)
        figure = sweep_figure(rows, swept)
        files.write_text(folder / "sweep.html", figure.to_html(include_plotlyjs=True, config={"responsive": True}))
        print(f"\nTable: {folder / 'sweep.csv'}\nPlot:  {folder / 'sweep.html'}", flush=True)
        run = tracking.start(_log(config), folder, name=f"sweep of {', '.join(swept)}", job_type="sweep", group="evaluate")
        if run is not None:
            import wandb

            table = wandb.Table([*swept, *SHOWN])
            for row in rows:
                table.add_data(*(_value(row["overrides"], key) for key in swept), *(row[name] for name in SHOWN))
            run.log({"sweep": table, "plot": figure})
            run.finish()


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
    lines.append("To take the best line is to choose on the films that are scored; tune=honest of a single evaluation chooses on others.")
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
        template="plotly_white", xaxis_title=", ".join(swept), xaxis_type="category", yaxis_range=[0, 1], yaxis_title="score"
    )


if __name__ == "__main__":
    sys.argv[0] = "pneumo.evaluate"
    command.run(task, "evaluate")
