"""Finished runs → probability maps of a set of films.

The set is a run's validation part, the test set, or any folder of films.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pneumo import files, pool, runs
from pneumo.data import cache, index
from pneumo.data.csv_files import read_ids
from pneumo.data.films import Item, patients_from_films, read_folder
from pneumo.data.settings import (
    Data,
    MaskSize,
    OnError,
    PhantomData,
    SeveralData,
    SiimData,
    TableData,
)
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.inference import maps, shards
from pneumo.inference.bundle import Bundle, Said
from pneumo.inference.engine import (
    Engine,
    Probabilities,
    lanes_of,
    mean_of,
    to_levels,
    torch_engine,
    with_flip,
)
from pneumo.inference.maps import Predictions
from pneumo.inference.seen import Trained
from pneumo.inference.settings import Films, Seen
from pneumo.inference.shards import Shard
from pneumo.settings import Machine
from pneumo.training import record
from pneumo.training.record import Record
from pneumo.training.settings import Checkpoints, Config

FLUSH = 16  # batches after which maps are sure to be on disk


@dataclass
class Part:
    """Films to predict.

    Of each it holds what is known and the row in a cache at the network's resolution.
    """

    cases: list[maps.Case]
    films: cache.Cache
    rows: np.ndarray
    # films asked for that are not there or cannot be read, with reasons
    left_out: list[str] = field(default_factory=list)
    excluded: int = 0  # films left out because they, or their patients, were in training

    def at(self, start: int, stop: int) -> np.ndarray:
        """Some of its films, uint8 (stop - start, size, size)."""
        batch = self.rows[start:stop]
        for row in batch.tolist():
            self.films.verify(row)
        return np.array(self.films.images[batch])


@dataclass
class Wanted:
    """Films that are asked for; none of them need be read until ``part`` gives some of them."""

    count: int
    part: Callable[[slice], Part]
    identity: list[Any] = field(default_factory=list)  # of the films, as they lie on the disk
    fingerprint: str = ""  # of a cache of all of them
    left_out: list[str] = field(default_factory=list)  # as a part's, before any was read

    @property
    def whole(self) -> Part:
        """All of them."""
        part = self.part(slice(0, self.count))
        self.check(part.cases)
        return dataclasses.replace(part, left_out=self.left_out + part.left_out)

    def check(self, kept: list[maps.Case]) -> None:
        """Raise PneumoError if none of them are kept."""
        if not kept:
            raise PneumoError(
                f"seen=exclude: all {self.count:,} films, or their patients, were in training"
            )


def predict(
    folder: Path,
    settings: Films,
    batch_size: int = 16,
    without: Trained | None = None,
    shard: Shard | None = None,
) -> Predictions:
    """One run's maps on one set of films, made unless they are there.

    Of another data set ``without`` the films, and those of patients, that weights were trained on.
    With ``shard`` only a part of them is made. Where there are shards, the maps are joined from
    them.

    Raises:
        NotJoined: shards that are not there, or do not belong together.
        PneumoError: films that cannot be had, weights that cannot be used.
    """
    about = record.read(folder)
    declared = _declared(folder, about, settings)
    paths = weights_of(folder, settings.checkpoints)
    hashes = [files.sha256(path) for path in paths]
    weights = hashes[0] if len(paths) == 1 else files.digest(hashes)
    name = _name_of(settings)
    size = declared.resolution.size
    another = [] if size == about.config.resolution.size else [f"{size}px"]
    if settings.checkpoints is Checkpoints.best:
        another.append(f"best{len(paths)}")
    told = ["presence"] if about.config.model.presence else []  # maps of older code have none
    place = folder / maps.FOLDER / "-".join([name, *another])
    if settings.on == "val":
        # the run's record says which films these are, so that nothing need be looked at
        facts_of_data = dataclasses.asdict(about.data)
        source = files.digest([maps.VERSION, weights, facts_of_data, *another, *told])
        before = maps.kept(place, source)
        if before is not None and before.told:
            return before
        try:
            wanted = _validation(folder, declared, about)
        except PneumoError:
            if before is None:
                raise
            return before  # the films are gone, so no more can be told of them
    else:
        wanted = _asked(declared, settings, without)
        source = files.digest([maps.VERSION, weights, wanted.identity, *told])
        before = maps.kept(place, source, "source")
        if before is not None and before.told:
            return before
    order = Order(folder, settings, declared, paths, weights, told, place, wanted, source)
    if shard is not None:
        order.make_shard(shard, batch_size)
    count = shard.count if shard else shards.count_in(maps.shards_of(place))
    return order.joined(count) if count else order.make(batch_size)


@dataclass
class Order:
    """One run's maps on one set of films: made at once, or in shards that are joined."""

    folder: Path  # of the run
    settings: Films
    declared: Config
    paths: list[Path]  # of the weights whose maps are averaged
    weights: str  # a digest of them
    told: list[str]
    place: Path  # of the maps
    wanted: Wanted
    source: str  # stands for the weights and the films as they lie on the disk

    def make(self, batch_size: int) -> Predictions:
        """All of them."""
        part = self.wanted.whole
        key, facts = self._key(part.cases), self._facts(part.cases, part.left_out, part.excluded)
        return maps.write(
            self.place, key, part.cases, self._size, self._fill(part, batch_size), facts
        )

    def make_shard(self, shard: Shard, batch_size: int) -> None:
        """Those of a shard, unless they are there. Raises PneumoError."""
        together = maps.shards_of(self.place)
        shards.check_count(together, shard)
        rows = shard.rows(self.wanted.count, batch_size)
        ends = [rows.start, rows.stop]
        key = maps.shard_key(self.source, shard, ends)
        place = together / shard.folder
        before = maps.kept(place, key)
        if before is not None and before.told:
            return
        part = self.wanted.part(rows)
        facts = self._facts(part.cases, part.left_out, part.excluded)
        facts |= {"rows": ends, "batch_size": batch_size}
        maps.write(place, key, part.cases, self._size, self._fill(part, batch_size), facts)

    def joined(self, count: int) -> Predictions:
        """Those of all shards, joined. Raises NotJoined."""
        with runs.lock(self.place.with_name(self.place.name + ".lock")):
            before = maps.kept(self.place, self.source, "source")
            if before is not None:  # another process has joined them meanwhile
                return before
            together = maps.shards_of(self.place)
            parts = maps.collected(together, self.source, self.weights, self._size, count)
            cases = [case for part in parts for case in part.cases]
            self.wanted.check(cases)
            left_out = [reason for part in parts for reason in part.contents["left_out"]]
            excluded = sum(part.contents["excluded"] for part in parts)
            facts = self._facts(cases, self.wanted.left_out + left_out, excluded)
            return maps.join(self.place, self._key(cases), parts, facts)

    @property
    def _size(self) -> int:
        return self.declared.resolution.size

    def _key(self, cases: list[maps.Case]) -> str:
        if self.settings.on == "val":
            return self.source
        # the same films elsewhere on the disk give the same maps, so their paths do not count
        known = [case.identity for case in cases]
        return files.digest(
            [maps.VERSION, self.weights, self.wanted.fingerprint, known, *self.told]
        )

    def _facts(self, cases: list[maps.Case], left_out: list[str], excluded: int) -> dict[str, Any]:
        trained = None if self.settings.on == "val" else trained_by(self.folder)
        return {
            "on": self.settings.on,
            "run": str(self.folder),
            "weights": self.weights,
            "source": self.source,
            "left_out": left_out,
            "excluded": excluded,
            **_seen(trained, cases, self.settings, self.declared.data),
        }

    def _fill(self, part: Part, batch_size: int) -> maps.Fill:
        network, machine = self.declared.model, self.settings.machine

        def load() -> Engine:
            return mean_of([torch_engine(network, path, "run", machine) for path in self.paths])

        return Filler(load, part, machine, batch_size)


