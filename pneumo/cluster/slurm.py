"""The graph as jobs of SLURM, by submitit: each fit once, children after their parents.

Fits that wait for the same others, or for none, are one job array. A job whose parent failed is
cancelled by SLURM. A job that is told to stop saves itself and is queued again.
"""

import io
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from pneumo import command, runs
from pneumo.cluster import job, state
from pneumo.cluster.graph import Fit, Graph
from pneumo.cluster.job import FAILURE, STOPPED, Job
from pneumo.cluster.settings import Slurm
from pneumo.cluster.state import Standing, State
from pneumo.errors import PneumoError, one_line
from pneumo.tables import counted

NAME = "pneumo"  # of jobs
LARGEST = 1000  # jobs of an array; SLURM's own default allows 1001
WORKING = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STAGE_OUT", "SIGNALING")


def submit(graph: Graph, settings: Slurm, runs_dir: Path, last: Sequence[str] = ()) -> int:
    """Hand the fits that are left to SLURM, but those that it has already; returns their number.

    Args:
        graph: the fits.
        settings: what a fit may use.
        runs_dir: of all of them.
        last: a command of ours, such as ``pneumo.report``, for when all of them are finished.

    Raises:
        PneumoError: no SLURM, a partition that it does not have, a fit that another process works
            on, or a job that SLURM refuses; what was handed over before that stays.
    """
    _check_partition(settings)
    folder = runs_dir / "cluster" / "slurm"
    with runs.lock(folder):  # two people who submit the same do so one after the other
        ids = {path: id for path, (id, _, _) in in_hand(graph).items()}
        new = [fit for fit in graph.left if fit.path not in ids]
        for fit in new:
            if runs.is_held(fit.path):
                raise PneumoError(f"{fit.path}: another process is making it; wait for it to end")
        waiting = list(new)
        while waiting:
            ready = [fit for fit in waiting if all(path in ids for path in graph.waits_for(fit))]
            for after, alike in _by_dependency(graph, ready, ids):
                try:
                    with redirect_stderr(io.StringIO()):  # submitit repeats there what it raises
                        ids |= _hand_over(alike, after, settings, folder)
                except (RuntimeError, OSError) as error:
                    done = f"{len(new) - len(waiting):,} of {counted(len(new), 'fit')} handed over"
                    said = one_line(error).replace("sbatch: error: ", "")
                    raise PneumoError(f"SLURM refused a job: {said}; {done}") from None
                waiting = [fit for fit in waiting if fit.path not in ids]
        if new and last:
            arrays = sorted({id.partition("_")[0] for id in ids.values()})
            after = f"afterok:{':'.join(arrays)}"
            _executor(settings, folder, after).submit(run_last, list(last))
        return len(new)


def _by_dependency(
    graph: Graph, fits: Iterable[Fit], ids: dict[Path, str]
) -> list[tuple[str, list[Fit]]]:
    """Fits that wait for the same jobs on as many nodes, at most as many as an array holds."""
    groups: dict[tuple[str, int], list[Fit]] = {}
    for fit in fits:
        waits = graph.waits_for(fit)
        # the training that a fit may take over can fail: then it trains itself
        kinds = {path: "afterok" if path == fit.parent else "afterany" for path in waits}
        after = ",".join(f"{kind}:{ids[path]}" for path, kind in kinds.items())
        groups.setdefault((after, fit.config.machine.nodes), []).append(fit)
    return [
        (after, alike[first : first + LARGEST])
        for (after, _), alike in groups.items()
        for first in range(0, len(alike), LARGEST)
    ]


def _hand_over(fits: list[Fit], after: str, settings: Slurm, folder: Path) -> dict[Path, str]:
    """Submit fits that wait for the same jobs; returns the id of each."""
    executor = _executor(settings, folder, after, fits[0].config.machine.nodes)
    planned = [Job.of(fit, "slurm") for fit in fits]
    for one, fit in zip(planned, fits, strict=True):  # before a job can begin
        one.write(fit.path)
        (fit.path / FAILURE).unlink(missing_ok=True)
    with executor.batch():
        jobs = [executor.submit(run, str(fit.path)) for fit in fits]
    for one, fit, submitted in zip(planned, fits, jobs, strict=True):
        one.id = submitted.job_id
        one.output = str(submitted.paths.stdout)
        one.write(fit.path)
    return {fit.path: submitted.job_id for fit, submitted in zip(fits, jobs, strict=True)}


