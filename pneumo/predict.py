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
from pneumo.inference.shards import NotJoined
from pneumo.settings import checked
from pneumo.tables import counted


def task(raw: DictConfig) -> None:
    """The command."""
    from pneumo.evaluation import blend, members
    from pneumo.inference import sharding  # torch takes seconds, and help needs none

    settings = checked(raw)
    if settings.model is not None:
        if settings.run is not None:
            raise PneumoError(
                "run and model are both set: run=… on=… judges a finished run, model=… input=… "
                "uses a bundle"
            )
        try:
            sharding.apply(settings)
        except NotJoined as found:
            typed = [one for one in sys.argv[1:] if not one.startswith("shard=")]
            how = shlex.join(["python", "-m", "pneumo.predict", *typed])
            raise NotJoined(found.folder, found.faults, how) from None
        return
    started = time.monotonic()
    if settings.shard is not None:
        left = blend.predict_shard(settings)
        print(f"shard {settings.shard} is done ({time.monotonic() - started:.0f} s)")
        for not_joined in left:
            print(NotJoined(not_joined.folder, not_joined.faults))
        if left:
            return
    parts = blend.gather(settings, settings.batch_size)
    for one in parts:
        print(f"{counted(len(one), 'film')} → {one.folder} ({time.monotonic() - started:.0f} s)")
    judge = "evaluate" if all(one.labelled for one in parts) else "submission"
    asked = [f"{key}={value}" for key, value in members.asked_for(settings).items()]
    print(f"\nNext: {shlex.join(['python', '-m', f'pneumo.{judge}', *asked])}")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.predict"
    command.run(task, Predict, "predict", "commands")
