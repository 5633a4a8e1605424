"""From the command to the first training step, where films are in the cache already.

A child process runs the command and stops itself after the first step; it notes the time at each
phase. Beside it, in turn, a child that only imports what any such training imports: torch,
pytorch_lightning and segmentation_models_pytorch. Processor time, so that other work counts little.
"""

import json
import os
import subprocess
import sys
import tempfile
from statistics import median
from typing import Any

from benchmarks.table import Row

BARE = """
import json, time
import torch, pytorch_lightning, segmentation_models_pytorch
print(json.dumps({"imports": time.process_time()}))
"""
# The marks are set when the module that fits is first imported, by a finder that stands before
# Python's own: the child imports everything in the order in which the command does.
OURS = """
import importlib.util, json, os, runpy, sys, time
marks = {}

def marked(owner, name, before, after="", stop=False):
    inner = getattr(owner, name)
    def outer(*args, **kwargs):
        marks.setdefault(before, time.process_time())
        value = inner(*args, **kwargs)
        if after:
            marks.setdefault(after, time.process_time())
        if stop:
            sys.stdout = sys.__stdout__
            print(json.dumps(marks), flush=True)
            os._exit(0)
        return value
    setattr(owner, name, outer)

class Finder:
    def find_spec(self, name, path, target=None):
        if name != "pneumo.training.fit":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            marked(module, "fit", "imports")
            marked(module.FilmData, "prepare", "fit", "data")
            marked(module.SegmentationModule, "training_step", "trainer")
            marked(module.SegmentationModule, "optimizer_step", "loop", "step", True)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
sys.argv = ["pneumo.train", *sys.argv[1:]]
marks["python"] = time.process_time()
runpy.run_module("pneumo.train", run_name="__main__")
"""
COMMAND = (
    *("+experiment=exp5_stage1", "data=phantom", "scale=mini", "log.wandb=disabled"),
    *("machine.accelerator=cpu", "log.pictures=0"),
)


def _child(code: str, arguments: list[str]) -> dict[str, float]:
    """What a child prints at last."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode:
        raise RuntimeError(f"{command[3:]}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _first_step(folder: str, number: int, images: int) -> dict[str, float]:
    """Seconds at each phase of the first fit of a folder, of another seed each time."""
    typed = [*COMMAND, f"data.images={images}", f"runs_dir={folder}", f"seed={number}"]
    return _child(OURS, typed)


def measure(quick: bool) -> list[Row]:
    """Seconds of CPU from the command to the end of the first step."""
    rounds = 1 if quick else 5
    ours: list[dict[str, float]] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        images = 8 if quick else 440
        _first_step(folder, 1000, images)  # draws and caches the films
        for number in range(rounds):
            ours.append(_first_step(folder, number, images))
            bare.append(_child(BARE, [])["imports"])
    return [_row(ours, bare, images)]


def _row(ours: list[dict[str, float]], bare: list[float], images: int) -> Row:
    """The comparison, with the phases where the limit stands."""
    ends = [one["step"] for one in ours]
    shown: dict[str, Any] = {}
    before = "start"
    for phase in ("imports", "data", "trainer", "step"):
        begin = [0.0 if before == "start" else one[before] for one in ours]
        shown[phase] = median(one[phase] - first for one, first in zip(ours, begin, strict=True))
        before = phase
    told = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in shown.items())
    return Row(
        f"start of a run to its first step, {images} films in the cache",
        median(ends),
        median(bare),
        "s of CPU",
        [other / one for one, other in zip(ends, bare, strict=True)],
        against="importing torch, Lightning and smp alone",
        limit=f"s: {told}",
    )
