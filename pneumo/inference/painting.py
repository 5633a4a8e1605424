"""From what a reader paints on the page's picture to a mask of the whole film.

The page shows a film at most 1024 pixels long, so one pixel that it shows stands for a cell of the
film's pixels. It is on if any pixel of its cell is on. So an empty mask is shown empty and no other
is. What the reader did not change keeps every pixel of the film's own mask.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from pneumo.errors import PneumoError, brief

SHOWN = 1024  # longest side of what the page draws, pixels
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # kinds of PNG that hold black and white


def shown_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The (rows, columns) at which the page shows a film of this shape."""
    factor = min(1.0, SHOWN / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def shown(mask: np.ndarray) -> np.ndarray:
    """A film's mask, uint8 of 0 and 1, as the page shows it: on where any pixel of a cell is on."""
    rows, columns = (
        _first_pixels(length, cells)
        for length, cells in zip(mask.shape, shown_shape(mask.shape), strict=True)
    )
    return np.maximum.reduceat(np.maximum.reduceat(mask, rows, axis=0), columns, axis=1)


def applied(painted: np.ndarray, current: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """What a painted mask, of the shown or of the film's shape, makes of the film's mask.

    ``current`` is the mask that was painted on, ``basis`` the one that it was made from, both of
    the film's shape; all are uint8 of 0 and 1. A shown pixel that is as in ``current`` keeps the
    film's pixels as they are. One that is as in ``basis``, because a stroke was undone, gets back
    those of ``basis``. All others fill or clear their cell.
    """
    if painted.shape == current.shape:
        return painted.copy()
    cells = np.ix_(
        _cell_of_pixels(current.shape[0], painted.shape[0]),
        _cell_of_pixels(current.shape[1], painted.shape[1]),
    )
    mask = painted[cells]
    for known in (basis, current):
        unchanged = (shown(known) == painted)[cells]
        mask = np.where(unchanged, known, mask)
    return mask


def read(content: bytes, shape: tuple[int, int]) -> np.ndarray:
    """A PNG of black and white, of the film's upright shape or as it is shown → uint8 of 0 and 1.

    Raises PneumoError for anything else; nothing is decoded before its size is known.
    """
    allowed = {shape, shown_shape(shape)}
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as picture:
            if (picture.height, picture.width) not in allowed:
                sizes = " or ".join(f"{rows} × {columns}" for rows, columns in sorted(allowed))
                raise PneumoError(
                    f"a mask of {picture.height} × {picture.width} pixels; this film needs {sizes}"
                )
            if picture.mode not in MODES:
                raise PneumoError(f"a mask of kind {picture.mode}; it must be black and white")
            colours = np.asarray(picture.convert("RGB"))
    except PneumoError:
        raise
    except Exception as error:  # Pillow raises many kinds of exception on damaged pictures
        raise PneumoError(f"the mask is not a readable PNG ({brief(error)})") from None
    grey = colours[..., 0]
    if not ((grey == 0) | (grey == 255)).all() or (colours != grey[..., None]).any():
        raise PneumoError("the mask has values other than 0 and 255")
    return (grey > 0).astype(np.uint8)


def _cell_of_pixels(length: int, cells: int) -> np.ndarray:
    """The shown pixel that each of a side's pixels lies in."""
    return np.arange(length) * cells // length


def _first_pixels(length: int, cells: int) -> np.ndarray:
    """The first of the side's pixels in each shown pixel: where ``_cell_of_pixels`` steps up."""
    return -(-np.arange(cells) * length // cells)