def predict_by_bundle(model: Bundle, settings: Films, batch_size: int = 16) -> Predictions:
    """A bundle's maps on another data set, made unless they are there. Raises PneumoError."""
    data = settings.data
    assert data is not None
    sizes = sorted({size for size, _ in model.members})
    trained = model.trained
    if settings.seen is Seen.exclude and trained is None:
        raise PneumoError(
            f"seen=exclude: {model.folder} does not tell the films it was trained on; export it "
            "anew, or use seen=keep"
        )
    without = trained if settings.seen is Seen.exclude else None
    parts = {size: of_set(data, size, settings.runs_dir, without) for size in sizes}
    part = parts[sizes[0]]
    if any(other.films.ids != part.films.ids for other in parts.values()):
        raise PneumoError(f"{data.root}: its films changed meanwhile; run the command again")
    weights = files.digest([model.card["members"], model.card.get("stack")])
    known = [case.identity for case in part.cases]
    key = files.digest([maps.VERSION, weights, part.films.fingerprint, known, model.engine])
    place = Path(settings.runs_dir) / "bundles" / f"{model.name}-{weights[:8]}" / _name_of(settings)
    facts = {
        "on": settings.on,
        "run": str(model.folder),
        "weights": weights,
        "left_out": part.left_out,
        "excluded": part.excluded,
        **_seen(trained, part.cases, settings),
    }

    def fill(arrays: maps.Arrays, begin: int) -> Iterator[int]:
        def work(batch: tuple[int, int]) -> tuple[int, int, tuple[Said, Said]]:
            films = {size: one.at(*batch) for size, one in parts.items()}
            return *batch, model.says_of(films)

        lanes = lanes_of(settings.machine) if model.engine == "torch" else 0
        batches = _batches(len(part.rows), begin, batch_size)
        for start, stop, both in pool.ahead(work, batches, lanes, lanes + 1):
            for column, said in enumerate(both):
                arrays[column][start:stop] = said.levels
                if said.presence is not None:
                    arrays.presence[start:stop, column] = said.presence
            if _is_to_be_kept(start, stop, batch_size, len(part.rows)):
                yield stop

    return maps.write(place, key, part.cases, model.size, fill, facts)


