"""Peak memory of predicting a set as large as the challenge's, against a tenth of it.

    python -m benchmarks memory

It must not grow with the number of films. Draws that many pictures of noise, 64², trains nothing
(random weights), and predicts a tenth of them and all of them, each in a process of its own: the
maps that ``evaluate`` judges, with the paper's network, and a bundle's masks, pictures and tables,
with a tiny one. It is what the process needs beyond its imports; pages of memory-mapped files do
not count, since the system takes them back when it needs them.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.table import Row, peak_memory
from pneumo.data import cache
from pneumo.data.films import read_folder
from pneumo.inference import applying, bundle, engine, mapping, maps
from pneumo.inference.settings import Predict
from pneumo.masks.rule import plain
from pneumo.settings import Machine
from pneumo.training.network import build_network
from pneumo.training.options import Model

SIDE = 64
FILMS = 12_047  # of the challenge
MACHINE = Machine(accelerator="cpu", threads=2)


def bundled(folder: Path, encoder: str) -> tuple[Model, Path]:
    """A bundle of random weights, and what its network is."""
    network = {"name": "unet", "encoder": encoder, "encoder_weights": "none"}
    about = {"model": network, "input": {"size": SIDE}}
    data = [{"name": "siim", "training": 0, "validation": 0, "parts": ""}]
    rule = plain(bundle.Postprocess(0.5, 2048))
    card = {"name": "benchmark", "tta": False, "postprocess": rule, "data": data}
    model = Model(**network)
    bundle.write(folder, card, [build_network(model).eval()], [about], onnx=False)
    return model, folder


def to_maps(films: Path, out: Path) -> None:
    """As ``evaluate`` does it."""
    items = read_folder(films)
    made = cache.build(items, SIDE, out / "cache", workers=0)
    part = mapping.Part(maps.cases_of(items, False), made, np.arange(len(items)))
    model, folder = bundled(out / "model", "resnet34")
    weights = folder / "weights-0.safetensors"
    fill = mapping.Filler(
        lambda: engine.torch_engine(model, weights, "benchmark", MACHINE), part, MACHINE, 64
    )
    facts = {"on": "folder", "run": "", "weights": "", "left_out": [], "seen_in_training": 0}
    maps.write(out / "maps", "key", part.cases, SIDE, fill, facts)


def to_files(films: Path, out: Path) -> None:
    """As ``predict model=…`` does it."""
    _, model = bundled(out / "model", "tu-test_resnet")
    applying.apply(
        Predict(
            model=str(model),
            input=str(films),
            out=str(out / "masks"),
            engine="torch",
            machine=MACHINE,
        )
    )


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "maps of cached films": to_maps,
    "films to masks, pictures and tables": to_files,
}


def measure(quick: bool, count: int = FILMS) -> list[Row]:
    """A row for each way; the ratio is the tenth's peak by that of all."""
    count = 40 if quick else count
    rng = np.random.default_rng(0)
    peaks: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as name:
        for number in (count // 10, count):
            films = Path(name) / f"{number}"
            films.mkdir()
            for film in range(number):
                grey = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
                cv2.imwrite(str(films / f"{film}.png"), grey)
            for way in WAYS:
                out = Path(name) / f"{number} {way}"
                child = [sys.executable, "-m", "benchmarks.memory", way, str(films), str(out)]
                root = Path(__file__).parents[1]
                done = subprocess.run(
                    child, cwd=root, stdout=subprocess.PIPE, text=True, check=True
                )
                peaks[way].append(float(done.stdout.split()[-1]))
    return [
        Row(
            f"memory, {way}, {count:,} films",
            ours=whole,
            other=tenth,
            unit="MiB",
            ratios=[tenth / whole],
            at_least=0.9,
            against="a tenth of the films",
        )
        for way, (tenth, whole) in peaks.items()
    ]


if __name__ == "__main__":  # one way, in a process of its own
    torch.set_num_threads(MACHINE.threads)
    print(peak_memory(lambda: WAYS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))))
