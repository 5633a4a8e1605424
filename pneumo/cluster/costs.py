"""What fits need: device time, memory and disk, from a measured minute and stated scaling.

Beside it stands what finished runs of the same settings took. No film is read beyond the index of
the data set, and phantoms need not be drawn yet.
"""

import dataclasses
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pneumo import files, pool, runs
from pneumo.cluster.equipment import size
from pneumo.cluster.graph import Fit, Graph
from pneumo.data import index
from pneumo.data.settings import Data, PhantomData, SeveralData, SplitKind
from pneumo.errors import PneumoError
from pneumo.settings import Machine
from pneumo.tables import Table
from pneumo.training import lineage, record
from pneumo.training.device import device_name
from pneumo.training.measuring import Measured, measure, weights_of
from pneumo.training.sampling import EpochFilms
from pneumo.training.settings import Config, Source

log = logging.getLogger(__name__)

OTHERS = (*lineage.INCIDENTAL, "fold", "seed")  # in what runs of the same cost may differ
# settings that decide what a step costs
STEP = ("resolution", "model", "loss", "optimizer", "augmentation", "batch_size", "machine")
SCALING = (
    "Measured: the real network, loss, optimizer and augmentation on films of noise; augmentation "
    "only where the process that trains also loads, on a CPU. Scaled: in proportion to films and "
    "epochs; films of a batch beyond those measured in proportion; several devices as one each. "
    "Left out: decoding films, Weights & Biases, pictures, judging."
)


@dataclass
class Films:
    """How many films a data set gives a fit."""

    count: int
    positive: int

    def part(self, share: float) -> "Films":
        """A share of them."""
        return Films(round(self.count * share), round(self.positive * share))


@dataclass
class Work:
    """What one fit does, counted."""

    films: int  # of training and validation, which the cache holds
    validation: int  # films
    steps: int  # batches of training, of all epochs
    judged: int  # batches of validation, of all epochs


@dataclass
class Kind:
    """Fits of one cost."""

    fits: list[Fit]
    work: Work
    weights: int = 0  # bytes
    measured: Measured | None = None
    took: list[float] = field(default_factory=list)  # seconds of finished runs alike

    @property
    def config(self) -> Config:
        """That of the first of them."""
        return self.fits[0].config

    @property
    def estimated(self) -> float | None:
        """Seconds of one fit, as measured."""
        if self.measured is None:
            return None
        told = self.measured
        return self.work.steps * told.batch + self.work.judged * told.validation

    @property
    def seconds(self) -> float | None:
        """Seconds of one fit: as finished ones took, else as measured."""
        if self.took:
            return sum(self.took) / len(self.took)
        return self.estimated

    @property
    def kept(self) -> int:
        """Bytes of the weights and maps that one fit leaves, once its maps are made."""
        maps = 2 * self.work.validation * self.config.resolution.size**2  # with flip and without
        return self.weights * (1 + self.config.handoff.keep) + maps

    @property
    def passing(self) -> int:
        """Bytes of checkpoints while a fit trains: weights, Adam's two moments, an average."""
        averaged = self.config.averaging.name != "none"
        best = self.config.handoff.source is Source.best
        return self.weights * (3 + averaged + best + self.config.handoff.keep)


def films_of(config: Config, data: Data | None = None) -> Films:
    """The films that a fit divides, from settings or the index of its data set.

    Raises PneumoError for a data set that is not there.
    """
    data = data or config.data
    scale = config.scale
    if isinstance(data, SeveralData):
        data.check_places()
        sets = [one for name, one in data.each.items() if name != data.leave_out]
        each = [films_of(config, one) for one in sets]
        known = Films(sum(one.count for one in each), sum(one.positive for one in each))
    elif isinstance(data, PhantomData):
        drawn = scale.of(data)
        known = Films(drawn.images, round(drawn.images * drawn.positive_rate))
    else:
        data.check_places()
        items = index.read(data, config.runs_dir).items
        known = Films(len(items), sum(one.positive for one in items))
    limit = scale.images
    if limit is None or known.count <= limit:
        return known
    rate = scale.positive_rate or known.positive / known.count
    return Films(limit, min(round(limit * rate), known.positive))


