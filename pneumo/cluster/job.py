"""One fit as a process of its own, from what was planned: ``python -m pneumo.cluster.job <run>``.

The plan of a fit lies in its run's folder as ``job.json``, so that every engine starts the same
command, and nothing composes a sweep again. Without a plan, the fit is that of the run's record.
What the run records as its command is that of ``pneumo.train``, which makes the same fit.

A fit on several devices has a process for each. ``torchrun`` starts them with this same command:
started by hand, or by the process that the engine has started.
"""

import ctypes
import getpass
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from pneumo import command, files, runs
from pneumo.cluster.graph import Fit
from pneumo.errors import PneumoError, brief
from pneumo.mistakes import explain, is_memory
from pneumo.settings import Machine
from pneumo.training import lineage, processes, record, twin
from pneumo.training.fit import fit
from pneumo.training.interruption import SIGNALS, listened
from pneumo.training.settings import Config, recorded_config

log = logging.getLogger(__name__)

FAILURE = "failed.txt"  # the one line of a fit that failed; the next attempt removes it
OUTPUT = "job.log"
PATIENCE = 60  # seconds
TO_SAVE = "600"  # seconds that torchrun gives its processes to end once they are told to
FAILED, STOPPED = 1, 75  # exit status; EX_TEMPFAIL of sysexits.h: to be queued again


