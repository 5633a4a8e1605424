"""Finished runs → scores with intervals, groups and warnings, from their probability maps."""

import csv
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pneumo import files, runs, tracking
from pneumo.errors import PneumoError
from pneumo.evaluation import blend, scores
from pneumo.evaluation.choosing import Result, compare, joined, judge, outcomes
from pneumo.evaluation.settings import Evaluate
from pneumo.masks.rule import plain, rule_text
from pneumo.masks.scores import LABELS
from pneumo.masks.settings import Postprocess
from pneumo.training import record
from pneumo.training.record import Record
from pneumo.training.settings import Source

FOLDER = "evaluations"  # beside the maps
FILMS = (
    *("result", "id", "patient", "view", "truth_px", "predicted_px", "overlap_px"),
    *("score", "dice", "iou"),
)


def evaluate(settings: Evaluate) -> tuple[dict[str, Any], Path]:
    """Score the runs of ``settings``; returns what was found and the JSON file it was written to.

    Raises PneumoError.
    """
    parts = blend.gather(settings)
    folders = blend.folders_of(settings)
    records = [record.read(folder) for folder in folders]
    rule = declared_rule(settings, records)
    results = judge(parts, rule, settings.tta, settings.tune, settings.seed)
    sources = {about.config.handoff.source for about in records}
    if settings.on == "val" and Source.best in sources:
        for result in results:
            result.how += (
                "; the weights themselves were chosen on these films (handoff.source=best)"
            )
    patients = results[0].outcomes.patients
    found: dict[str, Any] = {
        "runs": [part.contents["run"] for part in parts],
        "weights": [part.contents["weights"] for part in parts],
        "on": settings.on,
        "data": records[0].config.data.name if settings.on in ("val", "test") else "folder",
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
            raise PneumoError(
                "against needs resamples of at least 1, better 1000, for its interval and p"
            )
        theirs = dataclasses.replace(settings, run=settings.against, system=None)
        their_rule = declared_rule(
            theirs, [record.read(folder) for folder in blend.folders_of(theirs)]
        )
        other = outcomes(blend.gather(theirs), their_rule, settings.tta)
        found["against"] = {
            "run": str(settings.against),
            **compare(results[0].outcomes, other, settings.resamples, settings.seed),
        }
    how = [settings.tta, settings.tune.name, settings.seed, settings.resamples]
    slug = files.digest([*how, str(settings.against), plain(rule)])[:8]
    folder = parts[0].folder
    if len(parts) > 1:
        folder = Path(settings.runs_dir) / "joined" / files.digest(found["runs"])[:12]
    path = folder / FOLDER / f"{'tta' if settings.tta else 'plain'}-{slug}.json"
    files.write_json(path, found)
    _write_films(path.with_suffix(".csv"), results)
    return found, path


def declared_rule(settings: Any, records: Sequence[Record]) -> Postprocess:
    """The rule that all these runs declare, under what is typed.

    Raises PneumoError if they declare different ones.
    """
    rules = [settings.postprocess.over(about.config.postprocess) for about in records]
    if any(rule != rules[0] for rule in rules):
        told = "; ".join(dict.fromkeys(rule_text(plain(rule)) for rule in rules))
        raise PneumoError(
            f"these runs declare different thresholds ({told}): type the ones to use, "
            "postprocess.binarization_threshold=…"
        )
    return rules[0]


def _total(counts: Sequence[int | None]) -> int | None:
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)


def _command(settings: Evaluate, rule: Postprocess) -> str:
    """The command that gives the same again."""
    more = {
        "tta": settings.tta,
        "tune": settings.tune.name,
        "resamples": settings.resamples,
        "seed": settings.seed,
    }
    chosen = {
        f"postprocess.{key}": value
        for key, value in plain(rule).items()
        if getattr(settings.postprocess, key) is not None
    }
    against = {} if settings.against is None else {"against": settings.against}
    asked = [
        f"{key}={value}"
        for key, value in {**blend.asked_for(settings), **more, **chosen, **against}.items()
    ]
    return shlex.join(["python", "-m", "pneumo.evaluate", *asked])


