"""Probability maps on disk, with all that judging them needs: ids, truth, patients, views, hashes.

A folder of predictions holds ``plain.npy`` and ``flip.npy`` (the mean with the mirror image), uint8
(n, size, size), levels of 1/255, memory-mapped; ``presence.npy`` float32 (n, 2), a film's presence
score without and with its mirror image, where networks tell it; ``contents.json``, written last;
and, once judged, ``histograms.npz``. The maps are those of films in upright orientation. No torch
is needed here.
"""

import dataclasses
import functools
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from pneumo import files, pool, runs, seals
from pneumo.data import cache, dicom
from pneumo.data.films import Item, read_mask
from pneumo.data.spacing import Entry, Spacing
from pneumo.errors import PneumoError, brief
from pneumo.masks.components import Components, components
from pneumo.masks.histograms import Histograms, histogram
from pneumo.masks.resize import enlarge, shrink_mask
from pneumo.masks.rule import passes, to_mask
from pneumo.masks.settings import Postprocess
from pneumo.masks.truth import Truth

FOLDER = "predictions"  # of a run
PLAIN, FLIP, PRESENCE = "plain.npy", "flip.npy", "presence.npy"
CONTENTS, HISTOGRAMS = "contents.json", "histograms.npz"
BEGUN = "begun.json"  # of unfinished maps: which rows are whole, by their checksums
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


@dataclass
class Predictions:
    """The maps of one run, or the mean of several, on one set of films."""

    folder: Path
    cases: list[Case]
    plain: np.ndarray
    flip: np.ndarray
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
        name, levels = (FLIP, self.flip) if tta else (PLAIN, self.plain)
        # maps of older versions have no checksums
        checksums = self.contents.get("checksums")
        if checksums and _checksum(levels[row]) != checksums[name][row]:
            raise PneumoError(
                f"{self.folder / name}: damaged at film {self.ids[row]}; delete the folder, its "
                "maps will be made anew"
            )
        return enlarge(levels[row], (side, side))

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
        plain = np.load(folder / PLAIN, mmap_mode="r")
        flip = np.load(folder / FLIP, mmap_mode="r")
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


def _case(values: dict[str, Any]) -> Case:
    """A case from JSON, which knows lists only where a case has tuples."""
    typed: dict[str, Any] = {"truth": Truth(values.get("truth", "masks"))}
    for key in ("shape", "orientation", "spacing"):
        typed[key] = tuple(values[key]) if values.get(key) else None
    return Case(**{**values, **typed})


def kept(folder: Path, key: str) -> Predictions | None:
    """The predictions of a folder, if they stand for this key and are whole."""
    try:
        found = load(folder)
    except PneumoError:  # none there, or damaged ones, which are made anew
        return None
    return found if found.contents.get("key") == key else None


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

    Presence is NaN until it is known, and where no network tells it.
    """

    plain: np.ndarray
    flip: np.ndarray
    presence: np.ndarray

    def flush(self) -> None:
        """Hand what was written to the system."""
        for array in self:
            cast(np.memmap, array).flush()


Fill = Callable[[Arrays, int], Iterator[int]]
NONE: dict[str, Any] = {PLAIN: [], FLIP: []}  # checksums of no rows


def _checksums(arrays: Arrays, rows: int, known: dict[str, Any] = NONE) -> dict[str, Any]:
    """Of each of the first rows, ``known`` ones taken over, and of all their scores of presence."""
    found: dict[str, Any] = {PRESENCE: _checksum(arrays.presence[:rows])}
    for name, maps in ((PLAIN, arrays.plain), (FLIP, arrays.flip)):
        new = maps[len(known[name]) : rows]
        found[name] = known[name] + [_checksum(levels) for levels in new]
    return found


def _begun(partial: Path, key: str, count: int, size: int) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of interrupted work, and the checksums of the rows that are whole; else new ones.

    Work that stands for another ``key``, or has changed on the disk meanwhile, is thrown away.
    """
    try:
        written = files.parse_json((partial / BEGUN).read_text(encoding="utf-8"))
        checksums = written["checksums"]
        arrays = _arrays(partial, count, size)
        whole = _checksums(arrays, len(checksums[PLAIN])) == checksums
        if written["key"] == key and whole:
            return arrays, checksums
    except files.DAMAGE:  # none there, of an older version, or damaged
        pass
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return _arrays(partial, count, size), NONE


def _arrays(folder: Path, count: int, size: int) -> Arrays:
    return Arrays(
        cache.writable(folder / PLAIN, (count, size, size), np.uint8),
        cache.writable(folder / FLIP, (count, size, size), np.uint8),
        cache.writable(folder / PRESENCE, (count, 2), np.float32),
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
        arrays, checksums = _begun(partial, key, len(cases), size)
        done = len(checksums[PLAIN])
        arrays.presence[done:] = np.nan
        for rows in fill(arrays, done):  # none, if only their names were not yet given
            arrays.flush()
            checksums = _checksums(arrays, rows, checksums)
            files.write_json(partial / BEGUN, {"key": key, "checksums": checksums})
        tells = not np.isnan(arrays.presence).any()
        del arrays
        versions = {"version": VERSION, "told": TOLD, "presence": tells}
        contents = {**versions, "key": key, "size": size, **facts, "films": films}
        seals.write_json(partial / CONTENTS, {**contents, "checksums": checksums})
        (partial / BEGUN).unlink(missing_ok=True)
        if not tells:  # not before: what goes on with the rest would take zeros for scores
            (partial / PRESENCE).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return load(folder)
