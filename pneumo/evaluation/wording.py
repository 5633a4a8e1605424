"""An evaluation in words: what a reader of its scores must know, as text for a terminal."""

from pneumo.evaluation import calibration, opinions
from pneumo.evaluation.results import Evaluation, Judgement, OfSize, Point, Scored, known
from pneumo.inference.settings import ELSEWHERE
from pneumo.masks.rule import ABBREVIATIONS, plain, rule_text
from pneumo.masks.scores import LABELS, MAIN, SCORES, SHAPES, number
from pneumo.masks.truth import Truth
from pneumo.tables import counted

# what is said where not all is known
LIMITED = {
    Truth.boxes: "Known of these films are boxes, no masks: scores of masks are left out.",
    Truth.labels: "Known of these films is only whether they show pneumothorax: scores of where it "
    "is are left out.",
}


def describe(found: Evaluation, detail: bool = False) -> str:
    """What a reader must know of an evaluation, as text; with ``detail`` all that was found."""
    unknown = found.films_of_unknown_patient
    who = f"{found.patients:,} patients"
    if unknown:
        who += f" and {unknown:,} films of unknown patient"
    tta = "flip TTA" if found.tta else "no TTA"
    place = found.data if found.on == ELSEWHERE else found.on
    sizes = " and ".join(f"{size}²" for size in dict.fromkeys(found.sizes))
    several = f"; the mean of {found.fits} fits, each judged for itself" if found.fits > 1 else ""
    lines = [
        f"{', '.join(found.runs)} on {place} at {sizes}, {tta}: "
        f"{found.films:,} films, {found.positives:,} positive, {who}{several}"
    ]
    lines += [f"WARNING: {warning}" for warning in found.warnings]
    known_of = {score.key for score in SCORES if found.truth in score.of}
    if found.truth is not Truth.masks:
        lines.append(LIMITED[found.truth])
    for result in found.results:
        lines.append(f"\n{result.name} ({result.how})")
        lines += [f"  {rule_text(plain(rule))}" for rule in result.rules]
        keys = LABELS if detail else MAIN
        lines += [f"  {key:<19}{_value_text(result.all, key)}" for key in keys if key in known_of]
        if detail or result is found.declared:
            lines += _group_lines(result, "dice" if found.truth is Truth.masks else "roc_auc")
    lines += _drop_lines(found, detail)
    lines += _measured_lines(found, detail)
    lines.append(f"\n{ABBREVIATIONS}")
    if found.result("tuned") is not None:
        lines.append(
            "Which thresholds to use: the declared ones, unless those of `tuned` score better than "
            "its interval explains; python -m pneumo.export choose=tuned then chooses once, on all "
            "of these films, and states the score of `tuned`."
        )
    lines += _calibration_lines(found)
    if found.readers:
        lines += ["\n" + table.aligned() for table in opinions.tables({"this": found.readers})]
    if found.against is not None:
        for name, gap in found.against.differences.items():
            if known(gap.mean) is not None:
                spread = ""
                if known(gap.p) is not None:
                    spread = f" [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.3f}"
                lines.append(f"minus {found.against.run}, {name}: {gap.mean:+.4f}{spread}")
        fits = "{} fits against {} ".format(*found.against.fits) if found.fits > 1 else ""
        lines.append(f"  ({fits}{found.against.how})")
    if found.declared.all.intervals:
        by = "patient" if not unknown else "patient where known, else by film: too narrow"
        lines.append(
            f"Brackets: 95 % intervals, bootstrap by {by}. Dice at 1024², both empty = 1; size "
            "groups: Dice of their films."
        )
    return "\n".join(lines)


def _group_lines(result: Judgement, key: str) -> list[str]:
    """A score of each group, with its films; of the sizes, whose films are all positive."""
    lines = []
    for name, group in result.groups.items():
        count = counted(group.films, "film")
        if not name.startswith("size"):
            count += f", {group.positives:,} positive"
        lines.append(f"  {name:<19}{_value_text(group, key)}  ({count})")
    return lines


def _drop_lines(found: Evaluation, detail: bool) -> list[str]:
    """What is left on these films of the scores of the internal validation."""
    if found.internal is None:
        return []
    films = counted(found.internal.scored.films, "film")
    lines = [f"\nAgainst its internal validation ({films}, {found.internal.how})"]
    for key, drop in found.drops.items():
        if detail or key in MAIN:
            spread = ""
            if drop.interval is not None:
                spread = "  [{:+.4f}, {:+.4f}]".format(*drop.interval)
            lines.append(
                f"  {key:<19}{drop.internal:.4f} → {drop.external:.4f}, {drop.difference:+.4f}"
                f"{spread}"
            )
    return lines


