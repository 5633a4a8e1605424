"""Stored pixels of a DICOM film → 8-bit grey levels, by the standard's grey-scale pipeline.

The steps are those of PS3.3: modality LUT or rescale (C.11.1), VOI LUT or window (C.11.2), polarity
(C.7.6.3.1.2). Every step depends on the stored value of a pixel alone. So the steps run once over
all values that a pixel can have, and the pixels look up their grey level in the table that results.
https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.11.html
"""

import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from pydicom import datadict
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

# The version of the grey levels: whoever changes what comes out must raise it, so that no cache
# mixes films of two versions.
VERSION = 2
# without any of these tags, a film of 8 bits is shown as it is stored
CHANGING = {
    datadict.tag_for_keyword(keyword)
    for keyword in (
        *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence"),
        *("WindowCenter", "WindowWidth", "PixelPaddingValue"),
    )
}
LEAST_SHOWN = 0.2  # share of pixels that a usable window leaves neither black nor white


def render(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored pixels → what a viewer shows, uint8 (rows, columns), MONOCHROME2.

    - A VOI LUT is used before a window, and the first of several. The range of either, not the
      range of the pixels in it, becomes 0 to 255. The functions of a window are LINEAR,
      LINEAR_EXACT and SIGMOID; any other is taken as LINEAR.
    - A VOI LUT or window that leaves less than a fifth of the pixels between black and white hides
      the film, and is not used.
    - Without a usable one, a film of at most 8 bits shows the range of its stored bits: a film of
      exactly 8 bits stays as it is, also with a rescale (unless its slope is negative). Deeper
      films are stretched between their 0.1 and 99.9 percentiles, because the range of stored bits
      says little about what is used of it.
    - Padding (PixelPaddingValue, up to PixelPaddingRangeLimit) is background: black in every
      polarity, and none of the pixels that the rules above count.

    Args:
        stored: integers of at most 16 bits, (rows, columns).
        dataset: the film's tags.

    Raises:
        ValueError: all pixels are padding.
    """
    if _is_plain(stored, dataset):
        return stored
    pixels = np.ascontiguousarray(stored).view(f"u{stored.dtype.itemsize}")
    possible = np.arange(1 << 8 * stored.dtype.itemsize).astype(pixels.dtype)
    levels = possible.view(stored.dtype).astype(np.int32)  # the stored value of each table entry
    padding = _is_padding(levels, dataset)
    # most films need no counts, which take longer than all else
    counts = functools.cache(functools.partial(_counts, pixels, padding))
    if padding.any() and not counts().any():
        raise ValueError("all pixels are padding by its PixelPaddingValue")
    values = _modality(levels, dataset)
    shown = _of_interest(values, dataset)
    if shown is None or _hides(shown, counts()):
        shown = _whole_range(values, levels, counts, dataset)
    grey = _grey(shown)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255 - grey
    grey[padding] = 0
    # OpenCV's look-up is twice as fast as numpy's, but OpenCV 4 has it for bytes alone
    return cv2.LUT(pixels, grey) if pixels.dtype == np.uint8 else np.take(grey, pixels)


def _is_plain(stored: np.ndarray, dataset: Dataset) -> bool:
    """Whether a film is shown as it is stored, as most of 8 bits are; false if in doubt."""
    return (
        stored.dtype == np.uint8
        and dataset.keys().isdisjoint(CHANGING)
        and dataset.get("BitsStored") == 8
        and dataset.get("PhotometricInterpretation") == "MONOCHROME2"
    )


def _counts(pixels: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """How many pixels have each possible value, but none of padding."""
    counts = np.bincount(pixels.reshape(-1), minlength=len(padding))
    counts[padding] = 0
    return counts


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from ``low`` to ``high`` spread over 0 to 255, uint8."""
    return _grey(_spread(values, low, high))


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1)


