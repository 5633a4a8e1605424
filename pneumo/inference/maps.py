"""Probability maps on disk, with all that judging them needs: ids, truth, patients, views, hashes.

A folder of predictions holds ``plain.npy`` and ``flip.npy`` (the mean with the mirror image), uint8
(n, size, size), levels of 1/255, memory-mapped; ``presence.npy`` float32 (n, 2), a film's presence
score without and with its mirror image, where networks tell it; ``contents.json``, written last;
and, once judged, ``histograms.npz``. The maps are those of films in upright orientation. Where they
were made in shards, they stay in the shards' folders (``1of8/plain.npy``), and all else is as if
they had been made at once. No torch is needed here.
"""

import dataclasses
import functools
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from pneumo import files, pool, runs, seals
from pneumo.data import cache, dicom
from pneumo.data.films import Item, read_mask
from pneumo.data.spacing import Entry, Spacing
from pneumo.errors import PneumoError, brief
from pneumo.inference import shards
from pneumo.inference.shards import Fault, NotJoined, Shard
from pneumo.masks.components import Components, components
from pneumo.masks.histograms import Histograms, histogram
from pneumo.masks.resize import enlarge, shrink_mask
from pneumo.masks.rule import passes, to_mask
from pneumo.masks.settings import Postprocess
from pneumo.masks.truth import Truth

FOLDER = "predictions"  # of a run
PLAIN, FLIP, PRESENCE = "plain.npy", "flip.npy", "presence.npy"
CONTENTS, HISTOGRAMS = "contents.json", "histograms.npz"
# of unfinished maps: how many rows are whole, and their checksums
BEGUN, ROWS = "begun.json", "rows.npy"
JUDGED = 1024  # films are judged at this side, the challenge's, whatever the maps' size
VERSION = 1  # of the maps: others are made anew
COUNTED = 2  # of the true masks in the histograms: older ones are counted anew
TOLD = 3  # of what is told of each film: older ones are told anew, their maps stay


@dataclass
class Case:
    """One film of a set: where it is, and what is known of it.

    ``annotations`` are run lengths of what ``truth`` says, None where nobody has annotated it.
    """

    id: str
    path: str
    annotations: list[str] | None
    shape: tuple[int, int]  # of the annotations: the film's as stored
    orientation: tuple[str, str] | None = None
    patient: str | None = None
    view: str | None = None
    sex: str | None = None
    age: float | None = None  # years
    # mm between rows and between columns of the upright film at 1024², where that can be believed
    spacing: tuple[float, float] | None = None
    truth: Truth = Truth.masks
    site: str | None = None
    tube: bool | None = None  # whether a chest tube is seen

    @property
    def identity(self) -> dict[str, Any]:
        """What map and truth depend on: not where the film lies, nor whom it shows."""
        told = {**vars(self), "path": "", "truth": self.truth.name}
        others = ["sex", "age", "spacing", "site", "tube"]
        if self.truth is Truth.masks:
            others.append("truth")
        return {key: told[key] for key in told if key not in others}

    def mask(self) -> np.ndarray:
        """The true mask over the upright film at 1024², uint8 of 0 and 1. Raises PneumoError."""
        return self._upright(self.annotations or [])

    def regions(self) -> list[np.ndarray]:
        """Each of its regions alone, such as its boxes, as ``mask``. Raises PneumoError."""
        return [self._upright([one]) for one in self.annotations or []]

    def _upright(self, annotations: list[str]) -> np.ndarray:
        stored = read_mask(Path(self.path), annotations, self.shape)
        return shrink_mask(dicom.upright(stored, self.orientation), JUDGED)


