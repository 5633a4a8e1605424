"""One HTML page for the runs of a setting: plotly and pictures are in it, it needs no network."""

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from pneumo import files, runs, templates
from pneumo.data import dicom
from pneumo.errors import PneumoError
from pneumo.evaluation import choosing, opinions, scores, surfaces
from pneumo.evaluation.agreement import Value
from pneumo.evaluation.published import Run
from pneumo.evaluation.results import known, plain_values
from pneumo.inference import maps
from pneumo.inference.maps import Predictions
from pneumo.masks import pictures
from pneumo.masks.rule import ABBREVIATIONS, plain, removal_pixels, rule_text
from pneumo.masks.settings import Postprocess
from pneumo.tables import Table
from pneumo.training.record import Record

SIDE = 384  # of a picture in the gallery
KINDS = {
    "best": "Best",
    "median": "Median of those found",
    "worst": "Worst of those found",
    "false positive": "False positives",
    "false negative": "False negatives",
}


def render(setting: str, how: str, found: list[Run], tables: list[Table], gallery: int) -> str:
    """The page, made by the command ``how``.

    ``gallery`` films of each kind; of a film that is not there any more, only the facts.
    """
    from plotly.offline import get_plotlyjs

    names = [run.name for run in found]
    shown = [_run(run, gallery, names.count(run.name) == 1) for run in found]
    data = {"how": how, "runs": shown, "thresholds": surfaces.THRESHOLDS, "areas": surfaces.AREAS}
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return templates.load("pneumo.evaluation", "page.html").render(
        title=setting,
        commit=runs.commit(),
        tables=tables,
        abbreviations=ABBREVIATIONS,
        plotly=Markup(get_plotlyjs()),
        # in a script nothing is escaped: "<" could end it, or begin a comment in it
        data=Markup(encoded.replace("<", "\\u003c")),
    )


def _run(run: Run, gallery: int, alone: bool) -> dict[str, Any]:
    """Everything the page shows of one run, as plain values.

    Fold and seed stand in its name unless it is ``alone`` under it.
    """
    config = run.record.config
    part = maps.load(run.folder / maps.FOLDER / "val")
    rule = config.postprocess
    found = run.found["val", True]
    outcomes = choosing.outcomes([part], rule, tta=True)
    declared = found.declared.all.scores
    tuned = found.result("tuned")
    return {
        "name": run.name + (f", fold {config.fold}, seed {config.seed}" if not alone else ""),
        "films": found.films,
        "positives": found.positives,
        "empty": declared["all_empty_dice"],
        "rule": {
            "threshold": rule.binarization_threshold,
            "area": round(removal_pixels(rule, (1024, 1024))),
        },
        "declared": {"rule": rule_text(plain(rule)), "scores": declared},
        "tuned": tuned.all.scores["dice"] if tuned else None,
        "surfaces": [_surface(part, tta) for tta in (False, True)],
        "curves": _curves(run),
        "roc": _points(*scores.roc_curve(outcomes.score, outcomes.positive)[1:]),
        "pr": _points(*reversed(scores.pr_curve(outcomes.score, outcomes.positive)[1:])),
        "auc": [declared[key] for key in ("roc_auc", "pr_auc")],
        "operating": [declared[key] for key in ("sensitivity", "specificity")],
        "calibration": plain_values(found.pixels),
        "film_calibration": plain_values(found.film_calibration),
        "readers": [_reader(one) for one in found.readers],
        "leak": run.record.data.validation_positives_sharing_a_patient,
        "by_patient": run.record.data.by_patient,
        "gallery": _gallery(part, outcomes, rule, gallery),
        "made": [_made(folder, about) for folder, about in run.chain],
        "evaluated": {"command": found.command, "commit": found.commit},
    }


def _reader(one: opinions.Opinion) -> dict[str, Any]:
    """A second reader and the run, on the films that both have; with pictures where all differ."""
    told = {key: getattr(one, key) for key in ("reader", "films", "patients", "positives")}
    rates = {value.key: known(value.value) for value in one.alone}
    return {
        **told,
        "scores": [
            {"label": ours.label, "reader": _interval(theirs), "model": _interval(ours)}
            for theirs, ours in zip(one.alone, one.model, strict=True)
        ],
        "rates": [rates.get(key) for key in ("sensitivity", "specificity")],
        "truths": [
            {"truth": against.truth, "films": against.films, **_interval(value)}
            for against in one.by_truth
            for value in against.values
            if value.key == "dice_positive"
        ],
        "alone": next((_interval(v) for v in one.alone if v.key == "dice_positive"), None),
        "disagreed": len(one.disagreed),
        "pictures": [
            {
                "id": film.id,
                "picture": _encoded(cv2.imread(film.picture)),
                "pixels": [film.challenge_px, film.reader_px, film.model_px],
            }
            for film in one.disagreed
            if film.picture
        ],
    }