def _grey(shown: np.ndarray) -> np.ndarray:
    """From 0 to 1 → uint8, rounded."""
    return np.rint(255 * shown).astype(np.uint8)


def _is_padding(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Which stored values are padding (PS3.3 C.7.5.1.1.2), bool."""
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(len(levels), bool)
    ends = [int(dataset.PixelPaddingValue)]
    if dataset.get("PixelPaddingRangeLimit") is not None:
        ends.append(int(dataset.PixelPaddingRangeLimit))
    # devices write the 16 bits of a negative value as an unsigned one, and the reverse
    kind = np.int16 if dataset.get("PixelRepresentation") == 1 else np.uint16
    bits = np.array([end & 0xFFFF for end in ends], np.uint16).view(kind)
    return (levels >= bits.min()) & (levels <= bits.max())


def _modality(levels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values → the values that windows speak of."""
    if dataset.get("ModalityLUTSequence"):
        return _looked_up(levels, dataset.ModalityLUTSequence[0], dataset)[0]
    slope = float(dataset.get("RescaleSlope") or 1)
    intercept = float(dataset.get("RescaleIntercept") or 0)
    return levels * slope + intercept


def _of_interest(values: np.ndarray, dataset: Dataset) -> np.ndarray | None:
    """The values as the VOI LUT or window shows them, 0 to 1; None if there is no valid one."""
    if dataset.get("VOILUTSequence"):
        entries, bits = _looked_up(values, dataset.VOILUTSequence[0], dataset)
        return np.clip(entries / (2**bits - 1), 0, 1)
    centre = _first_number(dataset.get("WindowCenter"))
    width = _first_number(dataset.get("WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID" and width > 0:
        # 1 / (1 + exp(-4 (x - c) / w)), in a form that does not overflow
        return 0.5 + 0.5 * np.tanh(2 * (values - centre) / width)
    if function not in ("SIGMOID", "LINEAR_EXACT"):
        # both ends of a LINEAR window are pixels in it, so it counts one more than it spans
        centre, width = centre - 0.5, width - 1
    elif width == 0:
        return None
    return None if width < 0 else _spread(values, centre - width / 2, centre + width / 2)


def _hides(shown: np.ndarray, counts: np.ndarray) -> bool:
    grey = _grey(shown)
    between = counts[(grey > 0) & (grey < 255)].sum()
    return bool(between <= LEAST_SHOWN * counts.sum())


def _whole_range(
    values: np.ndarray,
    levels: np.ndarray,
    counts: Callable[[], np.ndarray],
    dataset: Dataset,
) -> np.ndarray:
    """The values of a film without a usable window, 0 to 1."""
    bits = int(dataset.BitsStored)
    if bits > 8:
        low, high = np.percentile(np.repeat(values, counts()), (0.1, 99.9))
        return _spread(values, low, high)
    least = -(1 << bits - 1) if dataset.get("PixelRepresentation") == 1 else 0
    stored = (levels >= least) & (levels < least + (1 << bits))
    return _spread(values, values[stored].min(), values[stored].max())


def _looked_up(values: np.ndarray, lut: Dataset, dataset: Dataset) -> tuple[np.ndarray, int]:
    """Values through a LUT item (PS3.3 C.11.1.1, C.11.2.1.1), and the bits of its entries.

    pydicom's ``apply_voi`` is not used: it wraps values that are higher than entries of 8 bits.
    """
    number, first, bits = (int(value) for value in lut.LUTDescriptor)
    entries = lut.LUTData
    if isinstance(entries, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        is_packed = len(entries) < 2 * (number or 1 << 16)  # a byte an entry
        entries = np.frombuffer(entries, np.uint8 if is_packed else f"{order}u2")
    table = np.asarray(entries, np.float64)[: number or 1 << 16]
    at = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.int64)
    return table[at], bits


def _first_number(value: Any) -> float | None:
    """The first value of a tag that may have several; None if it is empty."""
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)