def trained_by(folder: Path) -> Trained | None:
    """What a run's weights were trained on; None if a part of it is not known."""
    about = record.read(folder)
    films = record.trained_on(folder, about)
    return None if films is None else Trained.on(films, about.config.data.name)


def weights_of(folder: Path, wanted: Checkpoints | None) -> list[Path]:
    """The weights whose maps are averaged: the run's own, or its best epochs'.

    Raises PneumoError.
    """
    if wanted is not Checkpoints.best:
        return [folder / runs.WEIGHTS]
    paths = runs.checkpoints(folder)
    if not paths:
        raise PneumoError(
            f"checkpoints=best: {folder} kept no best epochs; train it with handoff.keep=3 (or any "
            "number), or use checkpoints=final"
        )
    return paths


def _declared(folder: Path, about: Record, settings: Films) -> Config:
    """The run's configuration, at the size asked for.

    Its places are those where the runs folder, cache and data lie now.
    """
    declared = about.config
    here = folder.resolve()
    known = len(here.parts) > 3 and here.parts[-3] == declared.experiment
    runs_dir = str(here.parents[2]) if known else settings.runs_dir
    moved: dict[str, Any] = {}
    if settings.on in ("val", "test"):
        for key in ("root", "annotations", "mask_size", "patients", "on_error"):
            value = getattr(settings, key)
            if value is None:
                continue
            if not hasattr(declared.data, key) or isinstance(declared.data, SeveralData):
                raise PneumoError(f"{key}={value}: data={declared.data.format} takes none")
            moved[key] = value
    if isinstance(declared.data, TableData):
        moved["on_missing"] = OnError.skip  # what a set lacks is counted with its maps
    if declared.data.cache == f"{declared.runs_dir}/cache":  # it moves with the runs
        moved["cache"] = f"{runs_dir}/cache"
    data = dataclasses.replace(declared.data, **moved)
    size = settings.size or declared.resolution.size
    resolution = dataclasses.replace(declared.resolution, size=size)
    return dataclasses.replace(declared, runs_dir=runs_dir, data=data, resolution=resolution)


def _asked(declared: Config, settings: Films, without: Trained | None) -> Wanted:
    """The films that are asked for, other than the validation part."""
    if settings.data is not None:
        return _of_set(settings.data, declared.resolution.size, settings.runs_dir, without)
    return _test(declared, settings) if settings.on == "test" else _folder(declared, settings)


def of_set(data: Data, size: int, runs_dir: str, without: Trained | None = None) -> Part:
    """The films of a data set at a size², without those of a training. Raises PneumoError."""
    return _of_set(data, size, runs_dir, without).whole


def _of_set(data: Data, size: int, runs_dir: str, without: Trained | None = None) -> Wanted:
    found = index.read(data, runs_dir)
    reasons = [f"{case}: {reason}" for reason, cases in found.left_aside.items() for case in cases]
    return _wanted(found.items, data, size, data.on_error, True, reasons, without)


