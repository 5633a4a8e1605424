"""One fit as a process of its own, from what was planned: ``python -m pneumo.cluster.job <run>``.

The plan of a fit lies in its run's folder as ``job.json``, so that every engine starts the same
command, and nothing composes a sweep again. What the run records as its command is that of
``pneumo.train``, which makes the same fit.
"""

import ctypes
import getpass
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pneumo import command, files, runs
from pneumo.cluster.graph import Fit
from pneumo.errors import PneumoError, brief
from pneumo.mistakes import explain, is_memory
from pneumo.training import lineage, record, twin
from pneumo.training.interruption import SIGNALS
from pneumo.training.settings import Config, recorded_config

log = logging.getLogger(__name__)

PLAN = "job.json"
FAILURE = "failed.txt"  # the one line of a fit that failed; the next attempt removes it
OUTPUT = "job.log"
PATIENCE = 60  # seconds
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
        files.write_json(folder / PLAN, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Raises PneumoError for a file that is missing or damaged."""
        values = files.read_json(folder / PLAN)
        try:
            return cls(**values)
        except TypeError:
            raise PneumoError(f"{folder / PLAN}: not understood; delete it") from None


def command_of(overrides: Sequence[str]) -> str:
    """The command that makes a fit, and its ancestors where they are missing."""
    return shlex.join(["python", "-m", "pneumo.train", *overrides])


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


def run(folder: Path) -> int:
    """Make the fit that is planned in a folder; returns the exit status.

    0 if it is finished, ``FAILED`` after a mistake (one line on stderr and in ``FAILURE``),
    ``STOPPED`` if it was told to stop and goes on when it is started again. Raises PneumoError if
    nothing is planned there.
    """
    planned = Job.read(folder)
    (folder / FAILURE).unlink(missing_ok=True)
    sys.argv = ["pneumo.train", *planned.command]  # what the run records
    before = {one: signal.signal(one, _stop) for one in SIGNALS}
    try:
        _make(planned, recorded_config(planned.config))
    except KeyboardInterrupt:
        return STOPPED
    except Exception as error:
        mistake = isinstance(error, PneumoError | OSError | MemoryError) or is_memory(error)
        line = explain(error, Config) if mistake else f"{type(error).__name__}: {brief(error)}"
        print(f"error: {line}", file=sys.stderr, flush=True)
        files.write_text(folder / FAILURE, line + "\n")
        if not mistake:
            raise  # one of the code keeps its traceback
        return FAILED
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    return 0


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


def _end_with(parent: int) -> None:
    """Have this process told to stop when the one that started it dies, where Linux can do so."""
    if sys.platform != "linux":
        return
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before
        sys.exit(STOPPED)


if __name__ == "__main__":
    run_folder, *started_by = sys.argv[1:]
    for started in started_by:
        _end_with(int(started))
    command.talk()
    try:
        sys.exit(run(Path(run_folder)))
    except PneumoError as error:
        sys.exit(f"error: {error}")
