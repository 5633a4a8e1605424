"""Peak memory of joining the maps of eight shards, and of judging them, by the number of films.

    python -m benchmarks shards

Maps are tiny (32²) and made up; no network runs. What is known of a film (its truth, patient, view)
is in memory for every film, whoever makes the maps; the maps themselves never are, so that the peak
is that of so many lines of text. Counting the levels of every map at 1024², which is what all
scoring needs of it, is measured on fewer films, since it takes milliseconds for each.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import made
from benchmarks.table import Row, peak_memory
from pneumo import pool
from pneumo.inference import maps
from pneumo.inference.maps import Predictions
from pneumo.inference.shards import Shard

SIDE, SHARDS = 32, 8
JOINED, COUNTED = 100_000, 1_000  # films
FACTS = {"on": "folder", "run": "", "weights": "", "left_out": [], "excluded": 0}


def write(folder: Path, count: int) -> Path:
    """Maps of so many films in shards; returns the folder that they lie in."""
    levels, cases = made.levels(count, SIDE), made.cases(count)
    for number in range(1, SHARDS + 1):
        shard = Shard(number, SHARDS)
        rows = shard.rows(count, 1)

        def fill(arrays: maps.Arrays, begin: int, rows: slice = rows) -> Iterator[int]:
            arrays.plain[:], arrays.flip[:] = levels[rows], levels[rows, :, ::-1]
            yield rows.stop - rows.start

        ends = [rows.start, rows.stop]
        place = maps.shards_of(folder) / shard.folder
        key = maps.shard_key("source", shard, ends)
        maps.write(place, key, cases[rows], SIDE, fill, {**FACTS, "rows": ends})
    return maps.shards_of(folder)


def join(folder: Path) -> Predictions:
    """As the last shard does it."""
    parts = maps.collected(maps.shards_of(folder), "source", "", SIDE, SHARDS)
    return maps.join(folder, "key", parts, dict(FACTS))


WAYS: dict[str, tuple[int, Callable[[Path], object]]] = {
    "maps of eight shards joined": (JOINED, join),
    "joined maps opened and counted": (
        COUNTED,
        lambda folder: maps.load(folder).histograms(tta=True),
    ),
}


def measure(quick: bool) -> list[Row]:
    """A row for each way; the ratio is the tenth's peak by that of all."""
    logging.getLogger("pneumo").setLevel(logging.WARNING)
    pool.cores = lambda: 1  # other processes' memory would not be seen
    rows = []
    for way, (count, work) in WAYS.items():
        count = 80 if quick else count
        peaks = []
        for number in (count // 10, count):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name) / "maps"
                write(folder, number)
                if work is not join:
                    join(folder)
                peaks.append(peak_memory(lambda work=work, folder=folder: work(folder)))
        each = 1024 * (peaks[1] - peaks[0]) / (count - count // 10)
        rows.append(
            Row(
                f"memory, {way}, {count:,} films",
                ours=peaks[1],
                other=peaks[0],
                unit="MiB",
                ratios=[peaks[0] / peaks[1]],
                against="a tenth of the films",
                limit=f"{each:.1f} KiB a film",
            )
        )
    return rows
