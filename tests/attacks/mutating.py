"""Runs tests on a copy of the tree in which a line was broken, each in a process of its own.

Started as ``python mutating.py <copy>``. It imports the large libraries once and is forked for each
breakage, so that none waits for them. It reads one breakage a line from its input, JSON with
``file``, ``old``, ``new`` and ``tests``, and answers each with a line of JSON: pytest's exit status
and what it printed.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

LIBRARIES = (
    "torch",
    "torchvision",
    "pytorch_lightning",
    "segmentation_models_pytorch",
    "torchmetrics",
    "timm",
    "cv2",
    "pydicom",
    "pydicom.pixels",
    "PIL.Image",
    "hydra",
    "omegaconf",
    "wandb",
    "yaml",
    "filelock",
    "safetensors.torch",
    "sklearn.linear_model",
    "sklearn.metrics",
    "plotly.graph_objects",
    "jinja2",
    "starlette.testclient",
    "hypothesis.extra.numpy",
    "pytest",
)
PATIENCE = 300  # seconds after which a breakage that made a test run on for ever is given up


def main(copy: Path) -> None:
    """Answer every breakage that the input names."""
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(judged(copy, json.loads(line))), flush=True)


def judged(copy: Path, mutation: dict) -> dict:
    """Break the copy, run the tests, mend it."""
    if "file" not in mutation:
        return tested(copy, mutation["tests"], broken=False)
    path = copy / mutation["file"]
    whole, stat = path.read_bytes(), path.stat()
    path.write_bytes(whole.replace(mutation["old"].encode(), mutation["new"].encode(), 1))
    # compiled files are known by second and size, which a breakage may leave as they were
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10_000_000_000))
    try:
        return tested(copy, mutation["tests"], broken=True)
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def tested(copy: Path, tests: list[str], broken: bool) -> dict:
    """Run tests of the copy in a forked process."""
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryFile() as said:
        process = os.fork()
        if not process:
            status = 70
            try:
                status = run(copy, tests, broken, Path(work), said.fileno())
            except BaseException:
                os.write(said.fileno(), traceback.format_exc().encode())
            finally:  # whatever happens, a child must not go on as the parent
                sys.stdout.flush()
                os._exit(status)
        _, status = os.waitpid(process, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    return {"status": os.waitstatus_to_exitcode(status), "said": text[-20_000:]}


def run(copy: Path, tests: list[str], broken: bool, work: Path, said: int) -> int:
    """What pytest makes of the tests, in the child."""
    import pytest

    sys.dont_write_bytecode = broken  # the next child would take what is compiled for its own
    signal.alarm(PATIENCE if broken else 0)
    os.setsid()
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # of processes that the tests start
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they are imported already
    sys.path.insert(0, str(copy))
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={work / 'tests'}", "--tb=line"]
    return int(pytest.main([*options, *tests]))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