def work_of(config: Config, films: Films) -> Work:
    """What a fit does with these films. Raises PneumoError where it cannot sample them."""
    split = config.split
    share = 1 / split.folds if split.kind is SplitKind.kfold else split.validation
    validation = films.part(share)
    training = Films(films.count - validation.count, films.positive - validation.positive)
    labels = [True] * training.positive + [False] * (training.count - training.positive)
    # masks that sampling.least_px leaves out are not known yet, so all count as large
    drawn = EpochFilms(
        config.sampling, labels, config.epochs, config.seed, [math.inf] * len(labels)
    )
    batch = config.batch_size
    steps = sum(max(1, drawn.count(epoch) // batch) for epoch in range(config.epochs))
    judged = config.epochs * math.ceil(validation.count / batch)
    return Work(films.count, validation.count, steps, judged)


def kinds_of(graph: Graph, seconds: float) -> list[Kind]:
    """The fits by what they cost, each kind of step measured once, in about so many seconds.

    Fits that take over the training of another are a kind of their own, which costs nothing.
    """
    known: dict[str, Films] = {}
    kinds: dict[str, Kind] = {}
    for fit in graph.fits.values():
        one = fit.config
        data = files.digest([repr(one.data), repr(one.scale)])
        if data not in known:
            known[data] = films_of(one)
        work = work_of(one, known[data])
        key = files.digest([one.experiment, _step(one), dataclasses.astuple(work), bool(fit.twins)])
        kinds.setdefault(key, Kind([], work)).fits.append(fit)
    found = list(kinds.values())
    for kind in found:
        by_folder = {place: time for fit in kind.fits for place, time in _took(fit.config)}
        kind.took = list(by_folder.values())
    first: dict[str, Kind] = {}  # of each kind of step
    for kind in found:
        first.setdefault(_step(kind.config), kind)
    for kind in first.values():
        one = kind.config
        kind.weights = weights_of(one.model)
        if seconds:
            told = (one.experiment, one.resolution.size, one.batch_size)
            log.info("Measuring %s, %d², batch %d", *told)
            steps = math.ceil(kind.work.steps / one.optimizer.accumulate)
            kind.measured = measure(one, seconds / len(first), steps)
    for kind in found:
        like = first[_step(kind.config)]
        kind.weights, kind.measured = like.weights, like.measured
    return found


def _step(config: Config) -> str:
    """Stands for all that decides what a step costs."""
    values = config.to_dict()
    return files.digest([values[name] for name in STEP])


def _took(config: Config) -> list[tuple[str, float]]:
    """Folder and seconds of the finished runs that differ from a fit in fold and seed alone.

    They were made on such a device as the fit is planned for, and on as many.
    """
    wanted, found = config.to_dict(), []
    for folder in sorted(config.path.parent.glob("*")):
        if not runs.is_finished(folder):
            continue
        theirs, metrics = record.read(folder).config, runs.read_metrics(folder)
        told = metrics.get(runs.TRAIN_SECONDS)
        if (
            isinstance(told, int | float)
            and _is_for(config.machine, str(metrics.get(runs.DEVICE)))
            and theirs.machine.processes == config.machine.processes
            and not runs.differences(theirs.to_dict(), wanted, OTHERS)
        ):
            found.append((str(folder), float(told)))
    return found


def _is_for(machine: Machine, device: str) -> bool:
    """Whether fits on a machine would be done by a device of this name."""
    try:
        return device == device_name(machine)
    except PneumoError:  # it is not this machine, of which nothing more is known
        return device != "cpu"


def table(kinds: Sequence[Kind], graph: Graph) -> Table:
    """A row for each kind of fit, and their sums."""
    head = [
        *("fits", "n", "left", "epochs", "steps", "s/step", "hours each", "took each"),
        *("hours of all", "hours left", "memory", "disk each"),
    ]
    rows = [_row(kind, graph) for kind in kinds]
    total = [_hours(_sum(kinds, graph, everything)) for everything in (True, False)]
    counts = [f"{len(graph.fits):,}", f"{len(graph.left):,}"]
    rows.append(["all", *counts, *[""] * 5, *total, "", ""])
    return Table("plan", "", head, rows, SCALING)


def _row(kind: Kind, graph: Graph) -> list[str]:
    one, told = kind.config, kind.measured
    twins = ", trained with a twin" * _is_free(kind)
    left = [fit for fit in kind.fits if fit.path not in graph.done]
    took = sum(kind.took) / len(kind.took) if kind.took else None
    return [
        f"{one.experiment} {one.resolution.size}², batch {one.batch_size}{twins}",
        f"{len(kind.fits):,}",
        f"{len(left):,}",
        f"{one.epochs:,}",
        f"{kind.work.steps:,}",
        f"{told.batch:.3g}" if told else "–",
        _hours(kind.estimated),
        f"{_hours(took)} ({len(kind.took)})" if took is not None else "–",
        _hours(_sum([kind], graph, everything=True)),
        _hours(_sum([kind], graph, everything=False)),
        size(told.memory) if told else "–",
        size(kind.kept),
    ]


def _is_free(kind: Kind) -> bool:
    """Whether these fits take over the training of others."""
    return bool(kind.fits[0].twins)


def _sum(kinds: Sequence[Kind], graph: Graph, everything: bool) -> float | None:
    """Device seconds of all fits, or of those that are left; None where some are not known."""
    total = 0.0
    for kind in kinds:
        fits = [fit for fit in kind.fits if everything or fit.path not in graph.done]
        if not fits or _is_free(kind):
            continue
        if kind.seconds is None:
            return None
        total += kind.seconds * len(fits) * kind.config.machine.processes
    return total


def _hours(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds / 3600:.3g}"


def told(kinds: Sequence[Kind], graph: Graph) -> list[str]:
    """Disk and memory of all fits together, beside what this machine has."""
    machine, place = kinds[0].config.machine, Path(kinds[0].config.runs_dir).absolute()
    there = next(one for one in (place, *place.parents) if one.exists())
    kept = sum(kind.kept * sum(fit.path not in graph.done for fit in kind.fits) for kind in kinds)
    lines = [
        f"Disk: {size(_cached(kinds))} for the cache of films, which all share; {size(kept)} for "
        f"weights and maps of what is left; {size(max(kind.passing for kind in kinds))} at most "
        f"for checkpoints while a fit trains; {size(shutil.disk_usage(there).free)} free"
    ]
    measured = [kind.measured for kind in kinds if kind.measured is not None]
    if measured:
        device, here = device_name(machine), pool.memory_available()
        memory = size(max(one.memory for one in measured))
        free = f"; {size(here)} of main memory free" if here is not None else ""
        lines.append(f"Memory: {memory} at most for a fit on {device}{free}")
        least, most = (pick(one.films for one in measured) for pick in (min, max))
        films = f"{least}" if least == most else f"{least} to {most}"
        lines.append(f"Hours: of {device} as busy as now, from batches of {films} films")
    return lines


def _cached(kinds: Sequence[Kind]) -> int:
    """Bytes of the cache: a byte a pixel, of film and mask, of each data set at each size."""
    caches = {}
    for kind in kinds:
        one, side = kind.config, kind.config.resolution.size
        caches[repr(one.data), repr(one.scale), side] = 2 * kind.work.films * side**2
    return sum(caches.values())
