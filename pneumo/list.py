"""All runs, how far they are, their scores and sizes: ``python -m pneumo.list``."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from pneumo import command
from pneumo.settings import checked
from pneumo.tables import counted
from pneumo.training import listing
from pneumo.training.settings import Listing


def task(raw: DictConfig) -> None:
    """The command."""
    settings = checked(raw)
    found = listing.find(Path(settings.runs_dir))
    if not found:
        print(f"{settings.runs_dir}: no runs yet")
        return
    print(listing.table(found))
    spare = [one for one in found if one.state == "finished" and one.checkpoints]
    if settings.prune:
        freed = listing.remove_checkpoints(found)
        print(f"\nRemoved the checkpoints of {counted(len(spare), 'run')}: {freed / 1e6:,.0f} MB")
    elif spare:
        size = sum(one.checkpoints for one in spare) / 1e6
        print(f"\nCheckpoints of finished runs take {size:,.0f} MB; prune=true removes them")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.list"
    command.run(task, Listing, "list", "commands")