def _executor(settings: Slurm, folder: Path, after: str, nodes: int = 1) -> Any:
    """What submits jobs that wait for others; one task on each node."""
    import submitit

    executor = submitit.SlurmExecutor(folder)
    more: dict[str, str | bool] = {"time": settings.time, "requeue": True}
    more.update(dict(one.split("=", 1) for one in settings.options))
    if after:
        more |= {"dependency": after, "kill-on-invalid-dep": "yes"}
    places = {"partition": settings.partition, "account": settings.account, "qos": settings.qos}
    executor.update_parameters(
        job_name=NAME,
        nodes=nodes,
        ntasks_per_node=1,
        cpus_per_task=settings.cpus,
        mem=f"{math.ceil(settings.memory * 1000)}MB",
        gpus_per_node=settings.gpus or None,
        signal_delay_s=settings.notice,
        array_parallelism=LARGEST,
        setup=settings.setup or None,
        stderr_to_stdout=True,
        additional_parameters=more,
        **{key: value for key, value in places.items() if value is not None},
    )
    return executor


def in_hand(graph: Graph) -> dict[Path, list[str]]:
    """The id, state and reason of each unfinished fit that SLURM has in its queue or runs."""
    planned = {fit.path: Job.read(fit.path) for fit in graph.left if _is_planned(fit.path)}
    ids = {path: one.id for path, one in planned.items() if one.engine == "slurm" and one.id}
    if not ids:
        return {}
    # by name too: another cluster, or one that was set up anew, counts its jobs from 1 again
    asked = _ask("squeue", "--noheader", "--array", f"--name={NAME}", "--format=%i|%T|%r")
    rows = {line.partition("|")[0]: line.split("|", 2) for line in asked.splitlines()}
    return {path: rows[id] for path, id in ids.items() if id in rows}


def _is_planned(folder: Path) -> bool:
    return (folder / runs.PLAN).is_file()


def standings(graph: Graph) -> dict[Path, Standing]:
    """What SLURM says of the fits that it has."""
    found = {}
    for path, (id, what, why) in in_hand(graph).items():
        if what in WORKING:
            found[path] = Standing(State.running, state.progress(graph.fits[path]))
        else:
            found[path] = Standing(State.queued, f"job {id}, {why}")
    return found


def run(folder: str) -> None:
    """A job, or its part on one of several nodes: make the fit planned in a folder, and end with
    its exit status.

    One that was told to stop, but was not cancelled, is queued again.
    """
    command.talk()
    status = job.run(Path(folder), _meeting())
    is_first = os.environ.get("SLURM_PROCID", "0") == "0"
    if status == STOPPED and is_first and not _is_cancelled():
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
    if status:
        sys.exit(status)


def _meeting() -> list[str]:
    """Where the nodes of this job find one another: on its first, at a port of its own."""
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    if os.environ.get("SLURM_NNODES", "1") == "1":
        return []
    first = _ask("scontrol", "show", "hostnames", nodes).split()[0]
    own = os.environ["SLURM_JOB_ID"]
    port = 20000 + int(own) % 10000
    return ["--rdzv-backend=c10d", f"--rdzv-endpoint={first}:{port}", f"--rdzv-id={own}"]


def run_last(typed: list[str]) -> None:
    """A job: run a command of ours, and end with its exit status."""
    done = subprocess.run([sys.executable, "-m", *typed], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _is_cancelled() -> bool:
    """Whether this job is to end for good: SLURM then says that it is completing."""
    own = os.environ["SLURM_JOB_ID"]
    return _ask("squeue", "--noheader", f"--jobs={own}", "--format=%T").strip() != "RUNNING"


def _check_partition(settings: Slurm) -> None:
    """Raise PneumoError where there is no SLURM, no submitit or no such partition."""
    known = sorted(set(_ask("sinfo", "--noheader", "--format=%R").split()))
    wanted = settings.partition
    if wanted is not None and not set(wanted.split(",")).issubset(known):
        raise PneumoError(f"cluster.partition={wanted}: SLURM has {', '.join(known)}")
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError:
        raise PneumoError("cluster=slurm needs submitit: pip install -e '.[slurm]'") from None


def _ask(*arguments: str) -> str:
    """What a command of SLURM prints. Raises PneumoError."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise PneumoError(
            "cluster=slurm: no SLURM here (no sbatch and srun); submit from a machine of the "
            "cluster, or use cluster=local"
        )
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PneumoError(f"cluster=slurm: SLURM does not answer ({done.stderr.strip()})")
    return done.stdout
