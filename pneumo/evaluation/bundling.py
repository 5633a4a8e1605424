"""Finished runs → one bundle that describes itself."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pneumo import __version__, runs
from pneumo.errors import PneumoError
from pneumo.evaluation import blend, calibration, choosing, evaluation, results
from pneumo.evaluation.members import members_of, presence_of
from pneumo.evaluation.scores import NARROW
from pneumo.evaluation.settings import Choose, Export, Tune
from pneumo.inference import bundle, mapping
from pneumo.inference.maps import Predictions
from pneumo.inference.probability import Platt
from pneumo.inference.seen import Trained
from pneumo.masks.rule import plain
from pneumo.masks.settings import Postprocess
from pneumo.training.network import build_network
from pneumo.training.record import Record
from pneumo.training.settings import Presence
from pneumo.training.weights import load_weights, read_card


def export(settings: Export) -> dict[str, Any]:
    """Write the bundle of ``settings``; returns its card. Raises PneumoError."""
    members = members_of(settings)
    records = [member.record for member in members]
    parts = blend.gather(settings)
    declared = evaluation.declared_rule(settings, members)
    judged = choosing.judge(parts, declared, settings.tta, Tune.honest, settings.seed)
    rule, how, stated = declared, "declared by the experiment", judged[0]
    if settings.choose is Choose.tuned:
        if len(judged) < 2:
            raise PneumoError(
                "choose=tuned: thresholds cannot be chosen from these films; use choose=declared"
            )
        stated = judged[1]
        everything = np.arange(sum(map(len, parts)))
        rule = choosing.search(parts, everything, declared, settings.tta)
        how = (
            f"chosen on all {len(everything):,} validation films; the scores are of choosing and "
            f"scoring on different films ({stated.how})"
        )
    calibrated = _calibration(parts, rule, settings)
    networks, cards = [], []
    for number, member in enumerate(members):
        paths = mapping.weights_of(member.folder, member.checkpoints)
        for path in paths:
            network = build_network(member.record.config.model, pretrained=False)
            load_weights(network, path, "run")
            networks.append(network.eval())
            own = read_card(path)
            size = settings.size or own["input"]["size"]
            role = {"fit": number, "weight": member.weight / len(paths), "tells": member.tells}
            cards.append({**own, **role, "input": {**own["input"], "size": size}})
    licences = [one for card in cards if (one := card.get("encoder_licence"))]
    licences = list(dict.fromkeys(licences))
    stacks = presence_of(settings) is Presence.stack
    names = list(dict.fromkeys(about.config.experiment for about in records))
    if len(members) == 1:
        scores_of = "this network"
    elif len(parts) == 1:
        scores_of = "the mean"
    else:
        scores_of = "each network on its own fold, not of the mean"
    card = {
        "name": settings.system or "+".join(names),
        "pneumo": __version__,
        "exported_by_commit": runs.commit(),
        "commit": records[0].origin.commit,
        "made": time.strftime("%Y-%m-%d"),
        "input": {
            "film": "upright, dark lungs (MONOCHROME2), one channel, uint8, resized to a square "
            "of each member's size (area mean)",
            "scaling": "x / 255, then (x - mean) / std of each member",
        },
        "output": "probability of pneumothorax, per pixel; the mean of the members",
        "tta": settings.tta,
        "postprocess": plain(rule),
        "thresholds": how,
        "intervals": _intervals(parts),
        "calibration": calibrated,
        "stack": blend.stack_of(settings, settings.tta).to_dict() if stacks else None,
        "scores_of": scores_of,
        "scores": stated.judgement(settings.resamples, settings.seed).to_dict(),
        "data": [_data(about) for about in records],
        "licence": settings.licence,
        "encoder_licences": licences,
        "intended_use": bundle.INTENDED_USE,
        "limits": bundle.limits(
            (one for about in records for one in about.config.data.formats),
            calibrated.get("share"),
            licences,
        ),
    }
    trained = [mapping.trained_by(member.folder) for member in members]
    known = [one for one in trained if one is not None]
    seen = Trained.join(known) if len(known) == len(trained) else None
    bundle.write(Path(settings.out), card, networks, cards, settings.onnx, seen)
    return bundle.read_card(Path(settings.out))


def _intervals(parts: Sequence[Predictions]) -> str:
    """What the intervals of the scores stand for."""
    if all(case.patient for part in parts for case in part.cases):
        return "95 %, bootstrap by patient"
    return f"95 %, bootstrap by patient where known, else by film: {NARROW}"


def _calibration(
    parts: Sequence[Predictions], rule: Postprocess, settings: Export
) -> dict[str, Any]:
    """The curve from score to probability, fitted on all films, and how well it did on others.

    The score stays the probability where there are not films enough to fit a curve on some and
    judge it on others, or where it does no better there than the score.
    """
    films = choosing.outcomes(parts, rule, settings.tta)
    judged = evaluation.film_calibration(parts, films, settings.resamples, settings.seed)
    curve = calibration.curve_of(films)
    if judged is None or curve is None:
        return {**vars(Platt()), "how": "not calibrated: too few films"}
    told = {"films": len(films), "out_of_fold": results.plain_values(judged)}
    if judged.brier >= judged.raw_brier:
        how = "not calibrated: on films it was not fitted on, a curve did no better than the score"
        return {**vars(Platt()), "how": how, **told}
    return {
        **vars(curve),
        "temperature": 1 / curve.slope if curve.slope else None,
        "share": float(films.positive.mean()),
        "how": f"Platt's curve of the film's score, fitted on all {len(films):,} validation films",
        **told,
    }


def _data(about: Record) -> dict[str, Any]:
    """What a member was trained and validated on; no paths."""
    config = about.config
    values = config.to_dict()
    return {
        "name": config.data.name,
        "format": config.data.format,
        "round": values["data"].get("round"),
        "difficulty": values["data"].get("difficulty"),
        "scale": config.scale.name,
        "split": values["split"],
        "fold": config.fold,
        "seed": config.seed,
        **dataclasses.asdict(about.data),
    }
