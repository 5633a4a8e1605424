"""Run lengths: masks per second against the pixel-by-pixel codec of the challenge's public kernels.

Both work on the same rows of ``stage_2_train.csv.gz``, and must agree; the whole table must come
back unchanged. Without the table, ellipses of the sizes of real masks take their place. The slow
codec is written after the challenge's description (one step a run to decode, one step a pixel to
encode), not copied.
"""

import numpy as np

from benchmarks import table
from benchmarks.table import Row
from pneumo.data.sources import siim
from pneumo.masks import rle

SLOW = "the codec of the challenge's kernels"
KERNELS = 10  # masks that the slow codec is timed on


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


def texts_of(count: int) -> tuple[list[str], str]:
    """So many run lengths, and where they are from. Of the real table all were checked."""
    path = table.real_data() / "siim" / "stage_2_train.csv.gz"
    if not path.is_file():
        return [rle.encode(ellipse(number)) for number in range(count)], "drawn ellipses"
    rows = siim.read_table(path).rows.values()
    texts = [row.text for film in rows for row in film if row.text]
    return texts[:: max(1, len(texts) // count)][:count], f"of the challenge's {len(texts):,} rows"


def ellipse(number: int) -> np.ndarray:
    """A mask uint8 (1024, 1024) of 4,000 to 25,000 pixels, whole inside."""
    rng = np.random.default_rng(number)
    across, down = rng.uniform(25, 60), rng.uniform(50, 130)
    y, x = np.mgrid[:1024, :1024]
    left, top = rng.uniform(200, 800, 2)
    return (((x - left) / across) ** 2 + ((y - top) / down) ** 2 <= 1).astype(np.uint8)


def measure(quick: bool) -> list[Row]:
    """Decoding and encoding."""
    texts, source = texts_of(2 if quick else 200)
    masks = [rle.decode(text) for text in texts]
    changed = sum(rle.encode(mask) != text for mask, text in zip(masks, texts, strict=True))
    few = slice(None, None, max(1, len(texts) // KERNELS))
    for text, mask in zip(texts[few], masks[few], strict=True):
        assert np.array_equal(slow_decode(text), mask)
    assert slow_encode(masks[0]) == texts[0]
    rounds = 1 if quick else 3
    limit = f"{len(texts)} {source}: {changed} changed by decoding and encoding"
    rows = []
    for name, slow, fast, items in (
        ("decoded", slow_decode, rle.decode, texts),
        ("encoded", slow_encode, rle.encode, masks),
    ):
        some = items[few]
        timed = table.alternate(
            {
                "ours": lambda fast=fast, some=some: [fast(one) for one in some],
                "slow": lambda slow=slow, some=some: [slow(one) for one in some],
            },
            rounds=rounds,
            warm=0 if quick else 1,
        )
        rows.append(
            table.compared(
                f"run lengths {name}",
                timed["ours"],
                timed["slow"],
                per=len(some),
                of="mask",
                against=SLOW,
                limit=limit,
            )
        )
    return rows