def _seen(
    trained: Trained | None, cases: list[maps.Case], settings: Films, own: Data | None = None
) -> dict[str, Any]:
    """How many of the films, and how many films of their patients, weights were trained on.

    None if it is not known. A validation part was held out; a test set, or a folder, is taken for
    one of the training's ``own`` source.
    """
    if trained is None:
        held_out = settings.on == "val"
        return {"seen_in_training": 0 if held_out else None, "patients_in_training": None}
    source = settings.data or own
    assert source is not None
    name = source.name
    if settings.on == "test" and isinstance(source, SeveralData):
        name = source.leave_out or name
    of_patients = None
    if trained.patients and any(case.patient for case in cases):
        of_patients = sum(trained.has_patient(case, name) for case in cases)
    seen = sum(trained.has(case) for case in cases)
    return {"seen_in_training": seen, "patients_in_training": of_patients}


def _validation(folder: Path, declared: Config, about: Record) -> Wanted:
    """The run's own validation part.

    Raises PneumoError if the data is not what it was trained on any more.
    """
    from pneumo.training.loader import FilmData  # Lightning takes seconds

    made = FilmData(declared)
    made.prepare(record.parts_of(folder))
    now = made.facts()
    recorded = about.data.annotations
    changed = {
        "films": now.parts != about.data.parts,
        "annotations": recorded is not None and now.annotations != recorded,
    }
    for what, differs in changed.items():
        if differs:
            raise PneumoError(
                f"the {what} of {declared.data.root} are not those this run was trained on; "
                "its validation part is not known any more"
            )
    items = {item.id: item for item in made.index.items}
    rows = made.parts.validation

    def part(which: slice) -> Part:
        chosen = []
        for row in rows[which]:
            item = items[made.films.ids[row]]
            chosen.append(dataclasses.replace(item, patient=made.patients[row]))
        return Part(maps.cases_of(chosen, labelled=True), made.films, rows[which])

    return Wanted(len(rows), part)


