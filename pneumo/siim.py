"""A folder of films and a table of run lengths → an index of images, masks and patients, tolerant of every layout met so far.

``python -m pneumo.siim data=siim data.root=… data.annotations=…`` checks a data set and prints Table I of the paper for it.
"""

import functools
import sys

from omegaconf import DictConfig

from pneumo import command, pool
from pneumo.data import dicom
from pneumo.data.films import Item
from pneumo.data.settings import Check, OnError, PhantomData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.masks import rle
from pneumo.settings import checked


def check(raw: DictConfig) -> None:
    """The command: print Table I for a data set, and decode each of its films unless told not to."""
    settings = checked(raw)
    data = settings.data
    if isinstance(data, PhantomData):
        raise PneumoError(
            "data=phantom is drawn when it is trained on; check its folder with data=siim data.root=<folder> data.annotations=<table>"
        )
    index = siim.read_index(data)
    if settings.decode:
        look = functools.partial(_fault, max_pixels=data.max_megapixels * 1_000_000)
        faults = [fault for _, fault in pool.each(look, index.items, "Decoding films") if fault]
        if faults:
            index.left_aside["films that cannot be used"] = sorted(faults)
    print(siim.describe(index, cases=0 if settings.verbose else 5))
    if settings.decode and faults and data.on_error is OnError.stop:
        raise PneumoError(
            f"{len(faults)} of {len(index.items)} films cannot be used; replace them, or leave them out with data.on_error=skip"
        )


def _fault(item: Item, max_pixels: int) -> str | None:
    """Why a film cannot be used, if it cannot."""
    try:
        film = dicom.read(item.path, max_pixels)
        rle.union(
            item.annotations,
            rle.SHAPE if item.path.suffix.lower() in dicom.IMAGES else film.stored_shape,
        )
    except dicom.FilmError as error:
        return str(error)
    except rle.RLEError as error:
        return f"{item.path}: its annotation does not fit: {error}"
    return None


if __name__ == "__main__":
    sys.argv[0] = "pneumo.siim"
    command.run(check, Check, "siim")
