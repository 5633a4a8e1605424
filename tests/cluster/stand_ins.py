"""Fits without training, for tests of what surrounds them."""

import dataclasses
import sys

from pneumo import runs
from pneumo.cluster.graph import Fit, Graph
from pneumo.cluster.settings import Local
from pneumo.data.settings import PhantomData
from pneumo.settings import Machine
from pneumo.training.options import Averaging, Model, Optimizer, Scheduler
from pneumo.training.settings import Config


def fit(folder, name, parent=None, twins=()):
    """A planned fit below a folder; parent and twins are fits too."""
    config = Config(
        experiment=name,
        runs_dir=str(folder / "runs"),
        epochs=4,
        batch_size=8,
        data=PhantomData(name="phantom", cache=str(folder / "runs" / "cache")),
        model=Model(name="unet_resnet34"),
        optimizer=Optimizer(),
        scheduler=Scheduler(),
        averaging=Averaging(),
        machine=Machine(accelerator="cpu", threads=1),
    )
    config = dataclasses.replace(
        config, init_from=str(parent.path / runs.WEIGHTS) if parent else None
    )
    overrides = [f"+experiment={name}"]
    return Fit(config, overrides, True, parent and parent.path, tuple(one.path for one in twins))


def family(folder):
    """A parent with two children, one of them with a child of its own, and a fit alone."""
    parent = fit(folder, "parent")
    first = fit(folder, "first", parent)
    return Graph(
        [
            parent,
            first,
            fit(folder, "grandchild", first),
            fit(folder, "second", parent),
            fit(folder, "alone"),
        ]
    )


SCRIPT = """
import pathlib, sys
folder, order = map(pathlib.Path, sys.argv[1:3])
failing = sys.argv[3].split(",")
name = folder.parts[-3]
with order.open("a") as file:
    file.write(f"+{name}\\n")
if name in failing:
    (folder / "failed.txt").write_text(f"{name} is broken\\n")
else:
    for made in ("weights.safetensors", "config.yaml", "metrics.json"):
        (folder / made).write_text("{}")
with order.open("a") as file:
    file.write(f"-{name}\\n")
sys.exit(name in failing)
"""


def task(order, failing="", before=None):
    """What a job of an engine does in place of a fit; it needs no module of ours where it runs."""
    script = SCRIPT

    def run(folder, place="", parent=0, *twins):
        import subprocess
        import sys

        if parent:
            return -1000
        if before is not None:
            before(folder)
        typed = [sys.executable, "-S", "-c", script, folder, str(order), failing]
        return subprocess.run(typed, check=False).returncode

    return run


def job(order, failing=""):
    """The same as a job of SLURM, which ends with the status."""
    make = task(order, failing)

    def run(folder):
        import sys

        sys.exit(make(folder))

    return run


def command(folder, order, failing=""):
    """A process that does as a fit would, and notes in a file when it began and ended."""
    return [sys.executable, "-S", "-c", SCRIPT, str(folder), str(order), failing]


LOCAL = Local(jobs=2)
