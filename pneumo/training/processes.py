"""The processes of one fit on several devices, where ``torchrun`` starts them: one a device.

The first of them holds the run's folder: it alone locks it, writes and speaks. The others wait for
its word, and read what it has written. Those that Lightning spawns within a fit that was typed are
not meant: they begin where the fit is under way. Its way of starting processes that repeat the
command, which may be a sweep or a job's own, is never used.
"""

import dataclasses
import functools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pneumo.errors import PneumoError
from pneumo.settings import Machine

BEGUN, ENDED = "begun", "ended"  # what the first process says of its fit


def launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the first of a fit's, or its only one."""
    return not launched() or os.environ["RANK"] == "0"


def on_node() -> int:
    """Which of its node's processes this one is, from 0."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def options(folder: Path, machine: Machine, place: Sequence[str] = ()) -> list[str]:
    """What torchrun takes to start a fit on one node, from what is saved in its run's folder.

    Args:
        folder: the run's.
        machine: how many processes.
        place: where the nodes meet, as options of torchrun; not needed for one node.
    """
    nodes = [f"--nnodes={machine.nodes}", *place] if machine.nodes > 1 else ["--standalone"]
    return [*nodes, f"--nproc-per-node={machine.devices}", "-m", "pneumo.cluster.job", str(folder)]


def by_hand(folder: Path, machine: Machine) -> str:
    """The command that a user types on each node."""
    place = ("--rdzv-backend=c10d", "--rdzv-endpoint=<first node>:29400")
    return " ".join(["torchrun", *options(folder, machine, place)])


def as_started(machine: Machine) -> Machine:
    """With as many devices and nodes as torchrun has started processes for, whatever was saved.

    They change nothing of what is computed. Raises PneumoError where nodes have unequal numbers.
    """
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if everywhere % here:
        raise PneumoError(
            f"torchrun started {here} processes on this node and {everywhere} in all; give it the "
            "same --nproc-per-node on every node"
        )
    return dataclasses.replace(machine, devices=here, nodes=everywhere // here)


def say(word: str) -> None:
    """Tell the other processes how far the first one is, if this is the first of several."""
    if launched() and is_first():
        _shared().set("fit", word)


def first_said() -> str:
    """Wait for the first process's word: ``BEGUN`` or ``ENDED``.

    It may wait for another command to leave the folder, and for all films to be decoded. If it
    fails, torchrun ends this process.
    """
    store = _shared()
    while not store.check(["fit"]):
        time.sleep(0.1)  # signals come through meanwhile
    return store.get("fit").decode()


def fails_first() -> bool:
    """Whether no other process of the fit has failed before; the one that has says why."""
    if not launched():
        return True
    try:
        return _shared().add("failed", 1) == 1
    except RuntimeError:  # torchrun is gone
        return is_first()


def lost_another(error: Exception) -> bool:
    """Whether an error says that another process is gone, as when the system has killed it."""
    return launched() and re.search("Connection (closed|reset) by peer", str(error)) is not None


@functools.cache
def _shared() -> Any:
    """The store by which the processes have found one another."""
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    store, _, _ = next(rendezvous("env://"))
    return PrefixStore("pneumo", store)
