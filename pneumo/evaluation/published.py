"""The paper's tables for finished runs of one setting, ours beside the published figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from pneumo.data.settings import SplitKind
from pneumo.evaluation import comparable, opinions
from pneumo.evaluation.results import Evaluation, Point, Scored
from pneumo.evaluation.scores import NARROW
from pneumo.masks.rule import ABBREVIATIONS
from pneumo.masks.scores import LABELS, MAIN, SHAPES, number
from pneumo.tables import Table
from pneumo.training.options import Stem
from pneumo.training.record import Record

# the paper's Tables III (validation IoU without and with TTA) and IV (round-1 test Dice)
PUBLISHED_IOU = {
    "exp1": (0.7242, 0.7395),
    "exp2": (0.7349, 0.7523),
    "exp3": (0.7105, 0.7401),
    "exp4": (0.7422, 0.7631),
    "exp5": (0.7638, 0.7822),
}
PUBLISHED_DICE = {"exp1": 0.8125, "exp2": 0.8154, "exp3": 0.8300, "exp4": 0.8407, "exp5": 0.8502}
# Table V: training set, TTA, Dice on the public and the private part of the round-2 test set; Exp5
PUBLISHED_ROUND_2 = (
    ("1", "no", 0.9005, 0.8247),
    ("1", "yes", 0.8938, 0.8330),
    ("2", "no", 0.9011, 0.8298),
    ("2", "yes", 0.9023, 0.8356),
)
SYSTEM_SCORES = ("dice", "dice_positive", "sensitivity", "specificity", "roc_auc", "pointing")
NO_TRUTH = (
    "the round-2 test set has no public truth; python -m pneumo.submission writes the "
    "file to send in"
)


@dataclass
class Run:
    """A finished run, its ancestors first, and what its evaluations found: (part, tta) → result."""

    folder: Path
    record: Record
    chain: list[tuple[Path, Record]]
    found: dict[tuple[str, bool], Evaluation] = field(default_factory=dict)
    # of the first of several folds: all of them judged as one set
    joined: Evaluation | None = None

    @property
    def name(self) -> str:
        """Experiment, and what sets the run apart from others of it except fold and seed."""
        return " ".join(filter(None, (self.record.config.experiment, self.record.config.variant)))


@dataclass
class Judged:
    """A system of ``conf/system``: what its authors report, and what was found of it here.

    ``missing`` says why nothing was.
    """

    name: str
    published: str
    found: Evaluation | None
    missing: str = ""


def build(found: list[Run], systems: Sequence[Judged] = ()) -> list[Table]:
    """Tables II to VI, and all that was measured, of runs of one setting."""
    names = list(dict.fromkeys(run.name for run in found))
    same = {name: [run for run in found if run.name == name] for name in names}
    note = comparable.note([[about for _, about in run.chain] for run in found])
    return [
        _table_2(same),
        _table_3(same, note),
        _table_4(same, note),
        _table_5(),
        _table_6(systems),
        _scores(same),
        *_measured(found),
        *_readers(same),
    ]


def _readers(same: dict[str, list[Run]]) -> list[Table]:
    """Second readers beside the runs, or beside their folds where these are joined."""
    found = {}
    for name, members in same.items():
        joined = next((run.joined for run in members if run.joined), None)
        judged = [joined] if joined else [run.found["val", True] for run in members]
        for place, one in enumerate(judged):
            if one.readers:
                found[name + (f", run {place + 1}" if len(judged) > 1 else "")] = one.readers
    return opinions.tables(found) if found else []


def _table_2(same: dict[str, list[Run]]) -> Table:
    rows = []
    for name, members in same.items():
        chain = [about.config for _, about in members[0].chain]
        last = chain[-1]
        held = last.split.validation
        split = f"{1 - held:.0%}/{held:.0%}"
        if last.split.kind is SplitKind.kfold:
            split = f"{last.split.folds} folds"
        stages = [f"{one.resolution.size}²: {one.batch_size} / {one.epochs}" for one in chain]
        averaged = [comparable.averaged(one.averaging) for one in chain]
        channels = "1" if last.model.stem is Stem.conv else "3"
        threshold = f"{last.postprocess.binarization_threshold:g}"
        missing = ["…"] if last.parent and len(chain) == 1 else []  # the parent is gone
        course = ", then ".join([*missing, *stages])
        cells = [name, str(len(members)), split, channels, ", then ".join(averaged), threshold]
        rows.append([*cells, course])
    head = ["experiment", "runs", "split", "channels", "epochs averaged", "B-TH"]
    return Table(
        "table_2", "Table II as run", [*head, "stages: batch / epochs"], rows, ABBREVIATIONS
    )


def _table_3(same: dict[str, list[Run]], note: str) -> Table:
    rows = []
    for name, members in same.items():
        ours = [_over(members, "val", tta, "iou") for tta in (False, True)]
        stepped = _over(members, "val", True, "iou_stepped")
        published = [number(value) for value in PUBLISHED_IOU.get(name, (None, None))]
        rows.append([name, *ours, stepped, *published])
    head = [
        "experiment",
        "IoU, no TTA",
        "IoU, TTA",
        "stepped IoU, TTA",
        "published, no TTA",
        "published, TTA",
    ]
    note = (
        "IoU per film at 1024² after both thresholds, both empty = 1; whether the "
        f"published one is plain or stepped is not said. {note}"
    )
    return Table("table_3", "Table III: validation IoU", head, rows, note)


def _table_4(same: dict[str, list[Run]], note: str) -> Table:
    rows, told = [], []
    for name, members in same.items():
        judged = [run for run in members if ("test", True) in run.found]
        published = number(PUBLISHED_DICE.get(name))
        if not judged:
            rows.append([name, *["not available"] * 6, published])
            continue
        columns = [_over(judged, "test", tta, "dice") for tta in (False, True)]
        columns.append(_over(judged, "test", True, "dice", "validation"))
        columns += [
            _over(judged, "test", True, key)
            for key in ("dice_positive", "sensitivity", "specificity")
        ]
        rows.append([name, *columns, published])
        told += [f"{name}: {warning}." for warning in judged[0].found["test", True].warnings]
    tested = [
        run.found["test", True]
        for members in same.values()
        for run in members
        if ("test", True) in run.found
    ]
    if tested:
        empty = tested[0].declared.all.scores.get("all_empty_dice")
        what = "The round-1 test set"
        if tested[0].data == "phantom":
            what = "New phantoms that no run has seen"
        counts = (
            f"{tested[0].films:,} films, {tested[0].positives:,} positive; empty "
            f"masks alone: Dice {number(empty)}."
        )
        note = " ".join([f"{what}: {counts}", *told, note])
    else:
        note = (
            "The round-1 test set is not here: name its ids with "
            "ids=<stage_1_sample_submission.csv>. " + note
        )
    head = [
        "experiment",
        "Dice, no TTA",
        "Dice, TTA",
        "TTA, thresholds of validation",
        "on positives",
        "sensitivity",
        "specificity",
        "published Dice",
    ]
    return Table("table_4", "Table IV: Dice on the test set", head, rows, note.strip())


def _table_5() -> Table:
    rows = [
        [f"round {data}", tta, "not available", f"{public:.4f}", f"{private:.4f}"]
        for data, tta, public, private in PUBLISHED_ROUND_2
    ]
    head = ["Exp5 trained on", "TTA", "ours", "published, public part", "published, private part"]
    return Table(
        "table_5", "Table V: Dice on the round-2 test set", head, rows, f"Ours: {NO_TRUTH}."
    )


def _table_6(systems: Sequence[Judged]) -> Table:
    rows = []
    for system in systems:
        why = "no run on these films" if "no finished run" in system.missing else "not judged"
        cells = [why, *["–"] * len(SYSTEM_SCORES)]
        if system.found is not None:
            told = [_cell(system.found.declared.all, key) for key in SYSTEM_SCORES]
            cells = [f"{system.found.films:,}", *told]
        rows.append([system.name, *cells, system.published or "–"])
    trained = [one.found for one in systems if one.found is not None]
    note = (
        "Ours: validation films, flip TTA, thresholds as released; folds are joined, each film by "
        "the networks that did not see it. Published: on other films, so not to be compared "
        f"directly. {NO_TRUTH[0].upper()}{NO_TRUTH[1:]}. python -m pneumo.train +system=<name> … "
        "trains one."
    )
    if trained:
        empty = number(trained[0].declared.all.scores.get("all_empty_dice"))
        note += f" Empty masks alone: Dice {empty}."
    head = ["system", "films", *(LABELS[key] for key in SYSTEM_SCORES), "published"]
    return Table("table_6", "Table VI: systems", head, rows, note)


def _scores(same: dict[str, list[Run]]) -> Table:
    rows, ways = [], []
    for name, members in same.items():
        joined = next((run.joined for run in members if run.joined), None)
        for which in ("declared", "tuned"):
            together = joined.result(which) if joined else None
            if together:
                cells = [_cell(together.all, key) for key in MAIN]
            else:
                cells = [_over(members, "val", True, key, which) for key in MAIN]
            if cells[0] != "–":
                title = f"{name}, {len(members)} folds as one" if joined else name
                rows.append([title, which, *cells])
        tuned = (joined or members[0].found["val", True]).result("tuned")
        if tuned:
            ways.append(tuned.how)
    unknown = any(
        run.found["val", True].films_of_unknown_patient
        for members in same.values()
        for run in members
    )
    narrow = f" Not all patients are known: {NARROW}." if unknown else ""
    head = ["experiment", "thresholds", *(LABELS[key] for key in MAIN)]
    chosen = f" Tuned: {'; '.join(dict.fromkeys(ways))}." if ways else ""
    note = (
        "Validation films, flip TTA. Brackets: 95 % intervals by a bootstrap of patients (of "
        "films where patients are unknown); "
        f"±: standard deviation over runs.{narrow} Declared: thresholds as the experiment says."
        f"{chosen}"
    )
    return Table("scores", "All scores on validation", head, rows, note)


def _measured(found: list[Run]) -> list[Table]:
    """Operating points, lesions, boundaries and groups; a line for each run, and joined folds."""
    judged = {}
    for run in found:
        about = run.record.config
        alone = sum(other.name == run.name for other in found) == 1
        name = run.name if alone else f"{run.name}, fold {about.fold}, seed {about.seed}"
        judged[name] = run.found["val", True]
        if run.joined:
            judged[f"{run.name}, folds as one"] = run.joined
    films, lesions, shapes, groups = [], [], [], []
    for name, one in judged.items():
        for point in one.operating:
            cells = [_cell(point, key) for key in ("sensitivity", "ppv", "npv")]
            films.append([name, f"{point.wanted:g}", number(point.threshold), *cells])
        lesions += [
            [name, f"{point.wanted:.3g}", _cell(point, "sensitivity")] for point in one.froc
        ]
        known = one.declared.all
        if any(known.scores.get(key) is not None for key in SHAPES):
            shapes.append([name, *(_cell(known, key) for key in SHAPES)])
        for group, scored in one.declared.groups.items():
            cells = [_cell(scored, key) for key in ("dice", "sensitivity", "specificity")]
            groups.append([name, group, f"{scored.films:,}", f"{scored.positives:,}", *cells])
    if not judged:
        return []
    rules = next(iter(judged.values())).measures
    return [
        Table(
            "operating",
            "The film's score as a test",
            ["experiment", "specificity at least", "score from", "sensitivity", "PPV", "NPV"],
            films,
            f"Validation films, flip TTA. Each point is read off the curve of the same films, anew "
            f"in each resample. PPV and NPV at {rules['prevalence']:.1%} positive films.",
        ),
        Table(
            "shapes",
            "Lesions, boundaries and pointing",
            ["experiment", *(LABELS[key] for key in SHAPES)],
            shapes,
            f"Validation films, flip TTA, declared thresholds. A lesion is a component of at least "
            f"{rules['lesion_px']:,} px at 1024²; it is found by a component whose IoU with it is "
            f"at least {rules['lesion_iou']:g}, each matched once. NSD: share of both boundaries "
            f"within {rules['tolerance_px']:g} px at 1024² ({rules['tolerance_mm']:g} mm) of the "
            "other, on positive films, 0 where nothing is marked. HD95: the larger of both 95th "
            "percentiles, on films where both masks are non-empty. In mm: of films whose spacing "
            "is known. Pointing game: positive films whose most probable pixel lies in the true "
            f"mask, to {rules['pointing_px']:g} px at 1024², whatever threshold and gate; of ties "
            "their share.",
        ),
        Table(
            "froc",
            "Lesions found at so many false ones a film (FROC)",
            ["experiment", "false ones a film, at most", "lesions found"],
            lesions,
            "Candidates are all components above B-TH, none removed, ranked by the probability "
            f"that {rules['lesion_px']:,} of their pixels reach. Rates beyond the last are not "
            "reached.",
        ),
        Table(
            "groups",
            "Groups of films",
            ["experiment", "group", "films", "positive", "Dice", "sensitivity", "specificity"],
            groups,
            "Validation films, flip TTA, declared thresholds; view, sex and age as the films' tags "
            "say, where they do. Sizes are quartiles of the challenge's positive films.",
        ),
    ]


def _cell(scored: Scored | Point, key: str) -> str:
    """A score and its interval; a dash for one that no film has."""
    bounds = scored.intervals.get(key)
    interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
    return number(scored.scores.get(key)) + interval


def _over(members: list[Run], part: str, tta: bool, key: str, which: str = "declared") -> str:
    """One run: the score and its interval. Several (folds, seeds): mean ± standard deviation."""
    results = [run.found[part, tta].result(which) for run in members]
    scored = [result.all for result in results if result and result.all.scores.get(key) is not None]
    if not scored:
        return "–"
    if len(scored) == 1:
        return _cell(scored[0], key)
    values = [one.scores[key] or 0.0 for one in scored]
    return f"{mean(values):.4f} ± {stdev(values):.4f}"
