"""Probability maps on disk, with all that judging them needs: ids, truth, patients, views, hashes. No torch.

A folder of predictions holds ``plain.npy`` and ``flip.npy`` (the mean with the mirror image), uint8 (n, size, size), levels of
1/255, memory-mapped; ``contents.json``, written last; and, once judged, ``histograms.npz``. The maps are those of upright films.
"""

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pneumo import files, pool, runs
from pneumo.data import cache, dicom
from pneumo.data.films import Item
from pneumo.errors import PneumoError
from pneumo.masks import rle
from pneumo.masks.components import Components, components
from pneumo.masks.histograms import Histograms, histogram
from pneumo.masks.resize import enlarge, shrink_mask

FOLDER = "predictions"  # of a run
PLAIN, FLIP, CONTENTS, HISTOGRAMS = "plain.npy", "flip.npy", "contents.json", "histograms.npz"
JUDGED = 1024  # films are judged at this side, the challenge's, whatever the maps' size
VERSION = 1


@dataclass
class Case:
    """One film of a set: where it is, what is known of it. ``annotations`` are run lengths, None where nobody looked."""

    id: str
    path: str
    annotations: list[str] | None
    shape: tuple[int, int]  # of the annotations: the film's as stored
    orientation: tuple[str, str] | None = None
    patient: str | None = None
    view: str | None = None

    def mask(self) -> np.ndarray:
        """The true mask over the upright film at 1024², uint8 of 0 and 1. Raises PneumoError."""
        try:
            stored = rle.union(self.annotations or [], self.shape)
        except rle.RLEError as error:
            raise PneumoError(f"{self.path}: its annotation does not fit: {error}") from None
        return shrink_mask(dicom.upright(stored, self.orientation), JUDGED)


@dataclass
class Predictions:
    """The maps of one run, or the mean of several, on one set of films."""

    folder: Path
    cases: list[Case]
    plain: np.ndarray
    flip: np.ndarray
    contents: dict[str, Any] = field(repr=False)
    _components: dict[Any, list[Components]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def ids(self) -> list[str]:
        """Image ids, in the maps' order."""
        return [case.id for case in self.cases]

    @property
    def labelled(self) -> bool:
        """Whether the truth is known of every film."""
        return all(case.annotations is not None for case in self.cases)

    def map(self, row: int, tta: bool, side: int = JUDGED) -> np.ndarray:
        """One film's map enlarged to side², bilinear, uint8 levels."""
        return enlarge((self.flip if tta else self.plain)[row], (side, side))

    def histograms(self, tta: bool) -> Histograms:
        """Pixels by level at 1024² of every film, inside the true mask and in all; counted once, then kept beside the maps."""
        path, name = self.folder / HISTOGRAMS, "flip" if tta else "plain"
        try:
            with np.load(path) as kept:
                if str(kept["key"]) != self.contents["key"]:
                    raise ValueError("of other maps")
                return Histograms(kept[f"{name}_total"], kept[f"{name}_inside"])
        except Exception:  # missing, of other maps, or damaged in one of many ways: counted anew
            tables = self._count()
        with files.replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{"key": np.array(self.contents["key"]), **tables})  # type: ignore[arg-type]
        return Histograms(tables[f"{name}_total"], tables[f"{name}_inside"])

    def _count(self) -> dict[str, np.ndarray]:
        tables = {
            f"{name}_{part}": np.zeros((len(self), 256), np.int32)
            for name in ("plain", "flip")
            for part in ("total", "inside")
        }
        for row, counts in self.each(_histograms, "Counting probabilities"):
            for table, values in zip(tables.values(), counts, strict=True):
                table[row] = values
        return tables

    def components(self, tta: bool, ts: Sequence[float]) -> list[Components]:
        """The components of every film at each threshold, at 1024²; film numbers are rows. Found once for these settings."""
        key = (tta, tuple(ts))
        if key not in self._components:
            work = functools.partial(_components, tta=tta, ts=tuple(ts))
            self._components[key] = [
                found
                for _, found in sorted(
                    self.each(work, "Finding components"), key=lambda pair: pair[0]
                )
            ]
        return self._components[key]

    def each(
        self, work: Callable[["Predictions", int], Any], title: str
    ) -> Iterator[tuple[int, Any]]:
        """``work(predictions, row)`` for every row, in processes where there are many; results in any order."""
        if len(self) <= 200:
            yield from ((row, work(self, row)) for row in range(len(self)))
            return
        yield from pool.each(
            functools.partial(_in_process, work, self.folder, self.contents["key"]),
            range(len(self)),
            title,
        )


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, key: str) -> Predictions:
    found = load(folder)
    if found.contents["key"] != key:
        raise PneumoError(f"{folder}: changed meanwhile; run the command again")
    return found


def _in_process(work: Callable[[Predictions, int], Any], folder: Path, key: str, row: int) -> Any:
    return work(_opened(folder, key), row)


def _histograms(predictions: Predictions, row: int) -> list[np.ndarray]:
    truth = predictions.cases[row].mask()
    return [
        counts for tta in (False, True) for counts in histogram(predictions.map(row, tta), truth)
    ]


