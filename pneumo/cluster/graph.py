"""What an experiment, a sweep, a system or a study asks for: fits, and which waits for which."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.evaluation import plan
from pneumo.evaluation.plan import Plan
from pneumo.evaluation.settings import StudyFits
from pneumo.training import lineage
from pneumo.training.fit import check
from pneumo.training.settings import Config, System


@dataclass
class Fit:
    """One fit, and what must be finished before it starts."""

    config: Config
    overrides: list[str]  # of the command that makes it: its own, or that of a descendant
    own: bool  # whether the command is its own
    parent: Path | None = None
    twins: tuple[Path, ...] = ()  # fits whose training it may take over

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.config.path


class Graph:
    """Fits by their folders, ancestors first, each once."""

    def __init__(self, fits: Iterable[Fit]):
        """Raises PneumoError for two different fits of one folder, or a folder of another fit."""
        self.fits: dict[Path, Fit] = {}
        for fit in fits:
            self._add(fit)
        self.done = {path for path, fit in self.fits.items() if lineage.is_done(fit.config, path)}

    def _add(self, fit: Fit) -> None:
        known = self.fits.setdefault(fit.path, fit)
        if known is fit:
            return
        before, now = known.config.to_dict(), fit.config.to_dict()
        differing = runs.differences(before, now, lineage.INCIDENTAL)
        if differing:
            raise PneumoError(
                f"{fit.path}: asked for twice, with different settings ({differing[0]}); "
                "set them apart with tag=<name> or variant=<name>"
            )
        if fit.own and not known.own:
            self.fits[fit.path] = replace(fit, parent=known.parent or fit.parent)

    @property
    def left(self) -> list[Fit]:
        """The fits that are not finished, ancestors first."""
        return [fit for path, fit in self.fits.items() if path not in self.done]

    def waits_for(self, fit: Fit) -> list[Path]:
        """The unfinished fits that one waits for: its parent, and those it may take over from."""
        after = [fit.parent, *fit.twins]
        return [path for path in after if path in self.fits and path not in self.done]

    def check(self) -> None:
        """Raise PneumoError for a fit that is bound to fail; reads no film."""
        for fit in self.left:
            check(fit.config, starts_here=not self.waits_for(fit))


def of(settings: StudyFits, typed: Sequence[str]) -> list[Fit]:
    """The fits of the study, the system or the experiment that is asked for. Raises PneumoError.

    Args:
        settings: what was composed.
        typed: what was typed for the fits.
    """
    if settings.study is not None:
        return of_study(plan.plan(settings, typed))
    if settings.system is not None:
        return of_system(settings.system, typed)
    return of_experiment(typed)


def of_experiment(typed: Sequence[str]) -> list[Fit]:
    """The fits of ``pneumo.train`` with these settings. Raises PneumoError."""
    overrides = list(typed)
    chain = lineage.chain(lineage.declared(overrides), overrides)
    finished = [place for place, one in enumerate(chain) if lineage.is_done(one, one.path)]
    # what led to a finished fit is not needed again
    needed = chain[finished[-1] :] if finished else chain
    return _linked(needed, overrides)


def of_system(system: System, typed: Sequence[str]) -> list[Fit]:
    """The fits of all experiments and folds of a system. Raises PneumoError."""
    return [fit for own in lineage.members_of(system, typed) for fit in of_experiment(own)]


def of_study(planned: Plan) -> list[Fit]:
    """The fits of a study's plan, also those that take over a training."""
    configs = {one.path: one for one in planned.fits}
    fits = []
    for trial in planned.trials:
        for chain, overrides in zip(trial.chains, trial.overrides, strict=True):
            for fit in _linked([configs[one.path] for one in chain], overrides):
                twins = tuple(other.path for other in planned.twins.get(fit.path, []))
                fits.append(replace(fit, twins=twins))
    return fits


def _linked(chain: Sequence[Config], overrides: list[str]) -> list[Fit]:
    """A chain's fits, each after the one before."""
    last = len(chain) - 1
    fits = [Fit(one, overrides, own=place == last) for place, one in enumerate(chain)]
    for parent, child in pairwise(fits):
        child.parent = parent.path
    return fits
