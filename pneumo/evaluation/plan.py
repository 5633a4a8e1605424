"""The fits of a study: ordinary runs, each made once; what is left of them, and for how long."""

import dataclasses
import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pneumo import mistakes, runs
from pneumo.data.settings import PhantomData
from pneumo.errors import PneumoError
from pneumo.evaluation.settings import Arm, Compute, Study, StudyFits
from pneumo.masks.settings import Postprocess
from pneumo.settings import options_of
from pneumo.tables import counted
from pneumo.training import lineage, twin
from pneumo.training.fit import check
from pneumo.training.options import SharedEpochs
from pneumo.training.settings import Config, System, system_of

log = logging.getLogger(__name__)

# of an epoch by the side of its films, see Compute
POWER = {Compute.pixels: 2, Compute.paper: 1}
POSITIVE = 0.2215  # share of the challenge's training films
CLOSE = 0.05  # compute that differs by no more counts as equal


@dataclass
class Trial:
    """What one arm comes to on one fold with one seed: chains of fits, one for each experiment."""

    arm: Arm
    system: System
    fold: int
    seed: int
    chains: list[list[Config]]
    overrides: list[list[str]]  # what each chain's last fit is typed with

    def at(self, arm: Arm, fold: int, seed: int) -> "Trial":
        """The same on another fold with another seed, under the arm's own name.

        Composing each anew would take a quarter of a second a fit.
        """
        chains = []
        for chain in self.chains:
            moved: list[Config] = []
            for one in chain:
                fit = dataclasses.replace(one, fold=fold, seed=seed)
                if moved:
                    fit = dataclasses.replace(fit, init_from=str(moved[-1].path / runs.WEIGHTS))
                moved.append(fit)
            chains.append(moved)
        own = [[*typed[:-2], *_cell(fold, seed)] for typed in self.overrides]
        return Trial(arm, self.system, fold, seed, chains, own)

    @property
    def folders(self) -> list[Path]:
        """The runs that are judged."""
        return [chain[-1].path for chain in self.chains]

    @property
    def rule(self) -> Postprocess:
        """The thresholds that the system, or its experiments, declare."""
        return self.system.postprocess.over(self.chains[0][-1].postprocess)

    @property
    def fits(self) -> list[Config]:
        """All fits, ancestors first, each once."""
        return list({one.path: one for chain in self.chains for one in chain}.values())


@dataclass
class Plan:
    """All trials of a study, and their fits in the order in which they are made."""

    study: Study
    trials: list[Trial]
    fits: list[Config]
    done: set[Path]
    # the fits whose training a fit without averaging may take over, see ``twin``
    twins: dict[Path, list[Config]]
    passing: set[Path]  # twins whose checkpoint was not asked for, so that it goes in the end
    failed: dict[Path, str] = field(default_factory=dict)  # with the reason

    @property
    def left(self) -> list[Config]:
        """The fits that are not finished."""
        return [one for one in self.fits if one.path not in self.done]

    def seconds(self, one: Config) -> float | None:
        """The time that training a finished fit took, where it is known."""
        told = runs.read_metrics(one.path).get(runs.TRAIN_SECONDS)
        return float(told) if isinstance(told, int | float) else None

    def seconds_left(self) -> float | None:
        """The time that the fits that are left will take; None as long as none is known.

        As fast as the finished fits of the same network and size, else as all of them, by pixels.
        """
        rates: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for one in self.fits:
            seconds = self.seconds(one) if one.path in self.done else None
            if seconds is not None:
                rates.setdefault(_kind(one), []).append((seconds, cost([one], Compute.pixels)))
        if not rates:
            return None
        everything = [pair for pairs in rates.values() for pair in pairs]
        total = 0.0
        for one in self.left:
            pairs = rates.get(_kind(one), everything)
            rate = sum(seconds for seconds, _ in pairs) / sum(pixels for _, pixels in pairs)
            if not self._takes_over(one):  # else it only validates
                total += rate * cost([one], Compute.pixels)
        return total

    def _takes_over(self, one: Config) -> bool:
        """Whether a fit that is left will find its training done."""
        return any(
            other.path not in self.done or (other.path / runs.CHECKPOINT).is_file()
            for other in self.twins.get(one.path, [])
        )

    def listed(self) -> list[str]:
        """The fits that are left, a line each."""
        return [
            f"  {one.path}: {counted(one.epochs, 'epoch')} at {one.resolution.size}²"
            + ", trained with its twin" * self._takes_over(one)
            for one in self.left
        ]

    def told(self) -> str:
        """What is finished, and how long the rest will take."""
        left = self.left
        done = f"{len(self.fits) - len(left):,} of {counted(len(self.fits), 'fit')} finished"
        if not left:
            return done
        seconds = self.seconds_left()
        if seconds is None:
            return f"{done}; how long the others take will be known when one is"
        return f"{done}, about {duration(seconds)} left"

    def command(self, path: Path) -> str:
        """The command that makes a fit, and what starts from it in its chain."""
        for trial in self.trials:
            for chain, overrides in zip(trial.chains, trial.overrides, strict=True):
                if path in [fit.path for fit in chain]:
                    return shlex.join(["python", "-m", "pneumo.train", *overrides])
        raise ValueError(f"{path}: not of this study")


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return counted(max(1, round(seconds)), "second")
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return counted(round(seconds / 60), "minute")