def _test(declared: Config, settings: Films) -> Wanted:
    """The round-1 test set; for phantoms, films that no run has seen."""
    source, size = declared.data, declared.resolution.size
    if isinstance(source, PhantomData):
        limit = min(source.images, declared.scale.images or source.images)
        fresh = dataclasses.replace(source, images=max(4, limit // 4), seed=source.seed + 1_000_000)
        fresh = dataclasses.replace(fresh, root=f"{source.root}-test" if source.root else None)
        drawn = index.read(declared.scale.of(fresh), declared.runs_dir)
        return _wanted(drawn.items, source, size, OnError.stop, labelled=True)
    if isinstance(source, SeveralData) and source.leave_out is not None:
        left_out = source.scaled(declared.scale.of).each[source.leave_out]
        return _of_set(left_out, size, declared.runs_dir)
    if not isinstance(source, SiimData):
        raise PneumoError(f"on=test: data={source.format} has no test set; name a folder, on=…")
    listed = settings.ids or source.round1_test
    if not listed:
        raise PneumoError(
            "on=test needs the ids of the round-1 test set: ids=<stage_1_sample_submission.csv>"
        )
    wanted = read_ids(Path(listed))
    items = {item.id: item for item in siim.read_index(dataclasses.replace(source, round=2)).items}
    present = [items[image] for image in wanted if image in items]
    absent = [image for image in wanted if image not in items]
    if not present:
        raise PneumoError(f"{source.root}: none of the films of {listed} is there")
    reasons = [f"{image}: not below {source.root}, or not in its table" for image in absent]
    return _wanted(present, source, size, source.on_error, True, reasons)


def _folder(declared: Config, settings: Films) -> Wanted:
    """Any folder of films, with its table of run lengths if there is one."""
    on_error = settings.on_error or OnError.stop
    if not settings.annotations:
        films = read_folder(Path(settings.on))
        return _wanted(films, declared.data, declared.resolution.size, on_error, labelled=False)
    annotated = siim.read_index(
        SiimData(
            name="folder",
            root=settings.on,
            annotations=settings.annotations,
            mask_size=settings.mask_size or MaskSize.challenge,
            patients=settings.patients,
            on_error=on_error,
            on_missing=OnError.skip,
        )
    )
    size = declared.resolution.size
    reasons = []
    for reason, cases in annotated.left_aside.items():
        reasons += [f"{case}: {reason}" for case in cases]
    return _wanted(annotated.items, declared.data, size, on_error, True, reasons)


def _wanted(
    items: list[Item],
    data: Data,
    size: int,
    on_error: OnError,
    labelled: bool,
    left_out: Sequence[str] = (),
    without: Trained | None = None,
) -> Wanted:
    """Films with a cache at size², where and as ``data`` says, without those of a training.

    A part of them has a cache of its own, so that each machine decodes its own films.
    """
    limit = data.max_megapixels * 1_000_000
    fingerprint = cache.fingerprint(items, size)
    told = [[item.patient, item.site, item.truth.name, item.tube] for item in items]
    trained = without and files.digest(without.to_dict())
    identity = [fingerprint, told, on_error.name, limit, labelled, list(left_out), trained]

    def part(rows: slice) -> Part:
        own = items[rows]
        place = Path(data.cache)
        if len(own) < len(items):
            place /= f"{fingerprint}-{rows.start}-{rows.stop}"
        made = cache.build(own, size, place, on_error, limit)
        if not any(item.patient for item in items):
            patients = patients_from_films(items)
            own = [dataclasses.replace(item, patient=patients.get(item.id)) for item in own]
        kept = {item.id: item for item in own}
        cases = maps.cases_of([kept[image] for image in made.ids], labelled)
        return Part(cases, made, np.arange(len(made.ids)), made.left_aside)

    def unseen(rows: slice) -> Part:
        read = part(rows)
        if without is None:
            return read
        kept = [
            row
            for row, case in enumerate(read.cases)
            if not (without.has(case) or without.has_patient(case, data.name))
        ]
        cases = [read.cases[row] for row in kept]
        excluded = len(read.cases) - len(kept)
        return dataclasses.replace(read, cases=cases, rows=read.rows[kept], excluded=excluded)

    return Wanted(len(items), unseen, identity, fingerprint, list(left_out))


def _name_of(settings: Films) -> str:
    """What predictions are kept under: val, test, or the name and a digest of a folder or set."""
    data = settings.data
    if data is None:
        return settings.on if settings.on in ("val", "test") else _folder_name(Path(settings.on))
    places = {**vars(data), "root": str(data.root and Path(data.root).resolve()), "cache": ""}
    told = files.digest({key: str(value) for key, value in places.items()})[:8]
    return f"{data.name}-{told}" + "-unseen" * (settings.seen is Seen.exclude)


def _folder_name(folder: Path) -> str:
    """A folder's predictions are kept under its name and a digest of its place."""
    if not folder.is_dir():
        raise PneumoError(f"on={folder}: must be val, test, or a folder of films that exists")
    return f"{folder.resolve().name}-{files.digest(str(folder.resolve()))[:8]}"


class Filler:
    """Writes the maps of a part, batch by batch; ``load`` is called when the network is needed."""

    def __init__(
        self, load: Callable[[], Engine], part: Part, machine: Machine, batch_size: int
    ) -> None:
        self.load, self.part = load, part
        self.machine, self.batch_size = machine, batch_size

    def __call__(self, arrays: maps.Arrays, begin: int) -> Iterator[int]:
        engine = self.load()
        rows = self.part.rows

        def work(batch: tuple[int, int]) -> tuple[int, int, tuple[Probabilities, Probabilities]]:
            return *batch, with_flip(engine, self.part.at(*batch))

        lanes = lanes_of(self.machine)
        batches = _batches(len(rows), begin, self.batch_size)
        for start, stop, both in pool.ahead(work, batches, lanes, lanes + 1):
            for column, told in enumerate(both):
                arrays[column][start:stop] = to_levels(told.maps)
                if told.presence is not None:
                    arrays.presence[start:stop, column] = told.presence
            if _is_to_be_kept(start, stop, self.batch_size, len(rows)):
                yield stop


def _batches(count: int, begin: int, size: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each batch of ``count`` films, from one on, with a bar on a terminal."""
    quiet = not sys.stderr.isatty()
    with tqdm(
        total=count, initial=begin, desc="Predicting films", unit="film", disable=quiet
    ) as bar:
        for start in range(begin, count, size):
            stop = min(start + size, count)
            yield start, stop
            bar.update(stop - start)


def _is_to_be_kept(start: int, stop: int, size: int, count: int) -> bool:
    """Whether maps are to be on disk for sure after this batch."""
    return (start // size) % FLUSH == FLUSH - 1 or stop == count
