"""Check a data set: ``python -m pneumo.siim data=siim data.root=… data.annotations=…``.

Prints what it holds (of the challenge's, Table I of the paper), and every film or row left aside
with the reason.
"""

import dataclasses
import functools
import sys

from omegaconf import DictConfig

from pneumo import command, pool
from pneumo.data import dicom
from pneumo.data.films import Item
from pneumo.data.index import read
from pneumo.data.settings import Check, OnError, TableData
from pneumo.data.sources.siim import SiimIndex
from pneumo.errors import PneumoError
from pneumo.settings import checked


def check(raw: DictConfig) -> None:
    """Print what a data set holds, and decode each of its films unless told not to."""
    settings = checked(raw)
    data = settings.data
    if isinstance(data, TableData):  # what is missing is what is asked for here
        data = dataclasses.replace(data, on_missing=OnError.skip)
    index = read(data, settings.runs_dir)
    if settings.decode:
        look = functools.partial(_fault, max_pixels=data.max_megapixels * 1_000_000)
        faults = [fault for _, fault in pool.each(look, index.items, "Decoding films") if fault]
        if faults:
            index.left_aside["films that cannot be used"] = sorted(faults)
    print(index.describe(cases=0 if settings.verbose else 5))
    if isinstance(index, SiimIndex):
        print(index.verdict())
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
