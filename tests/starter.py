"""Commands started from a process that has imported what they need, and killed where a test says.

Run as a script, it reads one JSON line for each command and answers with one when that has ended;
``Starter`` is the other end. Each command runs as ``python -m pneumo.<module>`` does, in a forked
child; only the seconds of its imports are saved.
"""

import importlib
import json
import os
import pkgutil
import re
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

CHANGES = ("os.rename", "os.remove", "os.rmdir")  # and files that are opened to be written
KILLED = (-signal.SIGKILL, -signal.SIGALRM)  # how a killed command ends
VARYING = re.compile(r"\.[0-9a-f]{6}(?=\.partial)|(?<=\dpx-)[0-9a-f]{16}")  # in names of files


@dataclass
class Kill:
    """When to kill: at the first of some changes of files, each with how often it must have come.

    At once, the change is not made; ``late`` seconds later, it or what follows is made in part.
    """

    at: dict[str, int] = field(default_factory=dict)
    late: float = 0.0


@dataclass
class Ended:
    """How a command ended: its status, what it said, and the changes of files it made or began."""

    status: int
    out: str
    err: str
    changes: list[str]
    seconds: float

    @property
    def said(self) -> str:
        """All that it said."""
        return self.out + self.err


class Starter:
    """Starts commands in a folder, one after another; close it in the end."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.env = env or {}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "HF_HUB_OFFLINE": "1", **self.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        kill: Kill | None = None,
        before: str = "",
        folder: Path | None = None,
    ) -> Ended:
        """Run ``python -m pneumo.<module>``, here or in another folder.

        ``before`` is code that its process runs first.
        """
        asked = {
            "module": module,
            "arguments": list(arguments),
            "folder": str(folder or self.folder),
            "env": {**os.environ, "HF_HUB_OFFLINE": "1", **self.env},
            "kill": asdict(kill or Kill()),
            "before": before,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self.process.communicate(timeout=60)


def _serve() -> None:
    """The other end: fork a child for each line, wait for it, and answer."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_all()
    for line in sys.stdin:
        asked = json.loads(line)
        out, err, changed = (os.memfd_create(name) for name in ("out", "err", "changed"))
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _work(asked, out, err, changed)
        _, status = os.waitpid(child, 0)
        ended = Ended(
            os.waitstatus_to_exitcode(status),
            _text(out),
            _text(err),
            _text(changed).splitlines(),
            time.monotonic() - started,
        )
        print(json.dumps(asdict(ended)), file=answers, flush=True)


def _text(file: int) -> str:
    with os.fdopen(file, "rb") as content:
        content.seek(0)
        return content.read().decode(errors="replace")


def _import_all() -> None:
    """What commands import, also late; nothing of it starts threads, which a child would lack."""
    import pneumo

    names = [one.name for one in pkgutil.walk_packages(pneumo.__path__, "pneumo.")]
    for name in (*names, "onnx", "onnxscript", "onnxruntime", "plotly.graph_objects"):
        importlib.import_module(name)


def _work(asked: dict, out: int, err: int, changed: int) -> None:
    """In the child: the command, as a process of its own would run it."""
    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["folder"])
        name = f"pneumo.{asked['module']}"
        sys.argv = [name, *asked["arguments"]]
        del sys.modules[name]  # it is run as the main module
        _watch(asked["folder"], changed, Kill(**asked["kill"]))
        exec(asked["before"])
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _watch(folder: str, changed: int, kill: Kill) -> None:
    """Note this process's changes of files in a folder, and kill it at one of them."""
    own, counts = os.getpid(), Counter[str]()
    # ends it without a word, too; threads that write may set the timer, but not this
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def hook(event: str, arguments: tuple) -> None:
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in CHANGES) or os.getpid() != own:
            return
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(folder):
            return
        change = f"{event} {VARYING.sub('', os.path.relpath(path, folder))}"
        os.write(changed, f"{change}\n".encode())
        counts[change] += 1
        if counts[change] != kill.at.get(change):
            return
        if not kill.late:
            os.kill(own, signal.SIGKILL)
        signal.setitimer(signal.ITIMER_REAL, kill.late)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
