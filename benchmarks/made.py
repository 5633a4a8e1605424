"""Small films on disk, and a finished run over any number of them, without a training."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pneumo import files, runs
from pneumo.data.settings import MaskSize, SiimData
from pneumo.inference import maps
from pneumo.inference.maps import Case
from pneumo.training.lineage import declared
from pneumo.training.record import DataFacts, Origin, Record

SHAPE = (1024, 1024)
TABLE = "table.csv"


def rectangle(rows: slice, columns: slice, height: int) -> str:
    """The run lengths of a rectangle in a film of so many rows."""
    tall, wide = rows.stop - rows.start, columns.stop - columns.start
    first = columns.start * height + rows.start
    return f"{first} {tall}" + f" {height - tall} {tall}" * (wide - 1)


def films(folder: Path, count: int, side: int) -> SiimData:
    """Pictures of noise, side², every third with a rectangle in the table of run lengths."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["ImageId,EncodedPixels"]
    for film in range(count):
        grey = rng.integers(0, 256, (side, side), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{film}.png"), grey, [cv2.IMWRITE_PNG_COMPRESSION, 0])
        box = slice(side // 4, side // 2)
        lines.append(f"{film}," + (rectangle(box, box, side) if film % 3 == 0 else "-1"))
    (folder / TABLE).write_text("\n".join(lines) + "\n")
    return SiimData(
        name="made",
        root=str(folder),
        annotations=str(folder / TABLE),
        mask_size=MaskSize.film,
        cache=str(folder.parent / "cache"),
    )


def cases(count: int) -> list[Case]:
    """Films of two patients each in three; every third is positive. None lies on disk."""
    box = slice(300, 420)
    truth = rectangle(box, box, SHAPE[0])
    return [
        Case(str(film), "", [truth] if film % 3 == 0 else [], SHAPE, None, f"p{film * 2 // 3}")
        for film in range(count)
    ]


def levels(count: int, side: int) -> np.ndarray:
    """Maps uint8 (count, side, side): a bright square near the truth of ``cases``, and noise."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 60, (count, side, side), dtype=np.uint8)
    low, high = round(0.27 * side), round(0.42 * side)
    bright = rng.integers(100, 256, count, dtype=np.uint8)[:, None, None]
    found = np.flatnonzero(rng.random(count) < np.where(np.arange(count) % 3 == 0, 0.8, 0.1))
    values[found, low:high, low:high] = bright[found]
    return values


def finished_run(runs_dir: Path, count: int, side: int, seed: int = 0) -> Path:
    """The folder of a run that is finished, with its maps of so many validation films.

    Its weights are no network: what judges maps never opens them.
    """
    config = declared(
        [
            *("+experiment=exp5_one_stage", "data=folder", "data.root=gone", "data.masks=gone"),
            *(f"runs_dir='{runs_dir}'", f"seed={seed}"),
        ]
    )
    folder = config.path
    folder.mkdir(parents=True)
    facts = DataFacts("f", f"p{seed}", "a", count, count, (count + 2) // 3, True, 0.0, {})
    Record(config, Origin(), facts).write(folder)
    (folder / runs.WEIGHTS).write_bytes(str(folder).encode())
    files.write_json(folder / runs.METRICS, {"weights": "last epoch"})
    made = levels(count, side)

    def fill(arrays: maps.Arrays, begin: int) -> Iterator[int]:
        arrays.plain[:], arrays.flip[:] = made, made[:, :, ::-1] // 2 + made // 2
        yield count

    weights = files.sha256(folder / runs.WEIGHTS)
    # the key that a prediction of this run would have, so that its maps are taken as they are
    key = files.digest([maps.VERSION, weights, dataclasses.asdict(facts)])
    about = {
        **{"on": "val", "run": str(folder), "weights": weights, "left_out": []},
        **{"seen_in_training": 0, "patients_in_training": 0, "excluded": 0},
    }
    maps.write(folder / maps.FOLDER / "val", key, cases(count), side, fill, about)
    return folder
