"""Run lengths: masks per second against the pixel-by-pixel codec of the challenge's public kernels.

    python benchmarks/codec.py <stage_2_train.csv.gz> [masks]

Both work on the same rows of the table, and must agree; the whole table must come back unchanged.
The slow codec is written after the challenge's description (one step a run to decode, one step a
pixel to encode), not copied.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.data.sources import siim
from pneumo.masks import rle


def slow_decode(text: str) -> np.ndarray:
    """Run by run into a flat array, then made the same array as ours (uint8, row-major)."""
    mask = np.zeros(1024 * 1024)
    numbers = np.asarray([int(one) for one in text.split()])
    position = 0
    for gap, length in zip(numbers[0::2], numbers[1::2], strict=True):
        position += gap
        mask[position : position + length] = 255
        position += length
    return (mask.reshape(1024, 1024).T > 0).astype(np.uint8, order="C")


def slow_encode(mask: np.ndarray) -> str:
    """Pixel by pixel down the columns."""
    runs, last, begin, previous_end = [], 0, 0, 0
    rows, columns = mask.shape
    for x in range(columns):
        for y in range(rows):
            value = mask[y][x]
            if value != last:
                here = x * rows + y
                if value:
                    begin = here
                else:
                    runs += [begin - previous_end, here - begin]
                    previous_end = here
                last = value
    return " ".join(map(str, runs))


def seconds(work: Callable[[Any], Any], items: Sequence[Any]) -> float:
    """Per item; the median of three rounds."""
    rounds = []
    for _ in range(3):
        start = time.perf_counter()
        for item in items:
            work(item)
        rounds.append((time.perf_counter() - start) / len(items))
    return sorted(rounds)[1]


def main(path: Path, count: int) -> None:
    """Print both codecs' times and ratios."""
    texts = [row.text for rows in siim.read_table(path).rows.values() for row in rows if row.text]
    changed = sum(rle.encode(rle.decode(text)) != text for text in texts)
    print(f"{len(texts):,} rows decoded and encoded again: {changed} changed")
    some = texts[:: len(texts) // count][:count]
    masks = [rle.decode(text) for text in some]
    assert all(
        np.array_equal(slow_decode(text), mask) for text, mask in zip(some, masks, strict=True)
    )
    assert all(slow_encode(mask) == text for text, mask in zip(some[:3], masks, strict=False))
    for name, slow, fast, items in (
        ("decode", slow_decode, rle.decode, some),
        ("encode", slow_encode, rle.encode, masks),
    ):
        a, b = seconds(slow, items[:10]), seconds(fast, items)
        print(
            f"{name}: {1000 * a:.2f} ms (of {len(items[:10])} masks) against {1000 * b:.3f} ms (of "
            f"{len(items)}) a mask, ratio {a / b:,.0f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200)