@dataclass
class Job:
    """What a fit is started from, and where it was handed to."""

    engine: str
    id: str = ""  # the engine's own
    output: str = ""  # file of what its process prints
    user: str = field(default_factory=getpass.getuser)
    command: list[str] = field(default_factory=list)  # what pneumo.train is typed with
    parent: str | None = None
    twins: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fit: Fit, engine: str, output: str = "") -> "Job":
        """Of a planned fit."""
        return cls(
            engine,
            output=output,
            command=fit.overrides,
            parent=str(fit.parent) if fit.parent else None,
            twins=[str(path) for path in fit.twins],
            config=fit.config.to_dict(),
        )

    def write(self, folder: Path) -> None:
        """Write it into the run's folder, whole or not at all."""
        files.write_json(folder / runs.PLAN, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Raises PneumoError for a file that is missing or damaged."""
        values = files.read_json(folder / runs.PLAN)
        try:
            return cls(**values)
        except TypeError:
            raise PneumoError(f"{folder / runs.PLAN}: not understood; delete it") from None

    @classmethod
    def begun(cls, folder: Path) -> "Job":
        """Of what is planned in a folder, or else of the run that is begun there.

        Raises PneumoError if there is neither, or the run is that of another folder.
        """
        if (folder / runs.PLAN).is_file() or not (folder / runs.RECORD).is_file():
            return cls.read(folder)
        known = record.read(folder)
        if known.config.path.resolve() != folder.resolve():
            raise PneumoError(
                f"{folder}: its record is of {known.config.path}; start it from the folder that "
                "the run was begun in"
            )
        typed = shlex.split(known.origin.command or "")[3:]  # behind python -m pneumo.train
        return cls("torchrun", command=typed, config=known.config.to_dict())


def start(folder: Path) -> list[str]:
    """The command that runs the fit planned in a folder, as a child of this process."""
    return [sys.executable, "-m", "pneumo.cluster.job", str(folder), str(os.getpid())]


def reason(folder: Path, status: int) -> str:
    """Why a fit did not finish, in one line."""
    if (folder / FAILURE).is_file():
        return (folder / FAILURE).read_text(encoding="utf-8").strip()
    if status == STOPPED:
        return "stopped; the same command goes on"
    if status < 0:
        return f"killed by signal {-status}; see {folder / OUTPUT}"
    return f"ended with status {status}; see {folder / OUTPUT}"


def run(folder: Path, place: Sequence[str] = ()) -> int:
    """Make the fit that is planned in a folder; returns the exit status.

    0 if it is finished, ``FAILED`` after a mistake (one line on stderr and in ``FAILURE``),
    ``STOPPED`` if it was told to stop and goes on when it is started again. Of several processes,
    only the first one that fails says so, and only the first one of all that it was stopped. Raises
    PneumoError if nothing is planned there.

    Args:
        folder: the run's.
        place: where the nodes of a fit on several meet, as options of torchrun.
    """
    planned = Job.begun(folder)
    if processes.is_first():
        (folder / FAILURE).unlink(missing_ok=True)
    config = recorded_config(planned.config)
    machine = config.machine
    if machine.nodes > 1 and not place and not processes.launched():
        raise PneumoError(
            f"{folder}: its fit is on {machine.nodes} nodes; type on each of them: "
            f"{processes.by_hand(folder, machine)}"
        )
    if machine.processes > 1 and not processes.launched():
        return _by_torchrun(folder, machine, place)
    sys.argv = ["pneumo.train", *planned.command]  # what the run records
    try:
        with _on_signals(listened(), _stop):
            if processes.launched():
                config = replace(config, machine=processes.as_started(machine))
            if processes.is_first():
                _make(planned, config)
            elif processes.first_said() == processes.BEGUN:
                fit(config, config.path)
    except KeyboardInterrupt:
        # were it to end otherwise, torchrun would end the first process before it is done
        return STOPPED if processes.is_first() else 0
    except Exception as error:
        if not processes.fails_first():
            return FAILED
        if processes.lost_another(error):
            error = PneumoError(f"a process of the fit {folder} is gone; was it killed?")
        mistake = isinstance(error, PneumoError | OSError | MemoryError) or is_memory(error)
        line = explain(error, Config) if mistake else f"{type(error).__name__}: {brief(error)}"
        print(f"error: {line}", file=sys.stderr, flush=True)
        files.write_text(folder / FAILURE, line + "\n")
        if not mistake:
            raise  # one of the code keeps its traceback
        return FAILED
    return 0


@contextmanager
def _on_signals(
    numbers: Sequence[signal.Signals], act: Callable[[int, Any], None]
) -> Iterator[None]:
    """Act on signals, meanwhile."""
    before = {one: signal.signal(one, act) for one in numbers}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _by_torchrun(folder: Path, machine: Machine, place: Sequence[str]) -> int:
    """Have torchrun start the processes of a fit, and wait for them; returns the exit status.

    Of torchrun's own it says nothing: a signal that it hands on makes it fail.
    """
    words = processes.options(folder, machine, place)
    torchrun = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words],
        # options of newer versions of torchrun
        env={**os.environ, "PET_SIGNALS_TO_HANDLE": "SIGHUP", "PET_SHUTDOWN_TIMEOUT": TO_SAVE},
        start_new_session=True,
        preexec_fn=partial(_hear_one_signal, os.getpid()),
    )
    told: list[int] = []

    def hand_on(number: int, frame: Any) -> None:
        if not told:  # a second one would have torchrun leave its processes
            torchrun.send_signal(signal.SIGHUP)
        told.append(number)

    with _on_signals((*SIGNALS, signal.SIGINT), hand_on):
        status = torchrun.wait()
    if runs.is_finished(folder):
        return 0
    if (folder / FAILURE).is_file():
        return FAILED
    return STOPPED if told else status


def _hear_one_signal(parent: int) -> None:
    """Have torchrun hand on the hang-up alone, of the process that started it.

    SLURM tells all processes of a job to stop, those of torchrun too, which have handlers of their
    own; torchrun would not wait for them after the second signal.
    """
    for one in (*SIGNALS, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    _end_with(parent, signal.SIGHUP)


def _stop(number: int, frame: Any) -> NoReturn:
    """End at once; while a fit trains, it has handlers of its own that finish a step."""
    raise KeyboardInterrupt


def _make(planned: Job, config: Config) -> None:
    """Make a fit, from its twin's training where there is one. Raises PneumoError."""
    if planned.parent is not None:
        _await(Path(planned.parent))
    twins = [Path(path) for path in planned.twins]
    twin.take_over(config, [record.read(path).config for path in twins if runs.is_finished(path)])
    lineage.make(config)
    processes.say(processes.ENDED)  # to those that wait still, if it was finished before


def _await(parent: Path) -> None:
    """See that the parent is finished; NFS shows it to another machine up to a minute late.

    Raises PneumoError.
    """
    for _ in range(PATIENCE):
        if runs.is_finished(parent):
            return
        time.sleep(1)
    if not runs.is_finished(parent):
        raise PneumoError(f"its parent {parent} is not finished")


def _end_with(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Have this process told to stop when the one that started it dies, where Linux can do so."""
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before
        sys.exit(STOPPED)


if __name__ == "__main__":
    run_folder, *started_by = sys.argv[1:]
    if processes.launched():
        started_by = [str(os.getppid())]
    for started in started_by:
        _end_with(int(started))
    command.talk()
    if not processes.is_first():
        logging.getLogger("pneumo").setLevel(logging.CRITICAL)  # the first one speaks for all
    try:
        sys.exit(run(Path(run_folder)))
    except PneumoError as error:
        sys.exit(f"error: {error}" if processes.is_first() else FAILED)
