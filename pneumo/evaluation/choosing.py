"""Probability maps and truth → results under thresholds declared beforehand or chosen honestly."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.errors import PneumoError
from pneumo.evaluation import scores, surfaces
from pneumo.evaluation.apart import apart
from pneumo.evaluation.results import Judgement, Scored, known
from pneumo.evaluation.scores import Difference, Outcomes
from pneumo.evaluation.settings import Tune
from pneumo.inference.maps import JUDGED, Predictions
from pneumo.masks.components import Components
from pneumo.masks.histograms import Histograms, film_score
from pneumo.masks.rule import removal_pixels
from pneumo.masks.scores import summary
from pneumo.masks.settings import Postprocess, Removal
from pneumo.masks.truth import Truth

log = logging.getLogger(__name__)

# thresholds tried where each costs more than a table look-up
COARSE = tuple(round(0.05 * i, 2) for i in range(1, 20))
OPTIMISTIC = "OPTIMISTIC: thresholds chosen on the films they are scored on"


@dataclass
class Result:
    """Scores of one set of films under thresholds that came about as ``how`` says."""

    name: str
    how: str
    rules: list[Postprocess]
    outcomes: Outcomes

    def judgement(self, resamples: int, seed: int) -> Judgement:
        """The scores with their intervals, of all films and by group."""
        groups = {
            name: _scored(self.outcomes[rows], resamples, seed)
            for name, rows in scores.groups(self.outcomes).items()
        }
        everything = _scored(self.outcomes, resamples, seed)
        return Judgement(self.name, self.how, self.rules, everything, groups)


def judge(
    parts: Sequence[Predictions],
    rule: Postprocess,
    tta: bool,
    tune: Tune = Tune.none,
    seed: int = 0,
) -> list[Result]:
    """The result under the declared rule and, if asked for, under thresholds chosen honestly.

    Honestly: on other films than they are scored on. For the folds of a cross-validation each fold
    is scored with thresholds chosen on all others; a single part is halved by patient, and each
    half scored with the other's. ``Tune.optimistic`` adds the choice on the very same films,
    marked. Where thresholds cannot be chosen, that is said and left out. Raises PneumoError where
    the truth of a film is unknown.
    """
    everything = outcomes(parts, rule, tta)
    results = [Result("declared", "thresholds declared beforehand", [rule], everything)]
    if tune in (Tune.none, Tune.validation):
        return results
    if everything.known is not Truth.masks:
        log.warning(
            "No thresholds were chosen from these films: they are chosen by Dice, and of these "
            "only %s are known",
            everything.known.name,
        )
        return results
    if not tunable(rule):
        log.warning(
            "No thresholds were chosen from these films: "
            "they are not chosen together with contours and holes"
        )
        return results
    try:
        group, how = apart(parts, seed)
    except PneumoError:
        log.warning(
            "No thresholds were chosen from these films: %d cannot be halved by patient so that "
            "both halves have some",
            len(everything),
        )
        return results
    chosen, picked = [], []
    for number in range(int(group.max()) + 1):
        rows = np.flatnonzero(group == number)
        chosen.append(search(parts, np.flatnonzero(group != number), rule, tta))
        # the films' own scores stay those of the declared area: areas of different groups would mix
        # scales
        scored = outcomes(parts, chosen[-1], tta, rows)
        picked.append(dataclasses.replace(scored, score=everything.score[rows]))
    results.append(Result("tuned", how, chosen, Outcomes.join(picked)))
    if tune is Tune.optimistic:
        one = search(parts, np.arange(len(everything)), rule, tta)
        same = dataclasses.replace(outcomes(parts, one, tta), score=everything.score)
        results.append(Result("optimistic", OPTIMISTIC, [one], same))
    return results


def tunable(rule: Postprocess) -> bool:
    """Whether thresholds can be chosen for a rule: not together with contours and holes."""
    return not (rule.contour_area or rule.fill_holes)


def beforehand(
    parts: Sequence[Predictions],
    validation: Sequence[Predictions],
    rule: Postprocess,
    tta: bool,
) -> Result:
    """The result under thresholds chosen on all validation films. Raises PneumoError."""
    films = sum(map(len, validation))
    chosen = search(validation, np.arange(films), rule, tta)
    how = f"chosen on the {films:,} validation films, applied to these"
    return Result("validation", how, [chosen], outcomes(parts, chosen, tta))


def outcomes(
    parts: Sequence[Predictions], rule: Postprocess, tta: bool, rows: np.ndarray | None = None
) -> Outcomes:
    """Results of the films of the parts (or of some rows of them) under a rule, at 1024².

    Raises PneumoError without truth.
    """
    histograms = joined(parts, tta, rule)
    places = [(part, row) for part in parts for row in range(len(part))]
    if rows is not None:
        histograms, places = histograms[rows], [places[row] for row in rows]
    area = removal_pixels(rule, (JUDGED, JUDGED))
    score = _scores(parts, rule, tta, histograms, rows)
    if rule.removal is Removal.total and not rule.contour_area and not rule.fill_holes:
        threshold = rule.binarization_threshold
        gate = histograms.predicted([rule.top_threshold or threshold])[:, 0]
        kept = gate >= area
        predicted = np.where(kept, histograms.predicted([threshold])[:, 0], 0)
        overlap = np.where(kept, histograms.overlap([threshold])[:, 0], 0)
    else:
        predicted, overlap = np.zeros((2, len(places)), np.int64)
        for number, (part, row) in enumerate(places):
            mask = part.mask(row, rule, tta)
            if rule.presence_threshold is None:
                score[number] = film_score(part.map(row, tta), rule)
            predicted[number] = mask.sum()
            if part.cases[row].annotations:
                overlap[number] = (mask & part.cases[row].mask()).sum()
    cases = [part.cases[row] for part, row in places]
    return Outcomes(
        [case.id for case in cases],
        predicted.astype(np.int64),
        histograms.truth.astype(np.int64),
        overlap.astype(np.int64),
        score,
        [case.patient for case in cases],
        [case.view for case in cases],
        [case.sex for case in cases],
        [case.age for case in cases],
        [case.site for case in cases],
        [case.tube for case in cases],
        [case.truth for case in cases],
    )


def _scores(
    parts: Sequence[Predictions],
    rule: Postprocess,
    tta: bool,
    histograms: Histograms,
    rows: np.ndarray | None,
) -> np.ndarray:
    """The image-level score of each film: of presence where a gate asks for it, else of the map."""
    if rule.presence_threshold is None:
        return histograms.score(removal_pixels(rule, (JUDGED, JUDGED)))
    told = [part.presence(tta) for part in parts]
    scores = np.concatenate([one for one in told if one is not None]).astype(np.float64)
    return scores if rows is None else scores[rows]


def joined(parts: Sequence[Predictions], tta: bool, rule: Postprocess | None = None) -> Histograms:
    """The histograms of all parts, one after the other; films that a rule's gate closes are empty.

    Raises PneumoError where the truth is unknown.
    """
    for part in parts:
        if not part.labelled:
            raise PneumoError(
                f"{part.folder}: the truth of these films is not known; give their table with "
                "annotations=<file.csv>"
            )
    tables = [part.histograms(tta) for part in parts]
    everything = Histograms(
        np.concatenate([t.total for t in tables]), np.concatenate([t.inside for t in tables])
    )
    if rule is None or rule.presence_threshold is None:
        return everything
    return everything.emptied(~np.concatenate([part.gate(rule, tta) for part in parts]))


def search(
    parts: Sequence[Predictions], rows: np.ndarray, rule: Postprocess, tta: bool
) -> Postprocess:
    """The thresholds with the best mean Dice on these rows.

    B-TH and R-TH, or the triplet if ``rule`` has a top threshold; the gate, if it has one, at the
    same time.
    """
    histograms = joined(parts, tta)[rows]
    components = None
    if rule.top_threshold is None and rule.removal is Removal.component:
        every = [one for part in parts for one in part.components(tta, COARSE)]
        components = [
            dataclasses.replace(every[row], film=np.full_like(every[row].film, film))
            for film, row in enumerate(rows)
        ]
    gates = [None] if rule.presence_threshold is None else COARSE
    found = []
    for gate in gates:
        gated = dataclasses.replace(rule, presence_threshold=gate)
        passing = np.concatenate([part.gate(gated, tta) for part in parts])[rows]
        found.append(_behind_gate(histograms, components, passing, gated))
    return max(found, key=lambda one: one[1])[0]


def _behind_gate(
    histograms: Histograms,
    components: Sequence[Components] | None,
    passing: np.ndarray,
    rule: Postprocess,
) -> tuple[Postprocess, float]:
    """The best thresholds where a gate lets only some films pass, and their mean Dice.

    ``components``, a film's each, where each is judged alone; ``passing`` bool (n,).
    """
    histograms = histograms.emptied(~passing)
    if rule.top_threshold is not None:
        table = surfaces.triplets(histograms, COARSE, surfaces.AREAS, COARSE)["dice"]
        table[np.array(COARSE)[:, None] < np.array(COARSE)] = np.nan  # a top below the bottom
        top, bottom, area = surfaces.best(table)
        chosen = _at(rule, COARSE[bottom], surfaces.AREAS[area], COARSE[top])
        return chosen, float(table[top, bottom, area])
    if components is not None:
        some = [one for one, passes in zip(components, passing, strict=True) if passes]
        thresholds: Sequence[float] = COARSE
        table = surfaces.component_surface(some, histograms.truth, COARSE, surfaces.AREAS)["dice"]
    else:
        thresholds = surfaces.THRESHOLDS
        table = surfaces.surface(histograms)["dice"]
    threshold, area = surfaces.best(table)
    chosen = _at(rule, thresholds[threshold], surfaces.AREAS[area])
    return chosen, float(table[threshold, area])


def _at(rule: Postprocess, threshold: float, area: int, top: float | None = None) -> Postprocess:
    return dataclasses.replace(
        rule,
        binarization_threshold=threshold,
        removal_threshold=area,
        removal_size=JUDGED,
        top_threshold=top,
    )


def compare(ours: Outcomes, theirs: Outcomes, resamples: int, seed: int) -> dict[str, Difference]:
    """Differences film by film, ours minus theirs.

    Raises PneumoError if films or their truth differ.
    """
    return scores.paired(ours, scores.aligned(theirs, ours), resamples, seed)


def _scored(some: Outcomes, resamples: int, seed: int) -> Scored:
    spread = scores.intervals(some, resamples, seed) if resamples else {}
    return Scored(
        len(some),
        {name: known(value[0]) for name, value in summary(some).items()},
        {name: bounds for name, bounds in spread.items() if np.isfinite(bounds).all()},
        int(some.positive.sum()),
    )
