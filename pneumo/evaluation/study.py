"""A study's finished fits → the scores of its arms, and which of their differences are real."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.evaluation import blend, choosing, methods, scores
from pneumo.evaluation.members import member_of
from pneumo.evaluation.plan import Plan, Trial, cost, duration
from pneumo.evaluation.results import known
from pneumo.evaluation.scores import Difference, Outcomes
from pneumo.evaluation.settings import Arm, Tune
from pneumo.inference.maps import Predictions
from pneumo.inference.settings import Films
from pneumo.masks.rule import plain, rule_text
from pneumo.masks.scores import number
from pneumo.masks.truth import Truth
from pneumo.settings import Machine
from pneumo.tables import Table, counted
from pneumo.training.settings import Blend

log = logging.getLogger(__name__)

# what is compared; each comparison of each counts for the correction
TITLES = {"dice_positive": "Dice on positives", "dice": "Dice"}
SCORES = tuple(TITLES)
CHUNK = 1000  # resamples at a time: a row of weights for each film
# below, the intervals of tests/evaluation/test_methods.py hold the truth in fewer draws than 88 %
ENOUGH = 5
# The bootstrap counts what trainings differ in twice, as fits and in the folds, so it is careful:
# of 150 simulated studies of three equal arms (five folds × two seeds) none called anything real,
# and 1.3 % had a p below .05 before it was corrected (ways() of tests/evaluation/test_study.py).

Drawn = dict[str, np.ndarray]  # score → (methods, 1 + resamples)


@dataclass
class Value:
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float


UNKNOWN = Value(math.nan, math.nan, math.nan)


@dataclass
class ArmFound:
    """What an arm came to."""

    name: str
    what: str  # experiment or system, and what is changed
    rule: str  # thresholds declared
    fits: int  # times it was fitted
    compute: float  # pixels or sides of its epochs, over those of the reference
    seconds: list[float] | None  # of training, parents included, for each time; None: not known
    tta: dict[str, Value]
    plain: dict[str, Value]  # without TTA
    tuned: dict[str, Value]  # with TTA, thresholds chosen on other films

    @property
    def mean_seconds(self) -> float | None:
        """Of training it once."""
        return None if self.seconds is None else float(np.mean(self.seconds))


@dataclass
class Contrast:
    """A difference of two arms, or of an arm with and without TTA."""

    of: str
    against: str
    score: str
    difference: Difference
    corrected: float  # p, by Holm, for all contrasts of the study
    verdict: str


@dataclass
class StudyFound:
    """Everything that a study found."""

    name: str
    setting: str
    command: str
    commit: str | None
    reference: str
    films: int
    positives: int
    patients: int
    folds: list[int]
    seeds: list[int]
    compute: str
    resamples: int
    devices: list[str]
    arms: list[ArmFound]
    contrasts: list[Contrast]
    left_out: list[str] = field(default_factory=list)  # arms with fits that failed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, NaN as None."""
        return _plain(dataclasses.asdict(self))

    @property
    def basis(self) -> str:
        """What it was measured on, in words."""
        return (
            f"n = {counted(self.films, 'film')} ({self.positives:,} positive) of "
            f"{counted(self.patients, 'patient')}; {counted(len(self.folds), 'fold')} × "
            f"{counted(len(self.seeds), 'seed')}"
        )