class Joined:
    """Maps of shards, read film by film like one array uint8 (n, size, size).

    Nothing of them is copied. Raises ValueError if the shards differ in size or are no maps.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = parts
        self.dtype, sides = parts[0].dtype, parts[0].shape[1:]
        if any(part.dtype != self.dtype or part.shape[1:] != sides for part in parts):
            raise ValueError("shards of different kinds")
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), *sides)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> np.ndarray:
        place = int(np.searchsorted(self.ends, row, side="right"))
        levels: np.ndarray = self.parts[place][
            row - self.ends[place]
        ]  # counted from the part's end
        return levels


@dataclass
class Predictions:
    """The maps of one run, or the mean of several, on one set of films."""

    folder: Path
    cases: list[Case]
    plain: np.ndarray | Joined
    flip: np.ndarray | Joined
    contents: dict[str, Any] = field(repr=False)
    scores: np.ndarray | None = None  # of presence, float32 (n, 2): without and with mirror image
    _components: dict[Any, list[Components]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def ids(self) -> list[str]:
        """Image ids, in the maps' order."""
        return [case.id for case in self.cases]

    @property
    def told(self) -> bool:
        """Whether all is told of each film that today's judging asks for."""
        return int(self.contents.get("told", 1)) >= TOLD

    def spaced(self, table: Mapping[str, Entry]) -> "Predictions":
        """The same with the spacings of a table, by film id, in place of the headers'."""
        cases = [
            dataclasses.replace(case, spacing=_by_entry(table[case.id], case))
            if case.id in table
            else case
            for case in self.cases
        ]
        return dataclasses.replace(self, cases=cases)

    @property
    def labelled(self) -> bool:
        """Whether the truth is known of every film."""
        return all(case.annotations is not None for case in self.cases)

    def presence(self, tta: bool) -> np.ndarray | None:
        """The films' presence scores, float32 (n,); None if no network tells them."""
        return None if self.scores is None else self.scores[:, int(tta)]

    def gate(self, rule: Postprocess, tta: bool) -> np.ndarray:
        """Which films may have a mask by the rule's gate, bool (n,); all without one.

        Raises PneumoError if there is a gate, but no score for it.
        """
        presence = self.presence(tta)
        if presence is None and rule.presence_threshold is not None:
            raise PneumoError(
                f"postprocess.presence_threshold={rule.presence_threshold:g}: {self.folder} tells "
                "no presence score; it takes a network with that head (model.presence=true), or a "
                "system that names such networks"
            )
        return passes(np.zeros(len(self)) if presence is None else presence, rule)

    def mask(self, row: int, rule: Postprocess, tta: bool) -> np.ndarray:
        """What a rule finds on one film, uint8 of 0 and 1 over the upright film at 1024²."""
        presence = self.presence(tta)
        score = None if presence is None else float(presence[row])
        return to_mask(self.map(row, tta), rule, score)

    def map(self, row: int, tta: bool, side: int = JUDGED) -> np.ndarray:
        """One film's map enlarged to side², bilinear, uint8 levels.

        Raises PneumoError if the map is not as it was written.
        """
        return enlarge(self.levels(row, tta), (side, side))

    def levels(self, row: int, tta: bool) -> np.ndarray:
        """One film's map as the network gave it, uint8 (size, size).

        Raises PneumoError if the map is not as it was written.
        """
        name, maps = (FLIP, self.flip) if tta else (PLAIN, self.plain)
        levels: np.ndarray = maps[row]
        # maps of older versions have no checksums
        checksums = self.contents.get("checksums")
        if checksums and _checksum(levels) != checksums[name][row]:
            raise PneumoError(
                f"{self.folder / name}: damaged at film {self.ids[row]}; delete the folder, its "
                "maps will be made anew"
            )
        return levels

    def histograms(self, tta: bool) -> Histograms:
        """Pixels by level at 1024² of every film, inside the true mask and in all.

        They are counted once and then kept beside the maps.
        """
        path, name = self.folder / HISTOGRAMS, "flip" if tta else "plain"
        key = f"{self.contents['key']}-{COUNTED}"
        try:
            with open(path, "rb") as file, np.load(file) as kept:
                if str(kept["key"]) != key:
                    raise ValueError("of other maps or masks")
                return Histograms(kept[f"{name}_total"], kept[f"{name}_inside"])
        # The file may be missing, of other maps, or damaged, for which numpy raises many kinds of
        # exception. In every case the pixels are counted anew.
        except Exception:
            tables = self._count()
        arrays = {"key": np.array(key), **tables}
        with files.replacing(path) as temporary, open(temporary, "wb") as out:
            np.savez(out, **arrays)  # type: ignore[arg-type]
        return Histograms(tables[f"{name}_total"], tables[f"{name}_inside"])

    def _count(self) -> dict[str, np.ndarray]:
        # in the order in which _histograms gives them
        names = ("plain_total", "plain_inside", "flip_total", "flip_inside")
        tables = {name: np.zeros((len(self), 256), np.int32) for name in names}
        for row, counts in self.each(_histograms, "Counting probabilities"):
            for table, values in zip(tables.values(), counts, strict=True):
                table[row] = values
        return tables

    def components(self, tta: bool, ts: Sequence[float]) -> list[Components]:
        """The components of every film at each threshold, at 1024²; film numbers are rows.

        They are found once for these settings and then kept in memory.
        """
        key = (tta, tuple(ts))
        if key not in self._components:
            work = functools.partial(_components, tta=tta, ts=tuple(ts))
            of_row = dict(self.each(work, "Finding components"))
            self._components[key] = [of_row[row] for row in range(len(self))]
        return self._components[key]

    def each(
        self, work: Callable[["Predictions", int], Any], title: str
    ) -> Iterator[tuple[int, Any]]:
        """``work(predictions, row)`` for every row, with the row; results come in any order.

        Where there are many rows, several processes share them.
        """
        rows = range(len(self))
        if len(self) <= 200:
            for row in rows:
                yield row, work(self, row)
            return
        in_process = functools.partial(_in_process, work, self.folder, self.contents["key"])
        yield from pool.each(in_process, rows, title)


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, key: str) -> Predictions:
    predictions = load(folder)
    if predictions.contents["key"] != key:
        raise PneumoError(f"{folder}: changed meanwhile; run the command again")
    return predictions


