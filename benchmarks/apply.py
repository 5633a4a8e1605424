"""CPU time of a whole film (read, decode, network, mask, overlay, files written) against the
network's bare forward pass.

    python benchmarks/apply.py [films]

The paper's network at 512², random weights (they do not change the time), without TTA, two threads.
Bare: the same network on the same film already in memory, in PyTorch (channels_last, inference
mode) and in ONNX Runtime; the faster one counts. Rounds alternate; figures are medians of a film's
CPU time (all threads) and wall time.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from omegaconf import OmegaConf

from pneumo.data.settings import PhantomData
from pneumo.data.sources import phantom
from pneumo.inference import bundle, findings, outputs
from pneumo.inference.settings import Polarity, Save, Use
from pneumo.masks import rle
from pneumo.masks.resize import shrink
from pneumo.masks.rule import plain
from pneumo.settings import Machine
from pneumo.training.network import build_network
from pneumo.training.options import Model

THREADS = 2


def main(count: int) -> None:
    """Print both times and their ratio."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantom.generate(PhantomData(name="phantom", images=count), folder / "films")
        films = sorted((folder / "films").rglob("*.dcm"))
        settings = Model(name="unet_resnet34", encoder="resnet34", encoder_weights="none")
        network = build_network(settings).eval()
        rule = bundle.Postprocess(0.5, 2048)
        model = OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True)
        about = {"model": model, "input": {"size": 512}}
        data = [{"name": "phantom", "training": 0, "validation": 0, "parts": ""}]
        card = {"name": "benchmark", "tta": False, "postprocess": plain(rule), "data": data}
        bundle.write(folder / "model", card, [network], [about], onnx=True)
        machine = Machine(accelerator="cpu", threads=THREADS)
        engines = {one: bundle.load(folder / "model", machine, one) for one in ("torch", "onnx")}
        read = {
            path: findings.read(str(path), path.read_bytes(), Use(polarity=Polarity.tags))
            for path in films
        }
        small = {path: shrink(reading.film.pixels, 512)[None] for path, reading in read.items()}
        out = folder / "out"
        out.mkdir()

        def whole(path: Path) -> None:
            reading = findings.read(str(path), path.read_bytes(), Use(), engines["onnx"])
            finding = findings.find(reading, engines["onnx"], rule)
            outputs.save(out, path.stem, finding, Save(), engines["onnx"])
            outputs.describe(finding)
            rle.encode(finding.stored_mask)

        ways: dict[str, Callable[[Path], object]] = {
            "bare PyTorch": lambda path: engines["torch"].members[0][1](small[path]),
            "bare ONNX Runtime": lambda path: engines["onnx"].members[0][1](small[path]),
            "whole film": whole,
        }
        spent: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for path in [films[0], *films]:
            for way, work in ways.items():
                cpu, wall = time.process_time(), time.perf_counter()
                work(path)
                spent[way].append((time.process_time() - cpu, time.perf_counter() - wall))
        times = {
            way: tuple(median(one[i] for one in pairs[1:]) for i in (0, 1))
            for way, pairs in spent.items()
        }
        for way, (cpu, wall) in times.items():
            print(f"{way}: {1000 * cpu:.0f} ms of CPU, {1000 * wall:.0f} ms")
        bare = min(times["bare PyTorch"], times["bare ONNX Runtime"])
        cpu, wall = (times["whole film"][i] / bare[i] for i in (0, 1))
        print(f"ratio to the faster bare pass: {cpu:.2f} in CPU time, {wall:.2f} in wall time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
