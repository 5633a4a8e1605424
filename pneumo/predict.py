"""Probability maps, or masks of any films.

``python -m pneumo.predict run=runs/…/fold0-seed0 on=val``: maps of a finished run, on val, test or
a folder. ``python -m pneumo.predict model=model input=<films> out=masks``: a bundle's masks.
"""

import shlex
import sys
import time

from omegaconf import DictConfig

from pneumo import command
from pneumo.errors import PneumoError
from pneumo.inference.settings import Predict
from pneumo.settings import checked
from pneumo.tables import counted


def task(raw: DictConfig) -> None:
    """The command."""
    from pneumo.evaluation import blend, members
    from pneumo.inference import applying  # torch takes seconds, and help needs none

    settings = checked(raw)
    if settings.model is not None:
        if settings.run is not None:
            raise PneumoError(
                "run and model are both set: run=… on=… judges a finished run, model=… input=… "
                "uses a bundle"
            )
        applying.apply(settings)
        return
    started = time.monotonic()
    parts = blend.gather(settings, settings.batch_size)
    for one in parts:
        print(f"{counted(len(one), 'film')} → {one.folder} ({time.monotonic() - started:.0f} s)")
    judge = "evaluate" if all(one.labelled for one in parts) else "submission"
    asked = [f"{key}={value}" for key, value in members.asked_for(settings).items()]
    print(f"\nNext: {shlex.join(['python', '-m', f'pneumo.{judge}', *asked])}")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.predict"
    command.run(task, Predict, "predict", "commands")