def _in_process(work: Callable[[Predictions, int], Any], folder: Path, key: str, row: int) -> Any:
    return work(_opened(folder, key), row)


def _histograms(predictions: Predictions, row: int) -> list[np.ndarray]:
    truth = predictions.cases[row].mask()
    plain = histogram(predictions.map(row, tta=False), truth)
    flip = histogram(predictions.map(row, tta=True), truth)
    return [*plain, *flip]


def _components(predictions: Predictions, row: int, tta: bool, ts: tuple[float, ...]) -> Components:
    return components(predictions.map(row, tta), predictions.cases[row].mask(), row, ts)


def load(folder: Path) -> Predictions:
    """Open predictions. Raises PneumoError if they are missing or damaged."""
    try:
        contents = seals.read_json(folder / CONTENTS)
        cases = [_case(values) for values in contents["films"]]
        plain, flip = _open(folder, PLAIN), _open(folder, FLIP)
        size = contents["size"]
        for maps in (plain, flip):
            if maps.shape != (len(cases), size, size) or maps.dtype != np.uint8:
                raise ValueError("unexpected arrays")
        scores = np.load(folder / PRESENCE) if contents.get("presence") else None
        if scores is not None and scores.shape != (len(cases), 2):
            raise ValueError("unexpected scores")
        checksums = contents.get("checksums")
        if checksums and any(len(checksums[name]) != len(cases) for name in (PLAIN, FLIP)):
            raise ValueError("unexpected checksums")
        if scores is not None and checksums and _checksum(scores) != checksums[PRESENCE]:
            raise ValueError(f"{PRESENCE} is not as it was written")
    except FileNotFoundError:
        raise PneumoError(
            f"{folder}: no predictions here; make them with python -m pneumo.predict run=… on=…"
        ) from None
    except files.DAMAGE as error:
        raise PneumoError(
            f"{folder}: damaged predictions ({brief(error)}); delete the folder, they will be made "
            "anew"
        ) from None
    return Predictions(folder, cases, plain, flip, contents, scores)


def _open(folder: Path, name: str) -> np.ndarray | Joined:
    """The maps of a file, memory-mapped, or of that file of all shards."""
    parts = shards.whole_in(folder)
    if not parts:
        maps: np.ndarray = np.load(folder / name, mmap_mode="r")
        return maps
    return Joined([np.load(folder / part.folder / name, mmap_mode="r") for part in parts])


def _case(values: dict[str, Any]) -> Case:
    """A case from JSON, which knows lists only where a case has tuples."""
    typed: dict[str, Any] = {"truth": Truth(values.get("truth", "masks"))}
    for key in ("shape", "orientation", "spacing"):
        typed[key] = tuple(values[key]) if values.get(key) else None
    return Case(**{**values, **typed})


def kept(folder: Path, key: str, name: str = "key") -> Predictions | None:
    """The predictions of a folder, if they stand for this key and are whole.

    ``name`` is that of the key: ``key``, or ``source``, which stands for the films as they lie on
    the disk, so that none need be read to tell whether these are theirs.
    """
    try:
        found = load(folder)
    except PneumoError:  # none there, or damaged ones, which are made anew
        return None
    return found if found.contents.get(name) == key else None


def _checksum(levels: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(levels).data)


