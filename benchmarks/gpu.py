"""On a GPU: speed of training and prediction, memory, and whether what must agree agrees.

    python -m benchmarks.gpu [steps data prediction seeds devices experiments] [--json FILE]

Films are phantoms or noise, weights random; figures are absolute, with the GPU's name.

- steps: films a second at 256², 512² and 1024², compiled or not, as a share of the bare loop's, and
  the memory at the paper's batch sizes;
- data: whether the loader's workers keep up with the training;
- prediction: films a second with their maps on the host, as a share of the bare forward pass;
- seeds: two runs of one seed, bit for bit with ``machine.deterministic=true``, and its cost;
- devices: how far the probabilities of CPU and GPU lie apart;
- experiments: every experiment, and with them every system, fits an epoch, is stopped, and goes on.

``--device cpu --quick`` tries all of it at tiny sizes where there is no GPU; its figures mean
nothing.
"""

import argparse
import dataclasses
import io
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from benchmarks import step, table
from benchmarks.table import NotHere, Row
from pneumo import runs
from pneumo.inference import engine
from pneumo.settings import options_of
from pneumo.training import fit, lineage
from pneumo.training.device import device_name, precision, torch_device
from pneumo.training.loader import FilmData
from pneumo.training.network import build_network, probabilities
from pneumo.training.settings import Config, system_of
from pneumo.training.weights import read_weights, save_weights

# side and batch: Exp5's stages, and the winners' large films
SIZES = ((256, 64), (512, 16), (1024, 4))
FEW = 6  # phantoms that are drawn in this process: others would have to import torch too
# How far a probability may lie from that of the CPU, at most and in the mean over pixels. TF32
# keeps 10 bits of a product's factors, bf16 7.
TOLERANCE = {"32-true": (0.02, 0.001), "bf16-mixed": (0.15, 0.01)}


@dataclass
class Place:
    """Where it is measured: on which device, and whether only to see that it runs."""

    device: str  # cuda or cpu
    quick: bool

    @property
    def typed(self) -> tuple[str, ...]:
        """The settings of every fit here."""
        typed = (f"machine.accelerator={self.device}",)
        return (*typed, step.TINY) if self.quick else typed

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.device == "cuda"

    @property
    def clock(self) -> table.Clock:
        """The clock that counts: a GPU works beside the processor."""
        return "wall" if self.on_gpu else "cpu"

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Sides and batches."""
        return ((32, 2),) if self.quick else SIZES


def steps(place: Place) -> Iterator[Row]:
    """Training: ours, the bare loop and the usual example; the memory of the paper's batches."""
    for side, batch in place.sizes():
        for compiled in (False,) if place.quick else (False, True):
            typed = (*place.typed, "machine.deterministic=false", f"machine.compile={compiled}")
            config = step.config_of(side, batch, *typed)
            usual = not compiled
            number, rounds = (1, 1) if place.quick else (20, 5)
            found = step.timed(config, number, rounds, usual, memory=False)
            title = f"training, {side}², batch {batch}{', compiled' * compiled}"
            for row in step.rows_of(config, found, place.clock, title):
                yield _as_films(row, batch)
            if not compiled:
                yield _memory(place, config, title)


def _as_films(row: Row, batch: int) -> Row:
    """Milliseconds a step → films a second."""
    assert row.ours is not None
    assert row.other is not None
    rates = [1000 * batch / each for each in (row.ours, row.other)]
    return dataclasses.replace(row, ours=rates[0], other=rates[1], unit="films/s")


def _memory(place: Place, config: Config, title: str) -> Row:
    """The most memory that tensors take in three steps."""
    if not place.on_gpu:
        return Row(f"{title}, memory", reason="memory of tensors is counted on a GPU")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    device = torch_device(config.machine)
    batches = step.batches_of(config.resolution.size, config.batch_size)
    step.run_ours(config, step.Feed(batches, 1, 1, device))
    ours = (torch.cuda.max_memory_allocated() - before) / 2**20
    torch.cuda.reset_peak_memory_stats()
    step.run_usual(config, step.Feed(step.usual_batches(batches), 1, 1, device))
    usual = (torch.cuda.max_memory_allocated() - before) / 2**20
    return Row(
        f"{title}, memory",
        ours,
        usual,
        "MiB at most",
        [usual / ours],
        at_least=1,
        against="Lightning + smp as usually written",
    )


