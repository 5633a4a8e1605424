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
from pneumo.evaluation.results import Comparison, Evaluation, Scored, known
from pneumo.evaluation.settings import Evaluate
from pneumo.masks.rule import ABBREVIATIONS, plain, rule_text
from pneumo.masks.scores import LABELS, number
from pneumo.masks.settings import Postprocess
from pneumo.training import record
from pneumo.training.record import Record
from pneumo.training.settings import Source

FOLDER = "evaluations"  # beside the maps
FILMS = (
    *("result", "id", "patient", "view", "truth_px", "predicted_px", "overlap_px"),
    *("score", "dice", "iou"),
)


def evaluate(settings: Evaluate) -> tuple[Evaluation, Path]:
    """Score the runs of ``settings``; returns what was found and the JSON file it was written to.

    Raises PneumoError.
    """
    parts = blend.gather(settings)
    records = [record.read(folder) for folder in blend.folders_of(settings)]
    rule = declared_rule(settings, records)
    results = judge(parts, rule, settings.tta, settings.tune, settings.seed)
    sources = {about.config.handoff.source for about in records}
    if settings.on == "val" and Source.best in sources:
        for result in results:
            result.how += (
                "; the weights themselves were chosen on these films (handoff.source=best)"
            )
    everything = results[0].outcomes
    found = Evaluation(
        runs=[part.contents["run"] for part in parts],
        weights=[part.contents["weights"] for part in parts],
        sizes=[part.contents["size"] for part in parts],
        on=settings.on,
        data=records[0].config.data.name if settings.on in ("val", "test") else "folder",
        tta=settings.tta,
        films=len(everything),
        positives=int(everything.positive.sum()),
        patients=len({name for name in everything.patients if name}),
        films_of_unknown_patient=sum(not name for name in everything.patients),
        left_out=sum(len(part.contents["left_out"]) for part in parts),
        seen_in_training=_total([part.contents["seen_in_training"] for part in parts]),
        patients_in_training=_total([part.contents["patients_in_training"] for part in parts]),
        results=[result.judgement(settings.resamples, settings.seed) for result in results],
        calibration=scores.calibration(joined(parts, settings.tta)),
        commit=runs.commit(),
        command=_command(settings, rule),
    )
    if settings.against is not None:
        if not settings.resamples:
            raise PneumoError(
                "against needs resamples of at least 1, better 1000, for its interval and p"
            )
        theirs = dataclasses.replace(settings, run=settings.against, system=None)
        their_records = [record.read(folder) for folder in blend.folders_of(theirs)]
        their_rule = declared_rule(theirs, their_records)
        other = outcomes(blend.gather(theirs), their_rule, settings.tta)
        differences = compare(everything, other, settings.resamples, settings.seed)
        found.against = Comparison(str(settings.against), differences)
    how = [settings.tta, settings.tune.name, settings.seed, settings.resamples]
    slug = files.digest([*how, str(settings.against), plain(rule)])[:8]
    folder = parts[0].folder
    if len(parts) > 1:
        folder = Path(settings.runs_dir) / "joined" / files.digest(found.runs)[:12]
    path = folder / FOLDER / f"{'tta' if settings.tta else 'plain'}-{slug}.json"
    files.write_json(path, found.to_dict())
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


def describe(found: Evaluation) -> str:
    """Everything a reader must know of an evaluation, as text."""
    unknown = found.films_of_unknown_patient
    who = f"{found.patients:,} patients"
    if unknown:
        who += f" and {unknown:,} films of unknown patient"
    tta = "flip TTA" if found.tta else "no TTA"
    sizes = " and ".join(f"{size}²" for size in dict.fromkeys(found.sizes))
    lines = [
        f"{', '.join(found.runs)} on {found.on} at {sizes}, {tta}: "
        f"{found.films:,} films, {found.positives:,} positive, {who}"
    ]
    lines += warnings_of(found)
    for result in found.results:
        lines.append(f"\n{result.name} ({result.how})")
        lines += [f"  {rule_text(plain(rule))}" for rule in result.rules]
        lines += [f"  {key:<19}{_value_text(result.all, key)}" for key in LABELS]
        for name, group in result.groups.items():
            key = "dice_positive" if name.startswith("size") else "dice"
            lines.append(f"  {name:<19}{_value_text(group, key)}  ({group.films:,} films)")
    lines.append(f"\n{ABBREVIATIONS}")
    if found.result("tuned") is not None:
        lines.append(
            "Which thresholds to use: the declared ones, unless those of `tuned` score better than "
            "its interval explains; python -m pneumo.export choose=tuned then chooses once, on all "
            "of these films, and states the score of `tuned`."
        )
    error = found.calibration.ece
    lines.append(f"\nCalibration error of a pixel's probability (ECE): {error:.4f}")
    if found.against is not None:
        for name, gap in found.against.differences.items():
            if known(gap.mean) is not None:
                spread = ""
                if known(gap.p) is not None:
                    spread = f" [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.3f}"
                lines.append(f"minus {found.against.run}, {name}: {gap.mean:+.4f}{spread}")
        lines.append(f"  ({scores.PAIRED})")
    if found.declared.all.intervals:
        by = "patient" if not unknown else "patient where known, else by film"
        lines.append(
            f"Brackets: 95 % intervals, bootstrap by {by}. Dice at 1024², both empty = 1; size "
            "groups: Dice of their films."
        )
    return "\n".join(lines)


def warnings_of(found: Evaluation) -> list[str]:
    """What makes the scores of an evaluation worth less than they seem."""
    lines = []
    if found.seen_in_training:
        lines.append(
            f"WARNING: {found.seen_in_training:,} of these films were in the training data of "
            "these weights"
        )
    elif found.seen_in_training is None:
        lines.append(
            "WARNING: whether these films were in the training data of these weights is not known"
        )
    if found.patients_in_training:
        lines.append(
            f"WARNING: {found.patients_in_training:,} of these films are of patients whose other "
            "films were in the training data"
        )
    if found.left_out:
        lines.append(
            f"WARNING: {found.left_out:,} films that belong to this set are not here or cannot "
            "be read"
        )
    return lines


def _value_text(scored: Scored, key: str) -> str:
    value, bounds = scored.scores[key], scored.intervals.get(key)
    return number(value) + (f"  [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else "")


def track(settings: Evaluate, found: Evaluation, path: Path) -> None:
    """Scores, groups and calibration to Weights & Biases, without paths of this machine."""
    rows = [
        [result.name, group, key, value, *scored.intervals.get(key, (None, None))]
        for result in found.results
        for group, scored in {"all": result.all, **result.groups}.items()
        for key, value in scored.scores.items()
    ]
    told = ("weights", "sizes", "data", "tta", "films", "positives", "commit", "left_out")
    about = {key: getattr(found, key) for key in (*told, "seen_in_training")}
    rules = {result.name: [plain(rule) for rule in result.rules] for result in found.results}
    columns = ("probability", "share", "pixels")
    bins = zip(*(getattr(found.calibration, column) for column in columns), strict=True)
    tracking.record(
        settings.log,
        path.parents[1],
        name="-".join(Path(found.runs[0]).parts[-3:]) + ("-tta" if found.tta else ""),
        job_type="evaluate",
        group="evaluate",
        config={**about, "rules": rules},
        summary={
            f"{result.name}/{key}": value
            for result in found.results
            for key, value in result.all.scores.items()
        },
        tables={
            "scores": (["thresholds", "films", "score", "value", "low", "high"], rows),
            "calibration": (columns, list(bins)),
        },
    )
