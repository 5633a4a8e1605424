"""Finished runs → scores with intervals and groups, from their probability maps."""

import csv
import dataclasses
import functools
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pneumo import files, runs, tracking
from pneumo.data.settings import OnError
from pneumo.errors import PneumoError
from pneumo.evaluation import (
    agreement,
    blend,
    calibration,
    external,
    methods,
    operating,
    opinions,
    scores,
    shapes,
)
from pneumo.evaluation.apart import apart
from pneumo.evaluation.choosing import Result, beforehand, compare, joined, judge, outcomes
from pneumo.evaluation.external import Judged
from pneumo.evaluation.members import Member, asked_for, members_of
from pneumo.evaluation.results import (
    Comparison,
    Evaluation,
    Point,
)
from pneumo.evaluation.settings import Evaluate, Measures, ReaderFiles, Tune
from pneumo.inference.findings import spacings
from pneumo.inference.maps import Predictions
from pneumo.inference.probability import Platt
from pneumo.masks.rule import plain, rule_text
from pneumo.masks.settings import Postprocess, Rule
from pneumo.masks.truth import Truth
from pneumo.tables import cell
from pneumo.training.record import Record
from pneumo.training.settings import Source, system_of

log = logging.getLogger(__name__)

FOLDER = "evaluations"  # beside the maps
STACKED_ON_THESE = "OPTIMISTIC: the stack was fitted on some of these films"
FILMS = (
    *("result", "id", "patient", "view", "truth_px", "predicted_px", "overlap_px"),
    *("score", "dice", "iou"),
    *("lesions_found", "lesions_false", "lesions_missed", "nsd_px", "hd95_px"),
    "pointed",
)


def evaluate(settings: Evaluate, measured: bool = True) -> tuple[Evaluation, Path]:
    """Score the runs of ``settings``; returns what was found and the JSON file it was written to.

    Lesions, boundaries and operating points only if ``measured``: they need a look at every mask.
    Raises PneumoError.
    """
    each = _compares_methods(settings)
    if each and settings.reader.given:
        raise PneumoError(
            "reader: readers stand beside one model; say how the runs become one with blend="
        )
    judged = external.of_bundle(settings) if settings.model is not None else _of_runs(settings)
    if settings.spacing:
        table = spacings(settings)
        judged.parts = [part.spaced(table) for part in judged.parts]
    results = _results(settings, judged, each)
    everything = results[0].outcomes
    if everything.known is not Truth.masks:
        _refuse_comparisons(settings, everything.known)
    found = _evaluation(settings, judged, results, each, measured)
    if settings.data is not None:
        found.internal = external.internal(judged, settings)
        if found.internal is not None:
            found.drops = external.drops(found.declared.all, found.internal)
    if settings.against is not None:
        ours = [everything]
        if each:
            ours = [outcomes([part], judged.rule, judged.tta) for part in judged.parts]
        found.against = _against(settings, ours)
    path = _place(settings, judged, found)
    if settings.reader.given:
        beside = path.with_suffix("").with_name(f"{path.stem}-readers")
        found.readers = _beside_readers(judged, settings, beside)
    files.write_json(path, found.to_dict())
    _write_films(path.with_suffix(".csv"), results)
    return found, path


def _results(settings: Evaluate, judged: Judged, each: bool) -> list[Result]:
    """What each choice of thresholds gives, the declared ones first; ``each``: of several fits."""
    parts, rule = judged.parts, judged.rule
    # of several fits on the same films, one's would be chosen on the films of the others
    tune = Tune.none if each else settings.tune
    if settings.data is not None and tune is Tune.honest:
        tune = Tune.none  # an external validation has the thresholds it came with
    results = judge(parts, rule, judged.tta, tune, settings.seed)
    if tune is Tune.validation:
        results.append(beforehand(parts, blend.on_validation(settings), rule, judged.tta))
    _explain(results, settings.on, judged.records)
    for result in results:
        if result.name == "tuned" and parts[0].contents.get("presence_by"):
            result.how += "; the presence scores it was chosen by are of stacks fitted on these too"
        if any(part.contents.get("optimistic") for part in parts):
            result.how = f"{STACKED_ON_THESE}; {result.how}"
    if each:  # a film of unknown patient is judged by every fit
        results[0].outcomes.patients = [
            case.patient or f"#{case.id}" for part in parts for case in part.cases
        ]
    return results