def _measured_lines(found: Evaluation, detail: bool) -> list[str]:
    """Operating points, lesions and boundaries of the declared result, and their rules."""
    scored, rules = found.declared.all, found.measures
    lines = []
    if found.operating:
        before = found.result("validation") is not None
        where = (
            "thresholds of the validation films" if before else "read off these films' own curve"
        )
        share = f"PPV, NPV at {rules['prevalence']:.1%} positive"
        lines.append(f"\nThe film's score as a test, {where} ({share})")
        lines += [_point_line(point, "specificity", before) for point in found.operating]
        if detail:
            lines += [_point_line(point, "sensitivity", before) for point in found.at_sensitivities]
    if detail:
        lines += _size_lines(found)
    shown = [key for key in SHAPES if scored.scores.get(key) is not None]
    if shown:
        what = "Boxes" if found.truth is Truth.boxes else "Lesions and boundaries"
        lines.append(f"\n{what} of the declared masks, and what the maps point at")
        lines += [f"  {key:<19}{_value_text(scored, key)}" for key in shown]
    if detail and found.froc:
        lines.append("  lesions found with at most so many false ones a film, none removed (FROC)")
        lines += [
            f"  {point.wanted:<19.3g}{_value_text(point, 'sensitivity')}" for point in found.froc
        ]
    if shown and found.truth is Truth.masks:
        lines.append(
            f"  Lesions: components of at least {rules['lesion_px']:,} px at 1024²; found by one "
            f"of IoU {rules['lesion_iou']:g}, each matched once. NSD: boundaries within "
            f"{rules['tolerance_px']:g} px ({rules['tolerance_mm']:g} mm), on positives, 0 if "
            "nothing is marked. HD95: films with both masks."
        )
    if shown and found.truth is Truth.boxes:
        lines.append(
            "  Boxes: hit if the box around a component of the mask has an IoU of "
            f"{rules['box_iou']:g}; box IoU: the mean over all true boxes of the best such IoU."
        )
    if shown:
        lines.append(
            "  Pointing: positives whose most probable pixel lies in the true "
            f"{'mask' if found.truth is Truth.masks else 'box'}, to "
            f"{rules['pointing_px']:g} px, whatever threshold and gate; of ties their share."
        )
    return lines


def _size_lines(found: Evaluation) -> list[str]:
    """How well positives of at least a size are detected, at the same kinds of points."""
    if not found.by_size:
        return []
    before = found.result("validation") is not None
    negatives = f"{found.by_size[0].negatives:,}"
    lines = [
        "\nDetection by size: positives of at least so many px at 1024², smaller ones left out, "
        f"against all {negatives} negatives; sensitivity of the declared masks"
    ]
    for one in found.by_size:
        cells = [
            f"{label} {_value_text(one, key, 3)}"
            for key, label in (("roc_auc", "ROC AUC"), ("sensitivity", "sensitivity"))
        ]
        lines.append(f"  {f'{one.least_px:,} px':<19}{', '.join(cells)}  ({one.positives:,} films)")
        if one.positives:
            points = [(point, "specificity") for point in one.at_specificities]
            points += [(point, "sensitivity") for point in one.at_sensitivities]
            lines += [f"  {_point_line(*point, before, values=False)}" for point in points]
    lines.append(
        "  Sizes are areas of the true masks. That they tell moderate and large pneumothorax from "
        "small, as readers judge them, is an assumption."
    )
    return lines


def _point_line(point: Point, fixed: str, before: bool, values: bool = True) -> str:
    """An operating point: the rate that was demanded, and what holds there.

    A threshold that was chosen ``before``, on other films, gives another rate on these. PPV and NPV
    are the predictive ``values``.
    """
    other = "sensitivity" if fixed == "specificity" else "specificity"
    keys = [(other, other)]
    if values:
        keys += [("ppv", "PPV"), ("npv", "NPV")]
    cells = [f"{label} {_value_text(point, key, 3)}" for key, label in keys]
    got = f" (here {_value_text(point, fixed, 3)})" if before else ""
    return f"  {fixed} {point.wanted:g}{got}: {', '.join(cells)}"


def _calibration_lines(found: Evaluation) -> list[str]:
    """How far probabilities are from shares: of pixels where there is something, and of films."""
    pixels, films = found.pixels, found.film_calibration
    lines = ["\nCalibration (ECE: mean gap between probability and share)"]
    if pixels is not None:
        lines.append(
            f"  pixels  {number(pixels.ece)}  of the true masks, or predicted above "
            f"{calibration.SMALL:g}"
        )
    if films is None:
        return [*lines, "  films   –  too few to fit a probability on some and judge it on others"]
    interval = ""
    if films.brier_interval is not None:
        interval = "  [{:.4f}, {:.4f}]".format(*films.brier_interval)
    return [
        *lines,
        f"  films   {number(films.raw.ece)} by their score, {number(films.calibrated.ece)} "
        f"calibrated ({films.how})",
        f"  Brier   {films.raw_brier:.4f} by their score, {films.brier:.4f}{interval} calibrated, "
        f"{films.share_brier:.4f} knowing only the share of positives",
    ]


def _value_text(scored: Scored | Point | OfSize, key: str, digits: int = 4) -> str:
    """A score and its interval; one that was not computed, or that no film has, is a dash."""
    value, bounds = scored.scores.get(key), scored.intervals.get(key)
    if value is None:
        return number(value)
    interval = f"  [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]" if bounds else ""
    return f"{value:.{digits}f}{interval}"
