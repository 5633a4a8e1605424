"""Check a data set: ``python -m pneumo.siim data=siim data.root=… data.annotations=…``.

Prints Table I of the paper for it, and every film or row left aside with the reason.
"""

import dataclasses
import functools
import sys

from omegaconf import DictConfig

from pneumo import command, pool
from pneumo.data import dicom
from pneumo.data.films import Item
from pneumo.data.settings import Check, OnError, SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.settings import checked


def check(raw: DictConfig) -> None:
    """Print Table I for a data set, and decode each of its films unless told not to."""
    settings = checked(raw)
    data = settings.data
    if not isinstance(data, SiimData):
        raise PneumoError(
            f"data={data.format}: only the challenge's layout has a Table I; of drawn phantoms "
            "check the folder, data=siim data.root=<folder> data.annotations=<table>"
        )
    # what is missing is what is asked for here
    index = siim.read_index(dataclasses.replace(data, on_missing=OnError.skip))
    if settings.decode:
        look = functools.partial(_fault, max_pixels=data.max_megapixels * 1_000_000)
        faults = [fault for _, fault in pool.each(look, index.items, "Decoding films") if fault]
        if faults:
            index.left_aside["films that cannot be used"] = sorted(faults)
    print(siim.describe(index, cases=0 if settings.verbose else 5))
    if settings.decode and faults and data.on_error is OnError.stop:
        raise PneumoError(
            f"{len(faults)} of {len(index.items)} films cannot be used; replace them, or leave "
            "them out with data.on_error=skip"
        )


def _fault(item: Item, max_pixels: int) -> str | None:
    """Why a film cannot be used, if it cannot."""
    try:
        item.mask(dicom.read(item.path, max_pixels).stored_shape)
    except PneumoError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.argv[0] = "pneumo.siim"
    command.run(check, Check, "siim")