def _refuse_comparisons(settings: Evaluate, known: Truth) -> None:
    """Raise PneumoError if masks are to be compared of which none is known."""
    only = f"but of these films only {known.name} are known"
    if settings.against is not None:
        raise PneumoError(f"against: results are compared by Dice and IoU, {only}")
    if settings.reader.given:
        raise PneumoError(f"reader: readers are compared with masks, {only}")


def _evaluation(
    settings: Evaluate, judged: Judged, results: Sequence[Result], each: bool, measured: bool
) -> Evaluation:
    """Scores of ``results`` and all that one model's maps tell, without comparisons."""
    parts, everything, before = judged.parts, results[0].outcomes, judged.before
    cases = {case.id: case for part in parts for case in part.cases}
    resampled = (settings.resamples, settings.seed)
    measures = settings.measures
    as_test = functools.partial(
        operating.of_films,
        prevalence=measures.prevalence,
        count=settings.resamples,
        seed=settings.seed,
        chosen_on=before,
    )
    has_masks = everything.known is Truth.masks
    # films that were looked at beforehand could give none
    no_curve = each or (before is not None and judged.curve is None)
    lesions_at = _measure_shapes(parts, results, judged.tta, settings) if measured else []
    return Evaluation(
        runs=[part.contents["run"] for part in parts],
        weights=[part.contents["weights"] for part in parts],
        sizes=[part.contents["size"] for part in parts],
        on=settings.on,
        data=judged.data,
        tta=judged.tta,
        films=len(cases),
        positives=sum(bool(case.annotations) for case in cases.values()),
        patients=len({case.patient for case in cases.values() if case.patient}),
        films_of_unknown_patient=sum(not case.patient for case in cases.values()),
        left_out=sum(len(part.contents["left_out"]) for part in parts),
        excluded=sum(part.contents.get("excluded") or 0 for part in parts),
        seen_in_training=_total([part.contents["seen_in_training"] for part in parts]),
        patients_in_training=_total([part.contents["patients_in_training"] for part in parts]),
        results=[result.judgement(*resampled) for result in results],
        truth=everything.known,
        pixels=calibration.of_pixels(joined(parts, judged.tta)) if has_masks else None,
        operating=as_test(everything, measures.specificities),
        at_sensitivities=as_test(
            everything, measures.sensitivities, fixed=operating.Fixed.sensitivity
        ),
        by_size=operating.by_size(everything, measures, *resampled, before) if has_masks else [],
        froc=lesions_at if has_masks else [],
        film_calibration=(
            None if no_curve else film_calibration(parts, everything, *resampled, judged.curve)
        ),
        measures=dataclasses.asdict(measures),
        commit=runs.commit(),
        command=_command(settings, judged.rule),
        fits=len(parts) if each else 1,
    )


def _place(settings: Evaluate, judged: Judged, found: Evaluation) -> Path:
    """The JSON file of this evaluation: another one for other settings."""
    how = [judged.tta, settings.tune.name, settings.seed, settings.resamples, settings.spacing]
    how.append(dataclasses.asdict(settings.measures))
    if settings.reader.given:
        how.append({key: str(value) for key, value in vars(settings.reader).items()})
    slug = files.digest([*how, str(settings.against), plain(judged.rule)])[:8]
    folder = judged.parts[0].folder
    if len(judged.parts) > 1:
        folder = Path(settings.runs_dir) / "joined" / files.digest(found.runs)[:12]
    return folder / FOLDER / f"{'tta' if judged.tta else 'plain'}-{slug}.json"