def _interval(value: Value) -> dict[str, float | None]:
    return {key: known(getattr(value, key)) for key in ("value", "low", "high")}


def _surface(part: Predictions, tta: bool) -> dict[str, list[list[int | None]]]:
    """Scores in ten-thousandths, thresholds × areas."""
    found = surfaces.surface(part.histograms(tta))
    return {
        name: [
            [None if np.isnan(value) else round(float(value) * 10_000) for value in row]
            for row in values
        ]
        for name, values in found.items()
    }


def _curves(run: Run) -> dict[str, Any]:
    """The metrics of all stages on one axis of epochs, and where each stage begins."""
    curves: dict[str, Any] = {"epoch": [], "stages": []}
    for folder, about in run.chain:
        rows = runs.history(folder)
        if not rows:
            continue
        begin = len(curves["epoch"])
        curves["stages"].append(
            {
                "begin": begin,
                "name": f"{about.config.experiment}, {about.config.resolution.size}²",
            }
        )
        for row in rows:
            curves["epoch"].append(begin + int(row["epoch"]) + 1)
            for key in ("train/loss", "val/loss", "val/iou", "val/dice", "val/dice_positive", "lr"):
                value = float(row[key] or "nan")
                curves.setdefault(key, []).append(value if np.isfinite(value) else None)
    return curves


def _points(x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    return {"x": x.round(5).tolist(), "y": y.round(5).tolist()}


def _gallery(
    part: Predictions, outcomes: scores.Outcomes, rule: Postprocess, count: int
) -> dict[str, list[dict[str, Any]]]:
    """Films of each kind: the picture with outlines, and what is known of it."""
    found, marked, positive = outcomes.dice, outcomes.predicted > 0, outcomes.positive
    hits = np.flatnonzero(positive & marked)
    ranked = hits[np.argsort(-found[hits], kind="stable")]
    middle = max(0, len(ranked) // 2 - count // 2)
    wrong, missed = np.flatnonzero(~positive & marked), np.flatnonzero(positive & ~marked)
    rows = {
        "best": ranked[:count],
        "median": ranked[middle : middle + count],
        "worst": ranked[::-1][:count],
        "false positive": wrong[np.argsort(-outcomes.predicted[wrong], kind="stable")][:count],
        "false negative": missed[np.argsort(-outcomes.truth[missed], kind="stable")][:count],
    }
    shown: dict[str, list[dict[str, Any]]] = {}
    for kind, chosen in rows.items():
        shown[KINDS[kind]] = []
        for row in chosen.tolist():
            facts = {
                "dice": round(float(found[row]), 4),
                "truth": int(outcomes.truth[row]),
                "predicted": int(outcomes.predicted[row]),
            }
            film = {
                "id": outcomes.ids[row],
                "view": outcomes.views[row] or "",
                "picture": _picture(part, row, rule),
                **facts,
            }
            shown[KINDS[kind]].append(film)
    return shown


def _picture(part: Predictions, row: int, rule: Postprocess) -> str | None:
    case = part.cases[row]
    try:
        film = dicom.read(Path(case.path)).pixels
    except PneumoError:
        return None
    small, masks = (
        cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
        (case.mask(), part.mask(row, rule, True)),
    )
    truth, prediction = (
        cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for mask in masks
    )
    rgb = pictures.overlay(small, truth, prediction, width=2)
    return _encoded(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))


def _encoded(bgr: np.ndarray | None) -> str | None:
    """A picture (H, W, 3) as the page embeds it."""
    if bgr is None:
        return None
    small = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    ok, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode() if ok else None


def _made(folder: Path, about: Record) -> dict[str, Any]:
    """How to make a run again; the place of its data is the reader's to fill in."""
    return {
        "run": "/".join(folder.parts[-3:]),
        "command": about.origin.command,
        "commit": about.origin.commit,
        "weights": files.sha256(folder / runs.WEIGHTS),
        "parent": about.parent.sha256 if about.parent else None,
        "data": about.data.films,
        "parts": about.data.parts,
        "seed": about.config.seed,
        "fold": about.config.fold,
    }
