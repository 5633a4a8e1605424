"""Run-length encoding of the SIIM-ACR challenge ↔ binary mask. Pure numpy.

The challenge's text is a list of pairs ``gap length gap length …``: each gap counts from the *end*
of the previous run (the first from pixel 0), and pixels are numbered down the columns
(column-major). ``-1`` is the empty mask.
https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation/overview/evaluation
"""

import re
from collections.abc import Iterable

import numpy as np

EMPTY = "-1"
SHAPE = (1024, 1024)
LONGEST = 2**31 - 1  # pixels of the largest image whose run lengths can be read


class RLEError(ValueError):
    """A run-length text that is malformed or does not fit its image."""


def is_empty(text: str) -> bool:
    """Whether a text says "no pneumothorax".

    The challenge's ways of writing it are ``-1``, `` -1`` and nothing at all.
    """
    return text.strip() in ("", EMPTY)


def runs(text: str, size: int = LONGEST) -> tuple[np.ndarray, np.ndarray]:
    """Parse one annotation into the starts and ends of its runs.

    They are int64 arrays of column-major pixel numbers; ends are exclusive.

    Raises:
        RLEError: not whole numbers, an odd count, a negative gap, a run of no length, or a run
            beyond ``size`` pixels.
    """
    if is_empty(text):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    try:
        # numpy's own parser is five times as fast, but stops at the first letter without an error
        if re.fullmatch(r"[0-9 \t\r\n]+", text):
            numbers = np.fromstring(text, np.int64, sep=" ")
        else:
            numbers = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        raise RLEError(f"run lengths must be whole numbers, got '{text.strip()[:40]}'") from None
    if len(numbers) % 2:
        raise RLEError(f"run lengths come in pairs (gap, length), got {len(numbers)} numbers")
    gaps, lengths = numbers[::2], numbers[1::2]
    if (gaps < 0).any():
        raise RLEError(f"gap {gaps.min()} is negative")
    if (lengths <= 0).any():
        raise RLEError(f"a run of length {lengths.min()} (must be at least 1)")
    # checked before the sum, which numbers near the limit of int64 would make overflow
    if max(gaps.max(), lengths.max()) > size:
        raise RLEError(f"a run reaches beyond the image's {size} pixels")
    ends = np.cumsum(gaps + lengths)
    if ends[-1] > size:
        raise RLEError(f"the last run ends at pixel {ends[-1]}, beyond the image's {size} pixels")
    return ends - lengths, ends


def decode(text: str, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """One annotation → uint8 mask of 0 and 1, shape (rows, columns). Raises RLEError."""
    return union([text], shape)


def union(texts: Iterable[str], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """The union of several annotations of one image → uint8 mask of 0 and 1, (rows, columns).

    They may overlap. The cost grows with the pixels of the mask, not of the image. Raises RLEError.
    """
    rows, columns = shape
    mask = np.zeros(shape, np.uint8)
    for text in texts:
        starts, ends = runs(text, rows * columns)
        lengths = ends - starts
        # every pixel's column-major number is its run's start plus its place in the run
        before = np.cumsum(lengths) - lengths
        place = np.arange(lengths.sum(), dtype=np.int32)
        at = np.repeat((starts - before).astype(np.int32), lengths) + place
        # division and subtraction are several times as fast as divmod
        x = at // rows
        y = at - x * rows
        mask.reshape(-1)[y * columns + x] = 1
    return mask


def encode(mask: np.ndarray) -> str:
    """Mask (rows, columns) → the challenge's text, ``-1`` if empty; all but 0 is foreground."""
    rows, columns = mask.shape
    at = np.flatnonzero(mask != 0).astype(np.int32)
    if not len(at):
        return EMPTY
    y = at // columns
    x = at - y * columns
    at = np.sort(x * rows + y)  # column-major pixel numbers
    # a run ends where the next pixel's number is not greater by one
    last = np.flatnonzero(np.diff(at) != 1)
    starts = at[np.concatenate(([0], last + 1))]
    ends = at[np.concatenate((last, [-1]))] + 1
    gaps = starts - np.concatenate(([0], ends[:-1]))
    pairs = np.column_stack((gaps, ends - starts))
    return " ".join(map(str, pairs.reshape(-1).tolist()))
