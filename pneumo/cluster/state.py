"""How far each fit of a graph is, and how that is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pneumo import runs
from pneumo.cluster.graph import Fit, Graph
from pneumo.cluster.job import FAILURE, Job
from pneumo.tables import Table, counted
from pneumo.training import lineage


class State(Enum):
    """How far a fit is."""

    finished = "finished"
    running = "running"
    queued = "queued"
    waiting = "waiting"
    failed = "failed"
    blocked = "cannot be made"
    stopped = "stopped"
    planned = "to be made"


LOST = (State.failed, State.blocked)


@dataclass
class Standing:
    """A fit's state, and the rest of its line."""

    state: State
    told: str = ""

    def __str__(self) -> str:
        return f"{self.state.value}{': ' * bool(self.told)}{self.told}"


def standings(graph: Graph, engines: Mapping[Path, Standing]) -> dict[Path, Standing]:
    """How far each fit is, ancestors first.

    Args:
        graph: the fits.
        engines: what an engine says of the fits that it has in hand.
    """
    found: dict[Path, Standing] = {}
    for path, fit in graph.fits.items():
        found[path] = _standing(graph, fit, engines.get(path), found)
    return found


def _standing(
    graph: Graph, fit: Fit, of_engine: Standing | None, before: Mapping[Path, Standing]
) -> Standing:
    path = fit.path
    if path in graph.done:
        return Standing(State.finished)
    if runs.is_held(path):
        return Standing(State.running, progress(fit))
    waits = ", ".join(map(str, graph.waits_for(fit)))
    if of_engine is not None:
        if of_engine.state is State.queued and waits:
            return Standing(State.waiting, f"for {waits}")
        return of_engine
    if (path / FAILURE).is_file():
        return Standing(State.failed, (path / FAILURE).read_text(encoding="utf-8").strip())
    if fit.parent is not None and fit.parent in before and before[fit.parent].state in LOST:
        return Standing(State.blocked, f"its parent {fit.parent} failed")
    if runs.is_begun(path):
        return Standing(State.stopped, progress(fit))
    if (path / runs.PLAN).is_file() and Job.read(path).output:
        return Standing(State.stopped, f"ended without a word; see {Job.read(path).output}")
    return Standing(State.planned, f"after {waits}" if waits else "")


def progress(fit: Fit) -> str:
    """How many epochs of a fit are done."""
    history = fit.path / runs.HISTORY
    lines = history.read_text(encoding="utf-8").splitlines() if history.is_file() else []
    return f"{max(len(lines) - 1, 0)} of {counted(fit.config.epochs, 'epoch')}"


def told(found: Mapping[Path, Standing]) -> str:
    """How many fits there are of each state, in one line."""
    states = [one.state for one in found.values()]
    counts = [f"{states.count(state):,} {state.value}" for state in State if state in states]
    return f"{counted(len(states), 'fit')}: {', '.join(counts)}"


def table(found: Mapping[Path, Standing]) -> str:
    """One line a fit."""
    rows = [[str(path), str(one)] for path, one in found.items()]
    return Table("fits", "", ["fit", "state"], rows, "").aligned()


def failures(graph: Graph, found: Mapping[Path, Standing]) -> list[str]:
    """Each fit that failed, with its one line and the command that makes it alone."""
    return [
        f"failed: {path}: {one.told}\n  {lineage.command_of(graph.fits[path].overrides)}"
        for path, one in found.items()
        if one.state is State.failed
    ]