def _write_films(path: Path, results: Sequence[Result]) -> None:
    with (
        files.replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(FILMS)
        for result in results:
            o = result.outcomes
            columns = (
                o.ids,
                o.patients,
                o.views,
                o.truth,
                o.predicted,
                o.overlap,
                o.score.round(4),
                o.dice.round(6),
                o.iou.round(6),
            )
            writer.writerows([result.name, *row] for row in zip(*columns, strict=True))


def describe(found: dict[str, Any]) -> str:
    """Everything a reader must know of an evaluation, as text."""
    unknown = found["films_of_unknown_patient"]
    who = f"{found['patients']:,} patients"
    if unknown:
        who += f" and {unknown:,} films of unknown patient"
    lines = [
        f"{', '.join(found['runs'])} on {found['on']}, {'flip TTA' if found['tta'] else 'no TTA'}: "
        f"{found['films']:,} films, {found['positives']:,} positive, {who}"
    ]
    lines += warnings_of(found)
    for result in found["results"]:
        lines.append(f"\n{result['name']} ({result['how']})")
        lines += [f"  {rule_text(rule)}" for rule in result["rules"]]
        for name in LABELS:
            lines.append(f"  {name:<19}{_value_text(result, name)}")
        for name, group in result["groups"].items():
            key = "dice_positive" if name.startswith("size") else "dice"
            lines.append(f"  {name:<19}{_value_text(group, key)}  ({group['films']:,} films)")
    lines.append(
        f"\nCalibration error of a pixel's probability (ECE): {found['calibration']['ece']:.4f}"
    )
    for name, gap in found.get("against", {}).items():
        if name != "run" and gap["mean"] is not None:
            spread = f"[{gap['low']:+.4f}, {gap['high']:+.4f}], p = {gap['p']:.3f}"
            lines.append(f"minus {found['against']['run']}, {name}: {gap['mean']:+.4f} {spread}")
    if found["results"][0]["intervals"]:
        by = "patient" if not unknown else "patient where known, else by film"
        lines.append(
            f"Brackets: 95 % intervals, bootstrap by {by}. Dice at 1024², both empty = 1; size "
            "groups: Dice of their films."
        )
    return "\n".join(lines)


def warnings_of(found: dict[str, Any]) -> list[str]:
    """What makes the scores of an evaluation worth less than they seem."""
    lines = []
    if found["seen_in_training"]:
        lines.append(
            f"WARNING: {found['seen_in_training']:,} of these films were in the training data "
            "of these weights"
        )
    elif found["seen_in_training"] is None:
        lines.append(
            "WARNING: whether these films were in the training data of these weights is not known"
        )
    if found["patients_in_training"]:
        lines.append(
            f"WARNING: {found['patients_in_training']:,} of these films are of patients whose "
            "other films were in the training data"
        )
    if found["left_out"]:
        lines.append(
            f"WARNING: {found['left_out']:,} films that belong to this set are not here or "
            "cannot be read"
        )
    return lines


def _value_text(scored: dict[str, Any], name: str) -> str:
    value, bounds = scored["scores"][name], scored["intervals"].get(name)
    spread = f"  [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
    return "–" if value is None else f"{value:.4f}{spread}"


def track(settings: Evaluate, found: dict[str, Any], path: Path) -> None:
    """Scores, groups and calibration to Weights & Biases, without paths of this machine."""
    rows = [
        [result["name"], group, name, value, *result_or_group["intervals"].get(name, (None, None))]
        for result in found["results"]
        for group, result_or_group in [("all", result), *result["groups"].items()]
        for name, value in result_or_group["scores"].items()
    ]
    told = ("weights", "data", "tta", "films", "positives", "commit", "left_out")
    about = {key: found[key] for key in (*told, "seen_in_training")}
    calibration = found["calibration"]
    columns = ("probability", "share", "pixels")
    bins = zip(*(calibration[column] for column in columns), strict=True)
    tracking.record(
        settings.log,
        path.parents[1],
        name="-".join(Path(found["runs"][0]).parts[-3:]) + ("-tta" if found["tta"] else ""),
        job_type="evaluate",
        group="evaluate",
        config={**about, "rules": {result["name"]: result["rules"] for result in found["results"]}},
        summary={
            f"{result['name']}/{key}": value
            for result in found["results"]
            for key, value in result["scores"].items()
        },
        tables={
            "scores": (["thresholds", "films", "score", "value", "low", "high"], rows),
            "calibration": (columns, list(bins)),
        },
    )