def cost(fits: Iterable[Config], compute: Compute) -> float:
    """Epochs, each by its films and their pixels or side, in epochs of all films at 512²."""
    return sum(_films(one) * (_side(one) / 512) ** POWER[compute] for one in fits)


def _films(one: Config) -> float:
    """The films that a fit sees, in those of a whole epoch; by the share of positives there is."""
    sampling = one.sampling
    if not isinstance(sampling, SharedEpochs):
        return one.epochs
    told = one.data.positive_rate if isinstance(one.data, PhantomData) else POSITIVE
    positive = one.scale.positive_rate or told
    shares = [sampling.at(epoch, one.epochs) for epoch in range(one.epochs)]
    return sum(positive / share for share in shares)


def _side(one: Config) -> int:
    """Of what the network is trained on: a film, or a window of it."""
    return one.augmentation.window or one.resolution.size


def _kind(one: Config) -> tuple[str, int]:
    network = f"{one.model.architecture.name} {one.model.encoder} {one.model.decoder_attention}"
    return network, one.resolution.size


def over(weaker: Sequence[str], stronger: Sequence[str]) -> list[str]:
    """Settings of two origins as one line of them.

    A weaker setting gives way to the same one among the stronger, and one of a group gives way
    where the stronger choose another option of that group.
    """
    keys = {_key(one) for one in stronger}
    # a scale that is chosen leaves what else is said of the scale: scale=mini scale.images=100
    groups = keys - {"scale"}
    kept = [
        one for one in weaker if _key(one) not in keys and _key(one).partition(".")[0] not in groups
    ]
    return [*kept, *stronger]


def _cell(fold: int, seed: int) -> list[str]:
    return [f"fold={fold}", f"seed={seed}"]


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def plan(settings: StudyFits, typed: Sequence[str]) -> Plan:
    """The fits of a study.

    Args:
        settings: what the study and the command line say.
        typed: what was typed; what is not of the study itself is a setting of every fit.

    Raises:
        PneumoError: no study, or an arm that cannot be fitted.
    """
    study = chosen(settings, typed)
    given = over(study.overrides, fit_settings(typed))
    arms = {arm.name: arm for arm in study.arms}
    first: dict[str, Trial] = {}  # on the first fold with the first seed
    for arm in study.arms:
        trial = _trial(arm, study, given)
        if arm.compute_of is not None:
            like = _trial(arms[arm.compute_of], study, given)
            trial = _at_cost(trial, cost(like.fits, study.compute), study, given)
        first[arm.name] = trial
    # all arms of one fold and seed before the next
    trials = [
        first[arm.name].at(arm, fold, seed)
        for seed in study.seeds
        for fold in study.folds
        for arm in study.arms
    ]
    fits = list({one.path: one for trial in trials for one in trial.fits}.values())
    twins = {}
    for place, one in enumerate(fits):
        found = [other for other in fits[:place] if twin.alike(one, other)]
        if found:
            twins[one.path] = found
    serving = {other.path for others in twins.values() for other in others}
    return Plan(
        study,
        trials,
        [_keeping(one) if one.path in serving else one for one in fits],
        {one.path for one in fits if lineage.is_done(one, one.path)},
        twins,
        {one.path for one in fits if one.path in serving and not one.log.checkpoints},
    )


def chosen(settings: StudyFits, typed: Sequence[str] = ()) -> Study:
    """The study as it is at this scale. Raises PneumoError."""
    study = settings.study
    if study is None:
        names = ", ".join(options_of("study"))
        raise PneumoError(f"no study chosen: add +study=<name>, one of {names}")
    if settings.scale.name == "mini":
        small, said = study.mini, [_key(one) for one in typed]
        study = dataclasses.replace(
            study,
            folds=study.folds if "study.folds" in said else small.folds,
            seeds=study.seeds if "study.seeds" in said else small.seeds,
            overrides=over(study.overrides, small.overrides),
        )
    if len(study.folds) * len(study.seeds) < 2:
        raise PneumoError(
            f"study.folds={study.folds}, study.seeds={study.seeds}: a single fit of an arm says "
            "nothing of the arm; at least two folds or two seeds"
        )
    return study


def folder(settings: StudyFits, typed: Sequence[str]) -> Path:
    """Where a study's tables and figure are kept.

    ``<runs_dir>/studies/<study>/<data>-<scale>``, and what else was typed for the fits.
    """
    assert settings.study is not None
    own = fit_settings(typed)
    own += [one for one in typed if _key(one) in ("study.folds", "study.seeds", "study.compute")]
    _, more = runs.tags(own, [], lineage.NAMED, lineage.INCIDENTAL)
    name = "-".join(filter(None, (settings.data.name, settings.scale.name, more)))
    return Path(settings.runs_dir) / "studies" / settings.study.name / name


