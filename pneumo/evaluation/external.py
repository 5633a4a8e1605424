"""External validation: a model on other data than its own, against its internal validation."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pneumo.evaluation import choosing
from pneumo.evaluation.results import Drop, Internal, Scored
from pneumo.evaluation.scores import Outcomes
from pneumo.evaluation.settings import Evaluate
from pneumo.inference import bundle, mapping
from pneumo.inference.maps import Predictions
from pneumo.inference.probability import Platt
from pneumo.masks.scores import SCORES
from pneumo.masks.settings import Postprocess
from pneumo.training.record import Record


@dataclass
class Judged:
    """What is judged: maps, the rule that makes masks of them, and what was known beforehand."""

    parts: list[Predictions]
    rule: Postprocess
    tta: bool
    data: str  # name of the data set
    records: list[Record] = field(default_factory=list)  # of runs
    # films on which thresholds may be chosen before those that are judged are looked at
    before: Outcomes | None = None
    curve: tuple[Platt, str] | None = None  # from scores to probabilities, and where it is from
    card: Scored | None = None  # what a bundle states of its internal validation


def of_bundle(settings: Evaluate) -> Judged:
    """What a bundle says of another data set, by its own thresholds. Raises PneumoError."""
    assert settings.model is not None
    assert settings.data is not None
    # torch, whatever else the bundle holds: the scores it states are torch's
    model = bundle.load(Path(settings.model), settings.machine, "torch")
    maps = mapping.predict_by_bundle(model, settings)
    rule = settings.postprocess.over(model.rule)
    judged = Judged([maps], rule, settings.tta and model.tta, settings.data.name)
    calibrated = model.card.get("calibration") or {}
    if calibrated.get("how"):
        judged.curve = model.curve, f"as the bundle stores it: {calibrated['how']}"
    stated = model.card.get("scores") or {}
    if stated.get("scores"):
        intervals = {key: (low, high) for key, (low, high) in stated["intervals"].items()}
        films = sum({one["parts"]: one["validation"] for one in model.card["data"]}.values())
        judged.card = Scored(films, stated["scores"], intervals)
    return judged


def internal(judged: Judged, settings: Evaluate) -> Internal | None:
    """The internal validation: what a bundle states, or what runs score on their own films."""
    if judged.card is not None:
        return Internal(judged.card, "as the bundle states it")
    if judged.before is None:
        return None
    result = choosing.Result("declared", "", [judged.rule], judged.before)
    scored = result.judgement(settings.resamples, settings.seed).all
    return Internal(scored, "of the runs on their own validation films")


def drops(external: Scored, stated: Internal) -> dict[str, Drop]:
    """External minus internal validation, by score, where both have it.

    The films are others, so the two are independent, and the interval of their difference follows
    from both their intervals: the method of variance estimates recovery, Zou and Donner (2008),
    Statistics in Medicine 27:1693, doi 10.1002/sim.3095.
    """
    found = {}
    for key in (score.key for score in SCORES if score.varies):
        ours = external.scores.get(key)
        theirs = stated.scored.scores.get(key)
        if ours is None or theirs is None:
            continue
        gap = ours - theirs
        bounds = None
        if key in external.intervals and key in stated.scored.intervals:
            low, high = external.intervals[key]
            least, most = stated.scored.intervals[key]
            down = float(np.hypot(ours - low, most - theirs))
            up = float(np.hypot(high - ours, theirs - least))
            bounds = (gap - down, gap + up)
        found[key] = Drop(theirs, ours, gap, bounds)
    return found
