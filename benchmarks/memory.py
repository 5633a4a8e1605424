"""Peak memory of predicting a set as large as the challenge's, against its size: it must not grow
with the number of films.

    python benchmarks/memory.py [films]

Draws that many pictures of noise, 64², trains nothing (random weights), and predicts a tenth of
them and all of them, each in a process of its own. Anonymous memory is what the process itself
needs; pages of memory-mapped files the system takes back when it needs them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CHILD = """
import sys, threading, time, torch
from pathlib import Path
import numpy as np
from pneumo.data import cache
from pneumo.data.films import read_folder
from pneumo.inference import engine, mapping, maps
from pneumo.settings import Machine
from pneumo.training.network import build_network
from pneumo.training.options import Model
from pneumo.training.weights import save_weights
torch.set_num_threads(2)
films, place = Path(sys.argv[1]), Path(sys.argv[2])
peak = 0
def watch():
    global peak
    while True:
        lines = open("/proc/self/status")
        fields = dict(line.split(":") for line in lines if line.startswith("RssAnon"))
        peak = max(peak, int(fields["RssAnon"].split()[0]))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
items = read_folder(films)
made = cache.build(items, 64, place / "cache")
part = mapping.Part(maps.cases_of(items, False), made, np.arange(len(items)))
model = Model(name="x", encoder="resnet34", encoder_weights="none")
save_weights(build_network(model), place / "random.safetensors", {})
run = engine.torch_engine(model, place / "random.safetensors", "x", Machine(accelerator="cpu"))
def fill(arrays, begin):
    for start in range(begin, len(items), 64):
        stop = min(start + 64, len(items))
        both = engine.with_flip(run, np.array(made.images[start:stop]))
        arrays.plain[start:stop], arrays.flip[start:stop] = (
            engine.to_levels(said.maps) for said in both
        )
        yield stop
facts = {"on": "folder", "run": "", "weights": "", "left_out": [], "seen_in_training": 0}
found = maps.write(place / "maps", "key", part.cases, 64, fill, facts)
print(len(found), peak // 1024)
"""


def main(count: int) -> None:
    """Print the peaks."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, n in (("a tenth", count // 10), ("all", count)):
            films = Path(folder) / name
            films.mkdir()
            for i in range(n):
                Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(
                    films / f"{i}.png", compress_level=1
                )
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(films), str(Path(folder) / f"{name} out")],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found, peak = done.stdout.split()[-2:]
            print(f"{name}: {int(found):,} films, peak of {int(peak):,} MiB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12_047)