def data(place: Place) -> Iterator[Row]:
    """Films a second of the loader with the paper's augmentation, against those trained on."""
    with tempfile.TemporaryDirectory() as name:
        for side, batch in place.sizes()[:2]:
            films = FEW if place.quick else 600
            config = step.config_of(
                side,
                batch,
                *place.typed,
                *(f"data.images={films}", f"runs_dir='{name}'", "augmentation=paper"),
                "machine.deterministic=false",
                *(("machine.workers=0",) if place.quick else ()),
            )
            with quietly():
                loaded = FilmData(config)
                loaded.prepare()
            loader = loaded.train_dataloader()
            next(iter(loader))  # workers start, films come into memory
            rates = []
            for _ in range(1 if place.quick else 3):
                begin = time.perf_counter()
                count = sum(len(one["image"]) for one in loader)
                rates.append(count / (time.perf_counter() - begin))
            number = 1 if place.quick else 10
            found = step.timed(config, number, 1 if place.quick else 3, False, memory=False)
            trained = batch / found.ours.median("wall")
            yield Row(
                f"films ready for training, {side}², {loader.num_workers} workers",
                float(np.median(rates)),
                trained,
                "films/s",
                [rate / trained for rate in rates],
                at_least=1,
                against="films trained on, from memory",
            )


def prediction(place: Place) -> Iterator[Row]:
    """Films with their maps on the host, against the bare forward pass on the same batches."""
    side, batch, rounds = (32, 2, 1) if place.quick else (512, 32, 5)
    config = step.config_of(side, batch, *place.typed)
    device = torch_device(config.machine)
    films = np.random.default_rng(0).integers(0, 256, (batch, side, side), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "random.safetensors"
        network = build_network(config.model, pretrained=False)
        save_weights(network, weights, {})
        run = engine.torch_engine(config.model, weights, "random", config.machine)
    network = network.eval().to(device)
    lying = torch.from_numpy(films)[:, None].to(device)

    def bare() -> None:
        with torch.inference_mode():
            network(lying)
        if device.type == "cuda":
            torch.cuda.synchronize()

    ways: dict[str, Callable[[], object]] = {"ours": lambda: run(films), "bare": bare}
    timed = table.alternate(ways, rounds, memory=False)
    yield table.compared(
        f"prediction, {side}², batch {batch}",
        timed["ours"],
        timed["bare"],
        per=batch,
        rate=True,
        clock=place.clock,
        at_least=0.9,
        against="bare forward pass, films and maps on the device",
    )


def seeds(place: Place) -> Iterator[Row]:
    """Two fits of one seed, with and without ``machine.deterministic``; what it costs."""
    for exact in (True, False):
        typed = (*_small(place), "+experiment=exp5_stage1", f"machine.deterministic={exact}")
        weights = []
        for _ in range(2):
            with tempfile.TemporaryDirectory() as name:
                folder = _trained([*typed, f"runs_dir='{name}'"])
                weights.append(read_weights(folder / runs.WEIGHTS, "weights"))
        one, other = weights
        differing = sum(not torch.equal(one[key], other[key]) for key in one)
        yield Row(
            f"two fits of one seed, deterministic={exact}".lower(),
            differing,
            0 if exact else None,
            f"of {len(one)} tensors differ",
            [float(differing == 0)] if exact else [],
            at_least=1 if exact else None,
        )
    for side, batch in place.sizes()[:2]:
        found = {}
        for exact in (True, False):
            typed = (*place.typed, f"machine.deterministic={exact}")
            config = step.config_of(side, batch, *typed)
            number, rounds = (1, 1) if place.quick else (20, 3)
            found[exact] = step.timed(config, number, rounds, False, memory=False).ours
        yield table.compared(
            f"training, {side}², deterministic=true",
            found[True],
            found[False],
            per=1,
            of="step",
            clock=place.clock,
            against="deterministic=false",
        )


def devices(place: Place) -> Iterator[Row]:
    """Probabilities of one network on the CPU and on the device."""
    side = 32 if place.quick else 256
    config = step.config_of(side, 2, *place.typed)
    network = build_network(config.model, pretrained=False).eval()
    films = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (4, 1, side, side), dtype=np.uint8)
    )
    with torch.inference_mode():
        expected = probabilities(network(films)).mask
        device = torch_device(config.machine)
        network, films = network.to(device), films.to(device)
        for name, (most, mean) in TOLERANCE.items():
            if name == "bf16-mixed" and precision(config.machine) != name:
                yield Row(f"CPU and {place.device}, {name}", reason="not the precision here")
                continue
            with torch.autocast(device.type, torch.bfloat16, enabled=name != "32-true"):
                told = network(films)
            gap = (probabilities(told).mask.cpu() - expected).abs()
            found = (float(gap.max()), float(gap.mean()))
            yield Row(
                f"CPU and {place.device}, {name}: probabilities, {side}²",
                found[0],
                most,
                "apart at most",
                [min(most / max(found[0], 1e-9), mean / max(found[1], 1e-9))],
                at_least=1,
                against="tolerance",
                limit=f"in the mean {found[1]:.1e} of {mean:g}",
            )