def _plain(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    return known(found) if isinstance(found, float) else found


def judge(planned: Plan, setting: str, command: str, machine: Machine) -> StudyFound:
    """Judge the arms whose fits are all finished. Raises PneumoError if there are none."""
    study = planned.study
    whole, left_out = [], []
    for arm in study.arms:
        trials = [trial for trial in planned.trials if trial.arm.name == arm.name]
        finished = all(one.path in planned.done for trial in trials for one in trial.fits)
        if finished:
            whole.append((arm, trials))
        else:
            left_out.append(arm.name)
    if not whole:
        raise PneumoError(f"study {study.name}: no arm has all its fits, so nothing can be judged")
    judged = [_outcomes(trials, planned, machine) for _, trials in whole]
    ways = [fits for one in judged for fits in one]
    if any(films.known is not Truth.masks for films in ways[0]):
        raise PneumoError(
            f"study {study.name}: arms are compared by Dice, but the masks of these films are "
            "not known"
        )
    drawn = draw(ways, study.resamples, study.seed)
    found = []
    # three rows of every arm: TTA, without, tuned
    reference = [trial for trial in planned.trials if trial.arm.name == study.reference]
    spent = cost(reference[0].fits, study.compute)
    for place, (arm, trials) in enumerate(whole):
        with_tta, without, tuned = (_values(drawn, 3 * place + way) for way in range(3))
        if not choosing.tunable(trials[0].rule):
            tuned = dict.fromkeys(tuned, UNKNOWN)
        times = [_seconds(planned, trial) for trial in trials]
        found.append(
            ArmFound(
                arm.name,
                described(arm),
                rule_text(plain(trials[0].rule)),
                len(trials),
                cost(trials[0].fits, study.compute) / spent,
                [time for time in times if time is not None] if None not in times else None,
                with_tta,
                without,
                tuned,
            )
        )
    names = [arm.name for arm, _ in whole]
    films = Outcomes.join(list({frozenset(one.ids): one for one in ways[0]}.values()))
    return StudyFound(
        study.name,
        setting,
        command,
        runs.commit(),
        study.reference,
        films=len(films),
        positives=int(films.positive.sum()),
        patients=len(set(filter(None, films.patients))),
        folds=study.folds,
        seeds=study.seeds,
        compute=study.compute.name,
        resamples=study.resamples,
        devices=_devices(planned),
        arms=found,
        contrasts=contrasts(drawn, names, study.reference, len(ways[0])),
        left_out=left_out,
    )


def described(arm: Arm) -> str:
    """What an arm is, as it would be typed."""
    first = f"system={arm.system}" if arm.system else f"experiment={arm.experiment}"
    return " ".join([f"+{first}", *arm.overrides])


def _seconds(planned: Plan, trial: Trial) -> float | None:
    """The time of training all fits of a trial, as if none were shared with other arms."""
    times = [planned.seconds(one) for one in trial.fits]
    return None if None in times else sum(time for time in times if time is not None)


def _devices(planned: Plan) -> list[str]:
    told = [runs.read_metrics(path).get(runs.DEVICE) for path in planned.done]
    return sorted({str(name) for name in told if name})


def _outcomes(
    trials: Sequence[Trial], planned: Plan, machine: Machine
) -> tuple[list[Outcomes], list[Outcomes], list[Outcomes]]:
    """Films of all trials of an arm, in the order of seeds and folds.

    With TTA, without it, and with TTA under thresholds chosen on the other folds.
    """
    rule = trials[0].rule
    ways: tuple[list[Outcomes], list[Outcomes], list[Outcomes]] = ([], [], [])
    for seed in planned.study.seeds:
        parts = _parts([trial for trial in trials if trial.seed == seed], machine)
        both = choosing.judge(parts, rule, True, Tune.honest, planned.study.seed)
        without = choosing.judge(parts, rule, False)
        for way, result in zip(ways, (both[0], without[0], both[-1]), strict=True):
            ids = np.array(result.outcomes.ids)
            way += [result.outcomes[np.flatnonzero(np.isin(ids, part.ids))] for part in parts]
    return ways


def _parts(folds: Sequence[Trial], machine: Machine) -> list[Predictions]:
    """What an arm says of the validation films of each fold: of several networks, their blend."""
    system = folds[0].system
    alike = [
        member_of(system, chain[-1].experiment, chain[-1].path)
        for fold in folds
        for chain in fold.chains
    ]
    asked = Films(
        system=folds[0].arm.system,
        blend=Blend.mean_folds,
        runs_dir=folds[0].chains[0][-1].runs_dir,
        machine=machine,
    )
    with blend.without_news():  # said when the fits were made
        return blend.blend([blend.predict(one, asked) for one in alike], alike, asked)


def draw(ways: Sequence[Sequence[Outcomes]], count: int, seed: int) -> Drawn:
    """The scores of each, as they are and resampled: patients, folds and seeds, see ``methods``.

    Raises PneumoError.
    """
    chunks = []
    for place, begin in enumerate(range(0, count, CHUNK)):
        size = min(CHUNK, count - begin)
        chunks.append(methods.values(ways, size, 1_000_003 * seed + place, paired=True))
    return {
        name: np.hstack([chunks[0][name][:, :1], *(chunk[name][:, 1:] for chunk in chunks)])
        for name in SCORES
    }


def _values(drawn: Drawn, row: int) -> dict[str, Value]:
    """A method's scores with their intervals.

    They end at 0 and 1, beyond which the stretching of few folds can carry a resample.
    """
    return {
        name: Value(float(table[row, 0]), *scores.middle(np.clip(table[row, 1:], 0, 1)))
        for name, table in drawn.items()
    }


def contrasts(drawn: Drawn, names: Sequence[str], reference: str, fits: int) -> list[Contrast]:
    """Every arm minus the reference, both with TTA; and every arm with TTA minus without.

    Args:
        drawn: three rows of every arm: with TTA, without, and under chosen thresholds.
        names: of the arms.
        reference: the arm that others are compared with, if it is among them.
        fits: times that each arm was fitted.
    """
    pairs = []
    for place, name in enumerate(names):
        if reference in names and name != reference:
            pairs.append((name, reference, 3 * place, 3 * names.index(reference)))
    for place, name in enumerate(names):
        pairs.append((f"{name}, TTA", f"{name}, no TTA", 3 * place, 3 * place + 1))
    found = []
    for of, against, one, other in pairs:
        for score in SCORES:
            gap = drawn[score][one] - drawn[score][other]
            found.append((of, against, score, scores.difference(float(gap[0]), gap[1:])))
    corrected = holm([difference.p for *_, difference in found])
    return [Contrast(*one, p, verdict(p, fits)) for one, p in zip(found, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """P corrected for their number: Holm 1979, Scandinavian Journal of Statistics 6.

    One that is not known counts, and stays at 1.
    """
    values = np.nan_to_num(np.array(p, np.float64), nan=1.0)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in corrected]


def verdict(corrected: float, fits: int) -> str:
    """Whether a difference is real. Of fewer fits than five, no interval is wide enough to say."""
    if corrected >= 0.05:
        return "not shown"
    return "real" if fits >= ENOUGH else f"suggested ({fits} fits)"


def tables(found: StudyFound) -> list[Table]:
    """The arms, and their differences."""
    return [_arms(found), _differences(found)]


def _arms(found: StudyFound) -> Table:
    rows = []
    for arm in found.arms:
        mean = arm.mean_seconds
        rows.append(
            [
                arm.name,
                f"{arm.compute:.2f}",
                duration(mean) if mean is not None else "–",
                *(_cell(arm.tta[score]) for score in SCORES),
                _cell(arm.plain["dice_positive"]),
                _cell(arm.tuned["dice_positive"]),
            ]
        )
    positives, everything = TITLES.values()
    head = ["arm", "compute", "time", positives, everything]
    head += [f"{positives}, no TTA", f"{positives}, tuned"]
    device = f" on {', '.join(found.devices)}" if found.devices else ""
    note = (
        f"{found.basis}. Flip TTA, thresholds declared beforehand, where nothing else is said; "
        "tuned: thresholds chosen on the other folds. Brackets: 95 % intervals, hierarchical "
        f"bootstrap of patients, folds and seeds. Compute: {found.compute} of all epochs, parents "
        f"included, over those of {found.reference}. Time: training an arm once, parents included"
        f"{device}."
    )
    if found.left_out:
        note += f" Left out, since some of their fits failed: {', '.join(found.left_out)}."
    return Table("arms", f"Study {found.name}: arms ({found.setting})", head, rows, note)


def _cell(value: Value) -> str:
    if math.isnan(value.value):
        return "–"
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"


def _differences(found: StudyFound) -> Table:
    rows = [
        [
            f"{one.of} − {one.against}",
            TITLES[one.score],
            f"{one.difference.mean:+.4f} [{one.difference.low:+.4f}, {one.difference.high:+.4f}]",
            f"{one.difference.p:.4f}",
            f"{one.corrected:.4f}",
            one.verdict,
        ]
        for one in found.contrasts
    ]
    note = (
        "Hierarchical bootstrap of patients, folds and seeds, the same for both sides; intervals "
        f"of 95 % are not corrected. Corrected p: Holm, for all {len(rows)} lines. Real: below "
        f".05 with at least {ENOUGH} fits an arm; with fewer, intervals are too narrow "
        "(`pytest tests/evaluation/test_methods.py`), and such a difference is but suggested."
    )
    least = 2 / (found.resamples + 1) * len(rows)
    if least >= 0.05:
        note += f" With {found.resamples:,} resamples none can be: study.resamples=10000."
    head = ["difference", "score", "mean", "p", "corrected p", "verdict"]
    return Table("differences", "Which differences are real", head, rows, note)