def _components(predictions: Predictions, row: int, tta: bool, ts: tuple[float, ...]) -> Components:
    return components(predictions.map(row, tta), predictions.cases[row].mask(), row, ts)


def load(folder: Path) -> Predictions:
    """Open predictions. Raises PneumoError if they are missing or damaged."""
    try:
        contents = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        cases = [_case(values) for values in contents["films"]]
        plain, flip = (np.load(folder / name, mmap_mode="r") for name in (PLAIN, FLIP))
        size = contents["size"]
        if any(
            maps.shape != (len(cases), size, size) or maps.dtype != np.uint8
            for maps in (plain, flip)
        ):
            raise ValueError("unexpected arrays")
    except FileNotFoundError:
        raise PneumoError(
            f"{folder}: no predictions here; make them with python -m pneumo.predict run=… on=…"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise PneumoError(
            f"{folder}: damaged predictions ({error}); delete the folder, they will be made anew"
        ) from None
    return Predictions(folder, cases, plain, flip, contents)


def _case(values: dict[str, Any]) -> Case:
    pairs = {
        key: tuple(values[key]) if values.get(key) else None for key in ("shape", "orientation")
    }
    return Case(**{**values, **pairs})


def key_of(folder: Path) -> str | None:
    """What the predictions of a folder stand for; None if there are none."""
    try:
        return str(json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cases_of(items: Sequence[Item], labelled: bool) -> list[Case]:
    """What is known of films on disk: their headers are read, in parallel where there are many. Raises PneumoError."""
    tags = dict(
        pool.each(
            _tags,
            [item.path for item in items],
            "Reading headers",
            workers=-1 if len(items) > 500 else 0,
        )
    )
    cases = []
    for item in items:
        found = tags[item.path]
        picture = item.path.suffix.lower() in dicom.IMAGES
        cases.append(
            Case(
                item.id,
                str(item.path.resolve()),
                item.annotations if labelled else None,
                rle.SHAPE if picture else found.stored_shape,
                found.orientation,
                item.patient,
                found.view,
            )
        )
    return cases


def _tags(path: Path) -> dicom.Tags:
    return dicom.read_tags(path)


Fill = Callable[[np.ndarray, np.ndarray, int], Iterator[int]]


def write(
    folder: Path, key: str, cases: list[Case], size: int, fill: Fill, facts: dict[str, Any]
) -> Predictions:
    """Make a folder of predictions, or open it if it stands for the same ``key``.

    ``fill(plain, flip, begin)`` writes maps in order, from row ``begin`` on, and yields how many rows are whole; work that was
    interrupted goes on there. The folder gets its name when all is written.
    """
    with runs.lock(folder.with_name(folder.name + ".lock")):
        if key_of(folder) == key:
            with contextlib.suppress(PneumoError):  # damaged ones are made anew
                return load(folder)
        partial = folder.with_name(folder.name + ".partial")
        begun = partial / "begun.json"
        done = 0
        try:
            before = json.loads(begun.read_text(encoding="utf-8"))
            done = int(before["done"]) if before["key"] == key else 0
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if not done:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        shape = (len(cases), size, size)
        plain, flip = (cache.writable(partial / name, shape, np.uint8) for name in (PLAIN, FLIP))
        for rows in fill(plain, flip, done):
            plain.flush()
            flip.flush()
            files.write_json(begun, {"key": key, "done": rows})
        del plain, flip
        films = [dataclasses.asdict(case) for case in cases]
        files.write_json(
            partial / CONTENTS,
            {"version": VERSION, "key": key, "size": size, **facts, "films": films},
        )
        begun.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return load(folder)


def average(members: Sequence[Predictions], folder: Path) -> Predictions:
    """The mean of several runs' maps on the same films, at the largest of their sizes, rounded to levels."""
    size = max(member.contents["size"] for member in members)
    key = files.digest([VERSION, *(member.contents["key"] for member in members)])

    def fill(plain: np.ndarray, flip: np.ndarray, begin: int) -> Iterator[int]:
        for row in range(begin, len(plain)):
            for out, tta in ((plain, False), (flip, True)):
                out[row] = np.mean(
                    [member.map(row, tta, size) for member in members], axis=0
                ).round()
            if row % 256 == 255 or row == len(plain) - 1:
                yield row + 1

    facts = {
        "on": members[0].contents["on"],
        "run": "mean of " + ", ".join(str(member.contents["run"]) for member in members),
        "members": [member.contents["weights"] for member in members],
        "weights": files.digest([member.contents["weights"] for member in members]),
        "left_out": members[0].contents["left_out"],
        **{
            key: _most([member.contents[key] for member in members])
            for key in ("seen_in_training", "patients_in_training")
        },
    }
    return write(folder, key, members[0].cases, size, fill, facts)


def _most(counts: Sequence[int | None]) -> int | None:
    """The largest, unknown if one is: of an ensemble, films that any member was trained on are at least so many."""
    return None if any(count is None for count in counts) else max(count or 0 for count in counts)