class Stop(pl.Callback):
    """Stops a fit after its first epoch, as Ctrl-C does."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def experiments(place: Place) -> Iterator[Row]:
    """Every experiment of every system, and all others: two epochs, stopped after the first."""
    names = ["exp5"] if place.quick else options_of("experiment")
    failed: list[str] = []
    begin = time.perf_counter()
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            typed = [*_small(place), f"+experiment={name}", f"runs_dir='{folder}'"]
            try:
                _interrupted(typed)
                _trained(typed)
            except Exception as error:
                failed.append(f"{name}: {type(error).__name__}: {error}")
    took = time.perf_counter() - begin
    rows = [("every experiment", names, names)]
    for system in [] if place.quick else options_of("system"):
        members = system_of(system).members
        rows.append((f"system {system}", members, [one for one in members if one in names]))
    for title, members, tried in rows:
        bad = [one for one in failed if one.partition(":")[0] in members]
        yield Row(
            f"{title}: fits, is stopped, goes on",
            len(tried) - len(bad),
            len(members),
            "experiments",
            [(len(tried) - len(bad)) / len(members)],
            at_least=1,
            limit="; ".join(bad) or (f"{took:.0f} s in all" if members is names else ""),
        )


def _small(place: Place) -> tuple[str, ...]:
    """A fit of two epochs on few phantoms, in each stage."""
    side, images = (32, FEW) if place.quick else (64, 24)
    return (
        *place.typed,
        *("data=phantom", f"data.images={images}", "scale=mini", f"scale.side={side}"),
        "split.validation=0.34",
        *("scale.least_epochs=2", "scale.epochs=0.02", "scale.folds=1"),
        *("model.encoder_weights=none", "log.wandb=disabled", "log.pictures=0"),
        *("machine.workers=0",),
    )


def _trained(typed: list[str]) -> Path:
    """The folder of a finished fit, parents first."""
    with quietly():
        rows = lineage.train(lineage.declared(typed), typed)
    return Path(rows[-1]["folder"])


def _interrupted(typed: list[str]) -> None:
    """The same, but the fit, or its first ancestor, is stopped in its second epoch."""
    made = fit._trainer

    def stopping(*arguments: Any) -> pl.Trainer:
        trainer = made(*arguments)
        trainer.callbacks.append(Stop())
        return trainer

    fit._trainer = stopping
    try:
        _trained(typed)
    except KeyboardInterrupt:
        return
    finally:
        fit._trainer = made
    raise RuntimeError("was not stopped")


@contextmanager
def quietly() -> Iterator[None]:
    """Without what a fit says."""
    logging.getLogger("pneumo").setLevel(logging.WARNING)
    fit._quiet()
    with redirect_stdout(io.StringIO()):
        yield


PARTS: dict[str, Callable[[Place], Iterator[Row]]] = {
    "steps": steps,
    "data": data,
    "prediction": prediction,
    "seeds": seeds,
    "devices": devices,
    "experiments": experiments,
}


def measure(quick: bool) -> list[Row]:
    """All parts, where there is a GPU."""
    if not torch.cuda.is_available():
        raise NotHere(
            "no GPU on this machine; on one: python -m benchmarks gpu (python -m benchmarks.gpu "
            "--device cpu --quick shows here that it runs)"
        )
    place = Place("cuda", quick)
    return [_named(row, place) for part in PARTS.values() for row in part(place)]


def _named(row: Row, place: Place) -> Row:
    """A row with the device it was measured on."""
    machine = step.config_of(32, 2, *place.typed).machine
    return dataclasses.replace(row, name=f"{device_name(machine)}: {row.name}")


def main() -> int:
    """Measure parts and print them as they are done."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that it runs")
    parser.add_argument("--json", type=Path, help="write every round to this file, part by part")
    asked = parser.parse_args()
    unknown = [name for name in asked.parts if name not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no GPU on this machine; --device cpu --quick shows that it runs")
        return 0
    place = Place(asked.device, asked.quick)
    rows: list[Row] = []
    for name in asked.parts or PARTS:
        begin = time.perf_counter()
        try:
            rows += [_named(row, place) for row in PARTS[name](place)]
        except Exception as error:
            rows.append(Row(name, reason=f"failed: {type(error).__name__}: {error}"))
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        if asked.json:  # also what was measured before a machine is taken back
            values = [dataclasses.asdict(row) for row in rows]
            asked.json.write_text(json.dumps(values, indent=1), encoding="utf-8")
    print(table.shown(rows, "GPU").markdown())
    return int(any(row.reason.startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
