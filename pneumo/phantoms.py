"""Phantoms in the layout of another data set: ``python -m pneumo.phantoms layout=candid out=…``.

They stand in for a set that one does not have (yet): the command that it ends with checks them as
it would check that set.
"""

import shlex
import sys
from pathlib import Path

from omegaconf import DictConfig

from pneumo import command
from pneumo.data.settings import Drawing
from pneumo.data.sources import layouts
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """The command."""
    settings = checked(raw)
    typed = layouts.write(settings)
    print(f"written: {Path(settings.out)}, {settings.images:,} phantoms")
    print(f"Next: python -m pneumo.siim {shlex.join(typed)}")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.phantoms"
    command.run(task, Drawing, "phantoms", "commands")