def cases_of(items: Sequence[Item], labelled: bool) -> list[Case]:
    """What is known of films on disk, from their headers.

    Many headers are read in parallel. Raises PneumoError.
    """
    paths = [item.path for item in items]
    workers = -1 if len(items) > 500 else 0
    tags_of = dict(pool.each(_tags, paths, "Reading headers", workers))
    cases = []
    for item in items:
        tags = tags_of[item.path]
        cases.append(
            Case(
                item.id,
                str(item.path.resolve()),
                item.annotations if labelled else None,
                item.shape or tags.stored_shape,
                tags.orientation,
                item.patient,
                tags.view,
                tags.sex,
                tags.age,
                _spacing(tags),
                item.truth,
                item.site,
                item.tube,
            )
        )
    return cases


def _tags(path: Path) -> dicom.Tags:
    return dicom.read_tags(path)


def _spacing(tags: dicom.Tags) -> tuple[float, float] | None:
    """Of the upright film at 1024², in mm; None if none is known that can be believed."""
    if tags.spacing is None:
        return None
    rows, columns = tags.shape
    return tags.spacing.rows * rows / JUDGED, tags.spacing.columns * columns / JUDGED


def _by_entry(entry: Entry, case: Case) -> tuple[float, float]:
    """Of the upright film at 1024², in mm, by what a table says. Raises PneumoError."""
    rows, columns = entry.shape or dicom.read_tags(Path(case.path)).stored_shape
    stored = Spacing(entry.rows * rows / JUDGED, entry.columns * columns / JUDGED)
    upright = dicom.upright_spacing(stored, case.orientation) or stored
    return upright.rows, upright.columns


class Arrays(NamedTuple):
    """What is written of n films: maps uint8 (n, size, size), presence float32 (n, 2).

    Presence is NaN until it is known, and where no network tells it. Of each row of these three
    there is a checksum, uint32 (n, 3).
    """

    plain: np.ndarray
    flip: np.ndarray
    presence: np.ndarray
    checksums: np.ndarray

    def of_row(self, row: int) -> list[int]:
        """The checksums of what a row holds."""
        return [_checksum(array[row]) for array in (self.plain, self.flip, self.presence)]

    def flush(self) -> None:
        """Hand what was written to the system."""
        for array in self:
            cast(np.memmap, array).flush()


Fill = Callable[[Arrays, int], Iterator[int]]


def _begun(partial: Path, key: str, count: int, size: int) -> tuple[Arrays, int]:
    """The arrays of interrupted work, and how many of their rows are whole; else new ones.

    Work that stands for another ``key``, or has changed on the disk meanwhile, is thrown away.
    """
    try:
        written = files.parse_json((partial / BEGUN).read_text(encoding="utf-8"))
        if written["key"] == key:
            rows = range(count)[: written["rows"]]
            arrays = _arrays(partial, count, size)
            if all(arrays.of_row(row) == arrays.checksums[row].tolist() for row in rows):
                return arrays, len(rows)
    except files.DAMAGE:  # none there, of an older version, or damaged
        pass
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return _arrays(partial, count, size), 0


def _arrays(folder: Path, count: int, size: int) -> Arrays:
    return Arrays(
        cache.writable(folder / PLAIN, (count, size, size), np.uint8),
        cache.writable(folder / FLIP, (count, size, size), np.uint8),
        cache.writable(folder / PRESENCE, (count, 2), np.float32),
        cache.writable(folder / ROWS, (count, 3), np.uint32),
    )


def write(
    folder: Path, key: str, cases: list[Case], size: int, fill: Fill, facts: dict[str, Any]
) -> Predictions:
    """Make a folder of predictions, or open it if it stands for the same ``key``.

    ``fill(arrays, begin)`` writes them in order, from row ``begin`` on, and yields how many rows
    are whole; work that was interrupted goes on there. The folder gets its name when all is
    written.
    """
    with runs.lock(folder.with_name(folder.name + ".lock")):
        films = [{**dataclasses.asdict(case), "truth": case.truth.name} for case in cases]
        before = kept(folder, key)
        if before is not None:
            if before.told:
                return before
            contents = {**before.contents, "told": TOLD, "films": films}
            seals.write_json(folder / CONTENTS, contents)
            return load(folder)
        partial = folder.with_name(folder.name + ".partial")
        arrays, done = _begun(partial, key, len(cases), size)
        arrays.presence[done:] = np.nan
        for rows in fill(arrays, done):  # none, if only their names were not yet given
            for row in range(done, rows):
                arrays.checksums[row] = arrays.of_row(row)
            arrays.flush()
            files.write_json(partial / BEGUN, {"key": key, "rows": rows})
            done = rows
        tells = not np.isnan(arrays.presence).any()
        plain, flip, _ = arrays.checksums.T.tolist()
        checksums = {PLAIN: plain, FLIP: flip, PRESENCE: _checksum(arrays.presence)}
        del arrays
        _write_contents(partial, key, size, tells, facts, films, checksums)
        for name in (BEGUN, ROWS):
            (partial / name).unlink(missing_ok=True)
        if not tells:  # not before: what goes on with the rest would take zeros for scores
            (partial / PRESENCE).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return load(folder)