def fit_settings(typed: Sequence[str]) -> list[str]:
    """What was typed for the fits, without what is the study's own. Raises PneumoError."""
    kept = []
    for one in typed:
        key = _key(one)
        if key in ("experiment", "system", "parent", "init_from", "tag", "variant"):
            raise PneumoError(f"{one}: the arms of a study say that, not its command line")
        if key in ("fold", "seed"):
            raise PneumoError(f"{one}: a study has several; type study.{key}s=[0,1]")
        if key.partition(".")[0] != "study":
            kept.append(one)
    return kept


def _system(arm: Arm) -> System:
    if arm.system is not None:
        return system_of(arm.system)
    assert arm.experiment is not None
    return System(name=arm.name, experiments=[arm.experiment])


def _trial(
    arm: Arm,
    study: Study,
    given: Sequence[str],
    more: Mapping[str, Sequence[str]] | None = None,
) -> Trial:
    """An arm's chains on the first fold with the first seed.

    Args:
        arm: the arm.
        study: which folds and seeds there are.
        given: settings of every fit of the study.
        more: settings of single experiments.

    Raises:
        PneumoError: an arm that cannot be fitted.
    """
    system = _system(arm)
    # the parts are the study's, whatever the system's own cross-validation is
    theirs = [one for one in system.overrides if _key(one).partition(".")[0] != "split"]
    settings = over(over(theirs, given), arm.overrides)
    fold, seed = study.folds[0], study.seeds[0]
    chains, overrides = [], []
    for experiment in system.members:
        extra = (more or {}).get(experiment, [])
        own = [f"+experiment={experiment}", *over(settings, extra), *_cell(fold, seed)]
        try:
            chains.append(lineage.chain(lineage.declared(own), own))
        except (PneumoError, HydraException, OmegaConfBaseException) as error:
            said = mistakes.explain(error, Config)
            raise PneumoError(f"study.arms: {arm.name}: {said}") from None
        overrides.append(own)
    averaged = chains[: len(system.experiments)]
    rules = [system.postprocess.over(chain[-1].postprocess) for chain in averaged]
    if any(rule != rules[0] for rule in rules):
        raise PneumoError(
            f"study.arms: {arm.name}: its experiments declare different thresholds; give the arm "
            "overrides that say one of each, postprocess.binarization_threshold=…"
        )
    return Trial(arm, system, fold, seed, chains, overrides)


def _at_cost(trial: Trial, target: float, study: Study, given: Sequence[str]) -> Trial:
    """A trial with epochs such that it costs so much.

    Several fits that cost too much are shortened alike, by ``scale.epochs``, as far as the scale's
    least epochs allow. What is then missing or too much is that of the fits that are judged. The
    table of the study says what came of it.
    """
    arm, compute = trial.arm, study.compute
    own = cost(trial.fits, compute)
    if len(trial.fits) > 1 and own > (1 + CLOSE) * target:
        factor = trial.fits[0].scale.epochs * target / own
        shortened = over(arm.overrides, [f"scale.epochs={factor:.4g}"])
        arm = dataclasses.replace(arm, overrides=shortened)
        trial = _trial(arm, study, given)
        own = cost(trial.fits, compute)
    if abs(own / target - 1) > CLOSE:
        last = [chain[-1] for chain in trial.chains]
        theirs = cost(last, compute)
        factor = (target - (own - theirs)) / theirs
        epochs = {one.experiment: max(1, round(one.epochs * factor)) for one in last}
        more = {name: [f"epochs={count}"] for name, count in epochs.items()}
        try:
            trial = _trial(arm, study, given, more)
        except PneumoError:  # its recipe names epochs that so short a fit has not
            log.info("study.arms: %s: stays at %.2f times that compute", arm.name, own / target)
    return trial


def _keeping(one: Config) -> Config:
    return dataclasses.replace(one, log=dataclasses.replace(one.log, checkpoints=True))


def make(planned: Plan) -> None:
    """Make the fits that are left; one that fails does not keep the others from being made.

    Raises PneumoError for a fit that is bound to fail, before any is made.
    """
    first = {chain[0].path for trial in planned.trials for chain in trial.chains}
    for one in planned.left:
        check(one, starts_here=one.path in first)
    for one in planned.left:
        log.info("\n%s: %s", planned.study.name, planned.told())
        try:
            _make(planned, one)
        except (PneumoError, OSError, MemoryError, RuntimeError) as error:
            planned.failed[one.path] = mistakes.explain(error, Config)
            log.warning("%s: %s", one.path, planned.failed[one.path])
    for path in planned.passing:
        takers = [one for one, twins in planned.twins.items() if path in [t.path for t in twins]]
        if path in planned.done and planned.done.issuperset(takers):
            (path / runs.CHECKPOINT).unlink(missing_ok=True)
    log.info("\n%s: %s", planned.study.name, planned.told())


def _make(planned: Plan, one: Config) -> None:
    """Make a fit, from its twin's training where there is one. Raises PneumoError."""
    parent = Path(one.init_from).parent if one.init_from else None
    if parent in planned.failed:
        raise PneumoError(f"its parent {parent} failed")
    twins = planned.twins.get(one.path, [])
    twin.take_over(one, twins)
    lineage.make(one)
    planned.done.add(one.path)