def _of_runs(settings: Evaluate) -> Judged:
    """What runs, or their blend, say of the films, and what they knew beforehand."""
    parts = blend.one_by_one(settings) if _compares_methods(settings) else blend.gather(settings)
    members = members_of(settings)
    records = [member.record for member in members]
    rule = declared_rule(settings, members)
    if settings.data is not None:
        data = settings.data.name
    else:
        data = records[0].config.data.name if settings.on in ("val", "test") else "folder"
    judged = Judged(parts, rule, settings.tta, data, records)
    if settings.tune is Tune.validation or settings.data is not None:
        try:
            validation = blend.on_validation(settings)
        except PneumoError as error:
            if settings.tune is Tune.validation:
                raise
            log.warning("Without a comparison with their own validation films: %s", error)
            return judged
        judged.before = outcomes(validation, rule, settings.tta)
        curve = calibration.curve_of(judged.before)
        if curve is not None:
            judged.curve = curve, f"fitted on the {len(judged.before):,} validation films"
    return judged


def _beside_readers(judged: Judged, settings: Evaluate, folder: Path) -> list[opinions.Opinion]:
    """Second readers of the same films; where all disagree, tables and pictures in a folder."""
    asked, found = settings.reader, []
    own = [record.config.data.patients for record in judged.records]
    if settings.data is not None:
        own.append(settings.data.patients)
    names = opinions.names_of(asked, [settings.patients, *own])
    for reader in agreement.read(asked, names):
        how = (judged.parts, judged.rule, judged.tta, reader)
        try:
            one = opinions.judge(*how, asked, settings.resamples, settings.seed)
        except PneumoError as error:  # of other films, as those of another part may be
            log.warning("%s", error)
            continue
        if one.disagreed:
            place = folder / reader.name.lower().replace(" ", "-")
            opinions.write_disagreements(place, one, *how, asked.pictures)
        found.append(one)
    return found


def _compares_methods(settings: Evaluate) -> bool:
    """Whether several runs stand on both sides, and nothing says how they become one."""
    if settings.model is not None:
        return False
    if settings.against is None or settings.system is not None or settings.blend is not None:
        return False
    return min(len(runs.find(side)) for side in (settings.run, settings.against)) > 1


def _against(settings: Evaluate, ours: Sequence[scores.Outcomes]) -> Comparison:
    """The difference to the other side: of methods where there are several fits, else of networks.

    Raises PneumoError.
    """
    if not settings.resamples:
        raise PneumoError(
            "against needs resamples of at least 1, better 1000, for its interval and p"
        )
    theirs = dataclasses.replace(settings, run=settings.against, system=None)
    rule = declared_rule(theirs, members_of(theirs))
    resampled = (settings.resamples, settings.seed)
    if len(ours) == 1:
        other = outcomes(blend.gather(theirs), rule, settings.tta)
        return Comparison(str(settings.against), compare(ours[0], other, *resampled))
    fits = [outcomes([part], rule, settings.tta) for part in blend.one_by_one(theirs)]
    differences = methods.compare(ours, fits, *resampled)
    sizes = (len(ours), len(fits))
    return Comparison(str(settings.against), differences, methods.HIERARCHICAL, sizes)


def _explain(results: Sequence[Result], on: str, records: Sequence[Record]) -> None:
    """Add to how thresholds came about what the set of films makes of it."""
    chosen_here = Source.best in {about.config.handoff.source for about in records}
    for result in results:
        if on == "val" and chosen_here:
            result.how += (
                "; the weights themselves were chosen on these films (handoff.source=best)"
            )
        if on != "val" and result.name == "tuned":
            result.name = "halves"
            result.how += (
                "; both are of the test films themselves, so these thresholds could not have been "
                "chosen beforehand: tune=validation does that"
            )


def _measure_shapes(
    parts: Sequence[Predictions], results: Sequence[Result], tta: bool, settings: Evaluate
) -> list[Point]:
    """Put shapes into every result of a single rule; returns FROC points of the declared one."""
    everything, froc = results[0].outcomes, []
    for result in results:
        if len(result.rules) == 1:
            rule = result.rules[0]
            measured = shapes.measure(parts, rule, tta, settings.measures)
            result.outcomes.shapes, above = measured
            if result is results[0]:
                patients = everything.patients
                froc = operating.of_lesions(above, patients, settings.resamples, settings.seed)
    return froc


