"""The graph as tasks of Ray: one a fit, with its parents' results as arguments."""

import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from pneumo.cluster.graph import Graph
from pneumo.cluster.job import FAILURE, OUTPUT, Job, reason, start
from pneumo.cluster.settings import Ray
from pneumo.errors import PneumoError, one_line
from pneumo.tables import counted
from pneumo.training import lineage

log = logging.getLogger(__name__)

BLOCKED = -1000  # what a task returns, without any work, if the fit that it starts from failed


def make(graph: Graph, settings: Ray) -> list[dict[str, Any]]:
    """Make the fits that are left, as Ray finds room for them, and wait for all.

    A task whose worker or node dies begins again elsewhere, from the fit's checkpoint. A fit that
    fails keeps its descendants from being made, and nothing else.

    Returns:
        A row for each fit that was made now, see ``lineage.row``.

    Raises:
        PneumoError: no Ray, no cluster at that address, or one that can never run such a fit.
    """
    ray = _connected(settings)
    try:
        _check_room(ray, settings)
        task = ray.remote(run).options(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            memory=settings.memory * 1e9,
            max_retries=settings.retries,
        )
        results: dict[Path, Any] = {}
        for fit in graph.left:
            Job.of(fit, "ray", output=str(fit.path / OUTPUT)).write(fit.path)
            (fit.path / FAILURE).unlink(missing_ok=True)
            parent = results.get(fit.parent, 0) if fit.parent else 0
            twins = [results[path] for path in fit.twins if path in results]
            results[fit.path] = task.remote(str(fit.path), os.getcwd(), parent, *twins)
        log.info("%s handed to Ray", counted(len(results), "fit"))
        return _collected(ray, graph, results)
    finally:
        ray.shutdown()


def _collected(ray: Any, graph: Graph, results: dict[Path, Any]) -> list[dict[str, Any]]:
    """Wait for all results, tell of each, and note those that are finished."""
    fits = {result: graph.fits[path] for path, result in results.items()}
    rows, began = [], time.monotonic()
    while fits:
        (ended, *_), _ = ray.wait(list(fits))
        fit = fits.pop(ended)
        try:
            status = ray.get(ended)
        except ray.exceptions.RayError as error:
            said = one_line(error)
            log.warning("%s: %s", fit.path, said[:160])
            continue
        if status == 0:
            graph.done.add(fit.path)
            told = f"{len(graph.done):,} of {counted(len(graph.fits), 'fit')}"
            log.info("%s: finished, %s", fit.path, told)
            rows.append(lineage.row(fit.config, True, time.monotonic() - began))
        elif status != BLOCKED:
            log.warning("%s: %s", fit.path, reason(fit.path, status))
    return rows


def run(folder: str, place: str, parent: int, *twins: int) -> int:
    """A task: make the fit planned in a folder, in a process of its own; returns its exit status.

    Args:
        folder: the run's.
        place: folder that the command was typed in.
        parent: what the task of the fit that this one starts from returned; 0 without one.
        twins: what the tasks of fits returned whose training this one may take over.
    """
    if parent:
        return BLOCKED
    with open(Path(place, folder, OUTPUT), "ab") as output:
        typed = start(Path(folder))
        done = subprocess.run(
            typed, cwd=place, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    return done.returncode


def _connected(settings: Ray) -> Any:
    """Ray, connected to its cluster. Raises PneumoError."""
    try:
        import ray
    except ModuleNotFoundError:
        raise PneumoError("cluster=ray needs Ray: pip install -e '.[ray]'") from None
    paths = os.environ.get("PYTHONPATH")
    try:
        ray.init(
            address=settings.address,
            include_dashboard=None if settings.address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": paths}} if paths else None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PneumoError(f"cluster.address={settings.address}: {one_line(error)}") from None
    return ray


def _check_room(ray: Any, settings: Ray) -> None:
    """Raise PneumoError if no node could ever run a fit: Ray would wait for one for ever."""
    wanted = {"CPU": settings.cpus, "GPU": settings.gpus, "memory": settings.memory * 1e9}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(key, 0) >= need for key, need in wanted.items()) for node in nodes):
        return
    most = {key: max(node.get(key, 0) for node in nodes) for key in wanted}
    raise PneumoError(
        f"no node of Ray has cluster.cpus={settings.cpus:g}, cluster.gpus={settings.gpus:g} and "
        f"cluster.memory={settings.memory:g}; at most {most['CPU']:g} cores, {most['GPU']:g} GPUs, "
        f"{most['memory'] / 1e9:.1f} GB"
    )
