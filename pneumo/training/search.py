"""A search over settings: Optuna proposes, a named run tries, its validation score is told back.

What was proposed and told lies in Optuna's journal, a file that also works on NFS, where SQLite may
not (https://optuna.readthedocs.io, JournalFileBackend). Every trial is an ordinary run, so what was
trained is never trained again: a search that was killed goes on with the trials that it had begun.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pneumo import files, mistakes, runs
from pneumo.errors import PneumoError
from pneumo.masks.scores import LABELS, number
from pneumo.tables import Table, counted
from pneumo.training import lineage, space
from pneumo.training.settings import Config, Search
from pneumo.training.space import Range, Searched

log = logging.getLogger(__name__)

JOURNAL, RECORD, TABLE = "journal.log", "search.json", "trials.csv"
TRIALS = "trials"  # folder of a lock for each trial, and of why it failed
MISTAKES = (PneumoError, HydraException, OmegaConfBaseException)


@dataclass
class Trial:
    """What is tried, held by this process until it is told how it went."""

    number: int
    overrides: list[str]
    held: filelock.BaseFileLock


class Trials:
    """The trials of a search, of all processes that work on it."""

    def __init__(self, wanted: Search, searched: dict[str, Searched], folder: Path):
        """Open the search of a folder, or begin it. Raises PneumoError without Optuna."""
        self.wanted, self.searched, self.folder = wanted, searched, folder
        self.optuna = _optuna()
        with runs.lock(folder):
            backend = self.optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
            self.study = self.optuna.create_study(
                storage=self.optuna.storages.JournalStorage(backend),
                study_name="search",
                direction="maximize",  # every score of ``Search`` is better when it is higher
                load_if_exists=True,
            )

    def take(self) -> Trial | None:
        """One that was interrupted, else a new one; None if no more are to be begun."""
        running = self.optuna.trial.TrialState.RUNNING
        with runs.lock(self.folder):
            everything = self.study.get_trials(deepcopy=False)
            for one in everything:
                held = self._hold(one.number) if one.state is running else None
                if held is not None and self._is_whole(one):
                    return Trial(one.number, self.typed(one), held)
                if held is not None:  # killed while it was proposed
                    self.study.tell(one.number, state=self.optuna.trial.TrialState.FAIL)
                    held.release()
            if sum(map(self._is_whole, everything)) >= self.wanted.trials:
                return None
            # one seed for each proposal, so that a search that was interrupted proposes the same
            self.study.sampler = self._sampler(self.wanted.seed + len(everything))
            new = self.study.ask({key: self._distribution(key) for key in self.searched})
            held = self._hold(new.number)
            assert held is not None  # whoever begins one holds the lock of the folder
            return Trial(new.number, self.typed(new), held)

    def tell(self, trial: Trial, score: float | None, reason: str = "") -> None:
        """Say how a trial went, and let go of it; without a score, for which reason."""
        state = self.optuna.trial.TrialState
        with runs.lock(self.folder):
            if score is None:
                files.write_text(self._reason(trial.number), reason + "\n")
                self.study.tell(trial.number, state=state.FAIL)
            else:
                self.study.tell(trial.number, score)
        trial.held.release()

    def finished(self) -> list[Any]:
        """Those with a score, as Optuna has them, the best one first."""
        complete = self.optuna.trial.TrialState.COMPLETE
        known = [one for one in self.study.get_trials() if one.state is complete]
        return sorted(known, key=lambda one: (-one.value, one.number))

    def others(self) -> list[Any]:
        """Those without a score: failed, or in the hands of another process."""
        complete = self.optuna.trial.TrialState.COMPLETE
        whole = [one for one in self.study.get_trials() if self._is_whole(one)]
        return [one for one in whole if one.state is not complete]

    def typed(self, trial: Any) -> list[str]:
        """What a trial adds to what was typed."""
        own = []
        for key, one in self.searched.items():
            value = trial.params[key]
            own.append(f"{key}={one.typed(value) if isinstance(one, Range) else value}")
        return own

    def state(self, trial: Any) -> str:
        """What a table says of a trial beside its score: nothing of one that has a score."""
        if not trial.state.is_finished():
            return "running"
        failed, why = trial.value is None, self._reason(trial.number)
        return why.read_text(encoding="utf-8").strip() if failed and why.is_file() else ""

    def _reason(self, trial: int) -> Path:
        return self.folder / TRIALS / f"{trial}.txt"  # beside its lock

    def _is_whole(self, trial: Any) -> bool:
        return set(trial.params) == set(self.searched)

    def _hold(self, trial: int) -> filelock.BaseFileLock | None:
        """The lock of a trial; None if another process works on it."""
        (self.folder / TRIALS).mkdir(exist_ok=True)
        held = filelock.FileLock(self.folder / TRIALS / f"{trial}.lock")
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            return None
        return held

    def _distribution(self, key: str) -> Any:
        kinds, one = self.optuna.distributions, self.searched[key]
        if not isinstance(one, Range):
            return kinds.CategoricalDistribution(one.samples)
        if one.whole:
            return kinds.IntDistribution(int(one.low), int(one.high), log=one.log)
        return kinds.FloatDistribution(one.low, one.high, log=one.log)

    def _sampler(self, seed: int) -> Any:
        with warnings.catch_warnings():
            # several processes: what others try counts as bad until they have told
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            return self.optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError:
        raise PneumoError("pneumo.search needs Optuna: pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def folder(first: Config, name: str, typed: Sequence[str]) -> Path:
    """Where a search is kept: ``<runs_dir>/searches/<experiment>[-<name>]/…``, then as its runs.

    Args:
        first: any fit of the search.
        name: that of the search.
        typed: what was typed for every trial.
    """
    tag, variant = runs.tags(
        typed, [*lineage.SHARED, *first.whole_chain], lineage.NAMED, lineage.INCIDENTAL
    )
    return runs.path(
        str(Path(first.runs_dir, "searches")),
        "-".join(filter(None, (first.experiment, name))),
        first.data.name,
        first.scale.name,
        tag,
        first.fold,
        first.seed,
        variant,
    )


def search(wanted: Search, typed: Sequence[str]) -> Trials:
    """Make the trials that are missing.

    Args:
        wanted: what is tried.
        typed: what was typed for every trial.

    Raises:
        PneumoError: a space that cannot be searched, another search in the folder, or a trial that
            fails before one has succeeded, since what is wrong is then likely wrong for all.
    """
    for one in typed:
        if one.partition("=")[0] in ("tag", "variant", "+system"):
            raise PneumoError(f"{one}: a search tries one experiment and names its runs itself")
    _optuna()  # without it, nothing else need be looked at
    searched = space.read(wanted.space, typed)
    place = folder(_check(searched, typed), wanted.name, typed)
    trials = Trials(wanted, searched, place)
    _check_same(wanted, typed, place)
    for key, values in searched.items():
        log.info("%s: %s", key, values)
    while (trial := trials.take()) is not None:
        own = [*typed, *trial.overrides]
        log.info("\ntrial %d of %d: %s", trial.number + 1, wanted.trials, " ".join(trial.overrides))
        score, reason = None, ""
        try:
            score = _tried(own, wanted.score)
            reason = f"no {wanted.score} of these films"
        except Exception as error:
            if not isinstance(error, MISTAKES) and not mistakes.is_memory(error):
                raise  # of the code, or of a disk: the trial goes on when that is mended
            reason = mistakes.explain(error, Config)
        trials.tell(trial, score, reason)
        if score is None:
            log.warning("trial %d failed: %s", trial.number + 1, reason)
            if not trials.finished():
                how = lineage.command_of(own)
                raise PneumoError(f"trial {trial.number + 1}: {reason}; alone: {how}")
        files.write_text(place / TABLE, table(trials).csv())
    return trials


def _check(searched: dict[str, Searched], typed: Sequence[str]) -> Config:
    """The fit of the first value of each setting; reads no film.

    Raises PneumoError for a value that no fit can have.
    """
    from pneumo.training.fit import check  # torch takes seconds, and help needs none

    first = {key: one.samples[0] for key, one in searched.items()}
    tried = [first]
    for key, one in searched.items():
        tried += [{**first, key: sample} for sample in one.samples[1:]]
    fits = []
    for values in tried:
        own = [*typed, *(f"{key}={value}" for key, value in values.items())]
        try:
            fits.append(lineage.scaled(lineage.declared(own), own))
            check(fits[-1], starts_here=False)
        except MISTAKES as error:
            raise PneumoError(mistakes.explain(error, Config)) from None
    return fits[0]


def _check_same(wanted: Search, typed: Sequence[str], place: Path) -> None:
    """Refuse to go on with a search that was begun with other settings."""
    learnt = [one for one in typed if not _is_elsewhere(one.lstrip("+").partition("=")[0])]
    now = {**asdict(wanted), "typed": sorted(learnt)}
    now.pop("trials")
    with runs.lock(place):
        if not (place / RECORD).is_file():
            files.write_json(place / RECORD, now)
        before = files.read_json(place / RECORD)
    found = runs.differences(before, now, ())
    if found:
        raise PneumoError(
            f"{place} holds a search with other settings (recorded → wanted: {'; '.join(found)}); "
            "keep both with search.name=<name>, or delete that folder; its runs stay"
        )


def _is_elsewhere(key: str) -> bool:
    """Whether a setting changes nothing of a trial, stands in the folder's name, or is a place."""
    known = (*lineage.INCIDENTAL, *lineage.NAMED)
    return key in known or key.partition(".")[0] in known


def _tried(own: Sequence[str], score: str) -> float | None:
    """Train a trial, or find it trained; its validation score. Raises PneumoError."""
    before = sys.argv
    sys.argv = ["pneumo.train", *own]  # what the run records
    try:
        return lineage.train(lineage.declared(list(own)), own)[-1].get(score)
    finally:
        sys.argv = before


def table(trials: Trials) -> Table:
    """A line each: what was tried and its score, the best first; then what failed or still runs."""
    rows = []
    for one in [*trials.finished(), *trials.others()]:
        values = [said.partition("=")[2] for said in trials.typed(one)]
        rows.append([str(one.number + 1), *values, number(one.value), trials.state(one)])
    label = LABELS[trials.wanted.score]
    note = (
        f"{counted(len(trials.finished()), 'trial')} by validation, at each network's own size. "
        "The best of many on the same films is too good: judge it on others."
    )
    return Table("trials", "", ["trial", *trials.searched, label, ""], rows, note)
