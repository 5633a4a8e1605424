"""What a benchmark measures, and how: ways in alternating rounds, and one row for each comparison.

A ratio says how many times as fast ours is as the other way: 1 is as fast, .97 is 3 % slower. Ways
are timed in turn within one process, so that both meet the same machine; the ratio of each round is
kept, and the table shows their median and range. Peak memory is taken in one more round, untimed.
"""

import ctypes
import gc
import importlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pneumo.tables import Table

Way = Callable[[], object]
Clock = Literal["cpu", "wall"]


class NotHere(Exception):
    """What a benchmark needs is not on this machine; the text says what and how to get it."""


@dataclass(frozen=True)
class Spent:
    """Seconds that one round took: by the clock, and of processors.

    ``cpu`` counts all threads of this process and child processes that have ended.
    """

    wall: float
    cpu: float


@dataclass
class Timed:
    """A way's rounds, and the memory it took at most, in MiB (None: not taken)."""

    rounds: list[Spent] = field(default_factory=list)
    peak: float | None = None

    def seconds(self, clock: Clock = "cpu") -> list[float]:
        """Each round's seconds."""
        return [getattr(one, clock) for one in self.rounds]

    def median(self, clock: Clock = "cpu") -> float:
        """The middle round's seconds."""
        return median(self.seconds(clock))


@dataclass
class Row:
    """One comparison, or one measured value.

    Args:
        name: what was done, with sizes: ``run lengths, decode, 1024²``.
        ours, other: medians in ``unit``; ``other`` is None if there is nothing beside ours.
        ratios: how many times as fast ours was, in each round.
        peak, other_peak: memory taken at most, in MiB beyond what was there before.
        at_least: the ratio that is the goal.
        against: what the other way is, in a few words.
        limit: what bounds ours from above, and how near it is: ``.91 of the bare copy``.
        reason: why nothing was measured.
    """

    name: str
    ours: float | None = None
    other: float | None = None
    unit: str = ""
    ratios: list[float] = field(default_factory=list)
    peak: float | None = None
    other_peak: float | None = None
    at_least: float | None = None
    against: str = ""
    limit: str = ""
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """The median of the rounds."""
        return median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without goal or ratio."""
        if self.at_least is None or self.ratio is None:
            return None
        return self.ratio >= self.at_least


def spent(work: Way) -> Spent:
    """What one call takes."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return Spent(time.perf_counter() - wall, _cpu_seconds() - cpu)


def alternate(
    ways: Mapping[str, Way], rounds: int = 5, warm: int = 1, memory: bool = True
) -> dict[str, Timed]:
    """Time ways in turn: ``rounds`` times each, after ``warm`` rounds that do not count.

    The order turns round every second time, so that no way always comes first. With ``memory``,
    each way runs once more for its peak.
    """
    timed = {name: Timed() for name in ways}
    for number in range(warm + rounds):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        for name in order:
            gc.collect()
            took = spent(ways[name])
            if number >= warm:
                timed[name].rounds.append(took)
    if memory:
        for name, work in ways.items():
            timed[name].peak = peak_memory(work)
    return timed


def compared(
    name: str,
    ours: Timed,
    other: Timed,
    *,
    per: int = 1,
    of: str = "film",
    rate: bool = False,
    clock: Clock = "cpu",
    **more: Any,
) -> Row:
    """A row of two ways that were timed together.

    Args:
        name: what was done.
        ours, other: from ``alternate``.
        per: how many things one round handles, and
        of: what one of them is called.
        rate: show things a second in place of milliseconds a thing.
        clock: ``cpu`` (steady on a busy machine), or ``wall`` where work waits or overlaps.
        more: further fields of ``Row``.
    """
    if rate:
        unit = f"{of}s/s" if clock == "wall" else f"{of}s/s of CPU"
        shown = [per / one.median(clock) for one in (ours, other)]
    else:
        unit = f"ms a {of}" if clock == "wall" else f"ms of CPU a {of}"
        shown = [1000 * one.median(clock) / per for one in (ours, other)]
    both = zip(ours.seconds(clock), other.seconds(clock), strict=True)
    ratios = [slow / fast for fast, slow in both]
    return Row(name, *shown, unit, ratios, ours.peak, other.peak, **more)


def peak_memory(work: Way) -> float:
    """MiB of anonymous memory that a call takes at most, beyond what the process holds before.

    Pages of memory-mapped files do not count: the system takes them back when it needs them.
    """
    gc.collect()
    _give_back()
    before = _anonymous()
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(peak, _anonymous()) / 1024 - before / 1024


def measured(name: str, quick: bool) -> list[Row]:
    """The rows of one benchmark, ``benchmarks/<name>.py``: what its ``measure`` returns."""
    try:
        module = importlib.import_module(f"benchmarks.{name}")
        return list(module.measure(quick))
    except NotHere as reason:
        return [Row(name, reason=str(reason))]


HEAD = ["what", "ours", "other", "unit", "times as fast", "goal", "peak MiB", "against", "limit"]


def shown(rows: Iterable[Row], title: str = "", note: str = "") -> Table:
    """All rows as one table."""
    return Table("benchmarks", title, HEAD, [_cells(row) for row in rows], note)


def number(value: float | None) -> str:
    """Three significant digits, as people write them."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _cells(row: Row) -> list[str]:
    if row.reason:
        return [row.name, "", "", "", "", "", "", "", f"not measured: {row.reason}"]
    ratio = ""
    if row.ratios:
        ratio = f"{number(row.ratio)} ({number(min(row.ratios))} to {number(max(row.ratios))})"
    goal = ""
    if row.at_least is not None:
        goal = f"≥ {number(row.at_least)}" + {True: ", met", False: ", missed", None: ""}[row.met]
    peaks = [f"{one:,.1f}" for one in (row.peak, row.other_peak) if one is not None]
    return [
        row.name,
        number(row.ours),
        number(row.other),
        row.unit,
        ratio,
        goal,
        " / ".join(peaks),
        row.against,
        row.limit,
    ]


def real_data() -> Path:
    """The folder of challenge files: ``PNEUMO_REAL_DATA``, else beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("PNEUMO_REAL_DATA", beside))


def _cpu_seconds() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, kinds))


def _anonymous() -> int:
    """KiB of anonymous memory that this process holds."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("RssAnon"):
                return int(line.split()[1])
    return 0


def _give_back() -> None:
    """Return freed memory to the system, so that it does not hide what is taken next."""
    ctypes.CDLL(None).malloc_trim(0)