def film_calibration(
    parts: Sequence[Predictions],
    films: scores.Outcomes,
    resamples: int,
    seed: int,
    known: tuple[Platt, str] | None = None,
) -> calibration.Films | None:
    """The calibration of films by a curve of others: one ``known`` before, and how it came about.

    Without one each film has that of the other folds, or of the other half by patient. None where
    there are not films enough.
    """
    if known is not None:
        curve, how = known
        return calibration.under(films, curve(films.score), how, resamples, seed)
    try:
        groups, how = apart(parts, seed)
    except PneumoError:
        return None
    how = how.replace("chosen", "fitted").replace("scored", "used")
    return calibration.of_films(films, groups, how, resamples, seed)


def declared_rule(settings: Any, members: Sequence[Member]) -> Postprocess:
    """The rule that all these runs declare, under the system's and under what is typed.

    Runs whose maps are not used do not count. Raises PneumoError if they declare different ones.
    """
    of_system = system_of(settings.system).postprocess if settings.system else Rule()
    rules = [
        settings.postprocess.over(of_system.over(member.record.config.postprocess))
        for member in members
        if member.weight > 0
    ]
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
    chosen |= {
        f"measures.{key}": str(value).replace(" ", "")
        for key, value in vars(settings.measures).items()
        if value != getattr(Measures(), key)
    }
    more |= {
        key: getattr(settings, key)
        for key in ("spacing", "spacing_names")
        if getattr(settings, key) is not None
    }
    if settings.reader.given:
        default = ReaderFiles()
        more |= {
            f"reader.{key}": value.name if isinstance(value, OnError) else value
            for key, value in vars(settings.reader).items()
            if value != getattr(default, key)
        }
    against = {} if settings.against is None else {"against": settings.against}
    asked = [
        f"{key}={value}"
        for key, value in {**asked_for(settings), **more, **chosen, **against}.items()
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
            of_masks = [o.overlap, o.dice.round(6), o.iou.round(6)]
            if o.known is not Truth.masks:
                of_masks = [np.full(len(o), "")] * 3
            overlap, dice, iou = of_masks
            facts = (o.ids, o.patients, o.views, o.truth, o.predicted, overlap)
            columns = (*facts, o.score.round(4), dice, iou, *_shape_columns(o))
            rows = ([result.name, *row] for row in zip(*columns, strict=True))
            writer.writerows(map(cell, row) for row in rows)


def _shape_columns(o: scores.Outcomes) -> Sequence[Sequence[Any]]:
    """Lesions, boundaries and pointing, film by film; empty where they are not known."""
    if o.shapes is None or o.known is Truth.labels:
        return [[""] * len(o)] * 6
    known = [
        ["" if np.isnan(value) else round(value, 4) for value in values.tolist()]
        for values in (o.shapes.nsd_px, o.shapes.hd95_px, o.shapes.pointed)
    ]
    if o.known is Truth.boxes:
        return [[""] * len(o)] * 5 + known[-1:]
    return [o.shapes.hits.tolist(), o.shapes.false.tolist(), o.shapes.missed.tolist(), *known]


def _run_name(settings: Evaluate, found: Evaluation) -> str:
    """What is judged, for Weights & Biases: no path of this machine."""
    if settings.model is not None:
        return f"{Path(settings.model).name}-on-{found.data}"
    return "-".join(Path(found.runs[0]).parts[-3:])


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
    columns = ("probability", "share", "count")
    of_pixels = [] if found.pixels is None else [getattr(found.pixels, key) for key in columns]
    tracking.record(
        settings.log,
        path.parents[1],
        name=_run_name(settings, found) + ("-tta" if found.tta else ""),
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
            "calibration": (columns, list(zip(*of_pixels, strict=True))),
        },
    )
