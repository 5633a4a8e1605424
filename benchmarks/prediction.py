"""Many films, from files on disk to results on disk, against the bare networks.

    python -m benchmarks prediction

The paper's network at 512², random weights (they do not change the time) whose last layer is set so
that a hundredth of a film's pixels is found, without TTA, two threads. Ours: what
``python -m pneumo.predict model=… input=<folder>`` does once the bundle is loaded, with masks,
pictures and tables. Bare: ONNX Runtime on the same films, shrunk and in memory, as two threads that
share each film, as it is mostly run, and as two films at once, which is what ours does.

The second comparison is the maps that ``evaluate`` judges, without and with mirror images: ours
with their files against the bare network in PyTorch, on the same batches in memory.
"""

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.table import Clock, Row, Way, alternate, compared
from pneumo import files
from pneumo.data import cache, dicom
from pneumo.data.films import read_folder
from pneumo.data.settings import PhantomData
from pneumo.data.sources import phantom
from pneumo.inference import bundle, engine, inputs, mapping, maps, outputs
from pneumo.inference.applying import Work
from pneumo.inference.bundle import Bundle
from pneumo.inference.settings import Predict
from pneumo.masks.resize import shrink
from pneumo.masks.rule import plain
from pneumo.settings import Machine
from pneumo.training.network import build_network
from pneumo.training.options import Model

THREADS = 2
SIDE = 512
FOUND = 0.01  # of a film's pixels
MACHINE = Machine(accelerator="cpu", threads=THREADS)


@dataclass
class Made:
    """A bundle and films on disk, and the films as the network sees them."""

    folder: Path
    model: Path  # with PyTorch's weights and ONNX
    films: list[Path]
    small: np.ndarray  # uint8 (n, side, side)
    side: int


@contextmanager
def made(count: int, quick: bool) -> Iterator[Made]:
    """Phantom films, and a bundle of the paper's network (of a tiny one, if ``quick``)."""
    torch.set_num_threads(THREADS)
    side, encoder = (64, "tu-test_resnet") if quick else (SIDE, "resnet34")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantom.generate(PhantomData(name="phantom", images=count), folder / "films", workers=0)
        films = sorted((folder / "films").rglob("*.dcm"))
        small = np.stack([shrink(dicom.read(path).pixels, side) for path in films])
        settings = Model(name="unet", encoder=encoder, encoder_weights="none")
        torch.manual_seed(0)
        network = build_network(settings).eval()
        with torch.inference_mode():
            logits = network(torch.from_numpy(small[:1, None])).mask
            last = network.head[0]
            last.weight *= 4 / logits.std()
            last.bias.copy_((last.bias - logits.quantile(1 - FOUND)) * 4 / logits.std())
        options = OmegaConf.to_container(OmegaConf.structured(settings), enum_to_str=True)
        about = {"model": options, "input": {"size": side}}
        data = [{"name": "phantom", "training": 0, "validation": 0, "parts": ""}]
        rule = plain(bundle.Postprocess(0.5, 2048))
        card = {"name": "benchmark", "tta": False, "postprocess": rule, "data": data}
        bundle.write(folder / "model", card, [network], [about], onnx=True)
        yield Made(folder, folder / "model", films, small, side)


def alone(
    name: str, those: Made, whole: Callable[[Path], object], onnx: Bundle, quick: bool, goal: float
) -> list[Row]:
    """One film at a time, all that is done with it against the faster of two bare networks.

    The rows are by processor time and by the clock.
    """
    numbers = {way: cycle(range(len(those.films))) for way in ("ours", "PyTorch", "ONNX Runtime")}
    engines = {"PyTorch": bundle.load(those.model, MACHINE, "torch"), "ONNX Runtime": onnx}

    def bare(way: str) -> None:
        film = next(numbers[way])
        engines[way].members[0][1](those.small[film : film + 1])

    ways: dict[str, Way] = {"ours": lambda: whole(those.films[next(numbers["ours"])])}
    ways |= {way: functools.partial(bare, way) for way in engines}
    timed = alternate(ways, 2 if quick else 16)
    rows = []
    clocks: tuple[tuple[Clock, str], ...] = (("cpu", "processor time"), ("wall", "the clock"))
    for clock, by in clocks:
        fastest = min(engines, key=lambda way: timed[way].median(clock))
        row = compared(
            f"{name}, {those.side}², by {by}",
            timed["ours"],
            timed[fastest],
            clock=clock,
            at_least=goal,
            against=f"bare {fastest} on the film in memory",
        )
        rows.append(row)
    return rows


def measure(quick: bool) -> list[Row]:
    """Rows by processor time and by the clock."""
    with made(4 if quick else 8, quick) as those:
        return [*_files(those, quick), *_maps(those, quick)]


def _files(those: Made, quick: bool) -> list[Row]:
    out = those.folder / "out"
    settings = Predict(
        model=str(those.model), input=str(those.folder / "films"), out=str(out), machine=MACHINE
    )
    how = engine.pace("onnx", MACHINE, settings.batch_size)
    paced = bundle.load(those.model, how.machine, "onnx")
    (_, lane), *_ = paced.members
    (_, whole), *_ = bundle.load(those.model, MACHINE, "onnx").members
    each = [film[None] for film in those.small]

    def ours() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        work = Work(settings, paced, how)
        with closing(work.through(inputs.sources([settings.input], 1 << 29))) as films:
            assert len(list(films)) == len(those.films)
        outputs.write_tables(out, *work.tables(), paced, work.rule)

    with ThreadPoolExecutor(THREADS) as lanes:
        ways = {
            "ours": ours,
            "two threads a film": lambda: [whole(film) for film in each],
            "two films at once": lambda: list(lanes.map(lane, each)),
        }
        timed = alternate(ways, 1 if quick else 3)
    return [
        compared(
            f"films to masks, pictures and tables, {those.side}², by {by}",
            timed["ours"],
            timed[way],
            per=len(each),
            clock=clock,
            at_least=0.9,
            against=f"bare ONNX Runtime on films in memory, {way}",
        )
        for clock, by in (("cpu", "processor time"), ("wall", "the clock"))
        for way in list(ways)[1:]
    ]


def _maps(those: Made, quick: bool) -> list[Row]:
    items = read_folder(those.folder / "films")
    films = cache.build(items, those.side, those.folder / "cache", workers=0)
    part = mapping.Part(maps.cases_of(items, False), films, np.arange(len(items)))
    ((_, run),) = bundle.load(those.model, MACHINE, "torch").members
    batch = min(4, len(items))
    batches = np.array_split(np.array(films.images), len(items) // batch)
    fill = mapping.Filler(lambda: run, part, MACHINE, batch)
    facts = {"on": "folder", "run": "", "weights": "", "left_out": [], "seen_in_training": 0}
    number = iter(range(1000))

    def bare() -> None:
        for some in batches:
            run(np.concatenate([some, some[..., ::-1]]))

    def ours() -> None:
        key = files.digest(next(number))
        maps.write(those.folder / "maps", key, part.cases, those.side, fill, facts)

    timed = alternate({"ours": ours, "bare": bare}, 1 if quick else 3)
    return [
        compared(
            f"maps of cached films with mirror images, {those.side}²",
            timed["ours"],
            timed["bare"],
            per=len(items),
            at_least=0.9,
            against="bare PyTorch on batches in memory",
        )
    ]
