"""The graph in processes on this machine: children after parents, several fits at a time."""

import logging
import os
import subprocess
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumo import pool
from pneumo.cluster.graph import Fit, Graph
from pneumo.cluster.job import FAILURE, OUTPUT, Job, reason, start
from pneumo.cluster.settings import Local
from pneumo.settings import Machine
from pneumo.tables import counted
from pneumo.training import lineage
from pneumo.training.device import uses_cuda

log = logging.getLogger(__name__)


@dataclass
class _Running:
    fit: Fit
    device: str
    process: "subprocess.Popen[bytes]"
    began: float


def make(graph: Graph, settings: Local) -> list[dict[str, Any]]:
    """Make the fits that are left, each in a process of its own.

    One that fails keeps its descendants from being made, and nothing else. Ctrl-C, or the end of
    this process, has the others save themselves and stop.

    Returns:
        A row for each fit that was made now, see ``lineage.row``.
    """
    waiting = graph.left
    if not waiting:
        return []
    lost: set[Path] = set()
    free = devices(settings, waiting)
    log.info("%s to make, %d at a time", counted(len(waiting), "fit"), len(free))
    rows: list[dict[str, Any]] = []
    running: dict[Future[int], _Running] = {}
    with ThreadPoolExecutor(len(free)) as executor:
        try:
            while True:
                waiting = [fit for fit in waiting if not _is_lost(fit, lost)]
                ready = [fit for fit in waiting if lost.issuperset(graph.waits_for(fit))]
                for fit, device in zip(ready, list(free), strict=False):
                    waiting.remove(fit)
                    free.remove(device)
                    begun = _Running(fit, device, _process(fit, device), time.monotonic())
                    running[executor.submit(begun.process.wait)] = begun
                    log.info("%s: begun", fit.path)
                if not running:
                    return rows
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    ended = running.pop(future)
                    free.append(ended.device)
                    path, status = ended.fit.path, future.result()
                    if status:
                        lost.add(path)
                        log.warning("%s: %s", path, reason(path, status))
                        continue
                    graph.done.add(path)
                    told = f"{len(graph.done):,} of {counted(len(graph.fits), 'fit')}"
                    log.info("%s: finished, %s", path, told)
                    rows.append(lineage.row(ended.fit.config, True, time.monotonic() - ended.began))
        except BaseException:
            for one in running.values():
                one.process.terminate()
            raise


def _is_lost(fit: Fit, lost: set[Path]) -> bool:
    """Note that a fit cannot be made, if its parent cannot."""
    if fit.parent in lost:
        lost.add(fit.path)
    return fit.path in lost


def devices(settings: Local, fits: list[Fit]) -> list[str]:
    """A place for each fit that runs at a time: what ``CUDA_VISIBLE_DEVICES`` says of it there.

    An empty text leaves that variable as it is, which is so without GPUs.
    """
    machine = fits[0].config.machine
    if not uses_cuda(machine):
        count = settings.jobs or min(_by_cores(machine), _by_memory(settings.memory))
        return [""] * min(count, len(fits))
    if machine.devices > 1:  # it takes what it finds
        return [""]
    names = _gpus()
    count = min(settings.jobs or len(names), len(fits))
    return [names[place % len(names)] for place in range(count)]


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told:
        return told.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def _by_cores(machine: Machine) -> int:
    """How many fits keep the cores busy: a fit of torch's own choice of threads takes them all."""
    cores = pool.cores()
    return max(1, cores // (machine.devices * (machine.threads or cores)))


def _by_memory(each: float) -> int:
    """How many fits have room in memory, at least one; ``each`` in GB."""
    free = pool.memory_available()
    return 1 if free is None else max(1, int(free / (each * 1e9)))


def _process(fit: Fit, device: str) -> "subprocess.Popen[bytes]":
    """Start a fit."""
    Job.of(fit, "local", output=str(fit.path / OUTPUT)).write(fit.path)
    (fit.path / FAILURE).unlink(missing_ok=True)
    environment = dict(os.environ)
    if device:
        environment["CUDA_VISIBLE_DEVICES"] = device
    with open(fit.path / OUTPUT, "ab") as output:
        return subprocess.Popen(
            start(fit.path),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C of a terminal would reach it past this process
        )