def _write_contents(
    folder: Path,
    key: str,
    size: int,
    tells: bool,
    facts: dict[str, Any],
    films: list[dict[str, Any]],
    checksums: dict[str, Any],
) -> None:
    versions = {"version": VERSION, "told": TOLD, "presence": tells}
    contents = {**versions, "key": key, "size": size, **facts, "films": films}
    seals.write_json(folder / CONTENTS, {**contents, "checksums": checksums})


def shards_of(folder: Path) -> Path:
    """Where the shards of a folder of predictions lie until they are joined."""
    return folder.with_name(folder.name + ".shards")


def shard_key(source: str, shard: Shard, rows: Sequence[int]) -> str:
    """The key of a shard's predictions: of the whole's source, begin and end of its films there."""
    return files.digest([source, str(shard), *rows])


def collected(folder: Path, source: str, weights: str, size: int, count: int) -> list[Predictions]:
    """All shards of one source in a folder, in order; every map of them is looked at.

    Raises NotJoined, with what is wrong of each, unless all are there, whole and of one kind.
    """

    def read(place: Path, shard: Shard) -> tuple[Sequence[int], Predictions]:
        try:
            found = load(place)
            rows = found.contents["rows"]
            key = shard_key(source, shard, rows)
            facts = {"weights": weights, "size": size}
            other = [name for name, value in facts.items() if found.contents[name] != value]
        except (PneumoError, LookupError, TypeError):
            raise Fault("damaged") from None
        if other or found.contents["key"] != key:
            raise Fault(f"of other {other[0] if other else 'films'}")
        if not found.told:
            raise Fault("of an older version")
        return rows, found

    def verify(place: Path, found: Predictions) -> None:
        try:
            for row in range(len(found)):
                found.levels(row, tta=False), found.levels(row, tta=True)
        except PneumoError:
            raise Fault(f"damaged at film {found.ids[row]} (delete {place} first)") from None

    try:
        return shards.collected(folder, count, read, verify)
    except NotJoined as found:
        found.typed = _made_with(folder)
        raise


def _made_with(folder: Path) -> dict[str, str]:
    """What shards must be told to go with those that are there, as typed."""
    for shard in shards.whole_in(folder):
        with suppress(PneumoError, KeyError):
            return {"batch_size": str(load(folder / shard.folder).contents["batch_size"])}
    return {}


def join(
    folder: Path, key: str, parts: Sequence[Predictions], facts: dict[str, Any]
) -> Predictions:
    """The predictions of all films from those of all shards, which stay where they are.

    Beside them is written what stands for all of them; then the folder that holds them gets its
    name. So no map is copied, and whoever is stopped has lost nothing.
    """
    together = parts[0].folder.parent
    own = [part for part in parts if len(part)]  # of no films nothing is known of presence
    tells = all(part.scores is not None for part in own)
    cases = [case for part in parts for case in part.cases]
    presence = cache.writable(together / PRESENCE, (len(cases), 2), np.float32)
    presence[:] = np.concatenate([part.scores for part in own]) if tells else np.nan
    presence.flush()
    checksums: dict[str, Any] = {
        name: [one for part in parts for one in part.contents["checksums"][name]]
        for name in (PLAIN, FLIP)
    }
    checksums[PRESENCE] = _checksum(presence)
    del presence
    if not tells:
        (together / PRESENCE).unlink()
    films = [{**dataclasses.asdict(case), "truth": case.truth.name} for case in cases]
    _write_contents(together, key, parts[0].contents["size"], tells, facts, films, checksums)
    for left in together.glob("*.lock"):
        files.remove_folder(left)
    shutil.rmtree(folder, ignore_errors=True)
    together.rename(folder)
    return load(folder)
