"""A training step: our module in our Trainer against a bare PyTorch loop of the same layout, and
against Lightning with segmentation-models-pytorch as most people write it.

All work on films that lie in memory, with the paper's network, loss and optimizer. The bare loop
runs between the Trainer's own steps, a few of each in turn, so that a busy machine slows both. The
limit is the rate at which this machine multiplies matrices.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import table
from benchmarks.table import Row, Spent, Timed
from pneumo.training import fit, optimizer
from pneumo.training.device import precision, torch_device
from pneumo.training.lineage import declared
from pneumo.training.loss import total_loss
from pneumo.training.module import SegmentationModule
from pneumo.training.network import Output, build_network
from pneumo.training.settings import Config

Batch = dict[str, Tensor]
TINY = "model.encoder=tu-test_resnet"  # of half a million weights, to see that it runs
SIZES = [(256, 2, 3, 7), (512, 2, 2, 7)]  # side, batch, steps and rounds, as two cores can bear
QUICK = [(32, 2, 1, 1)]
WARM = 2  # steps that do not count: memory is taken, kernels are chosen


def config_of(side: int, batch: int, *typed: str) -> Config:
    """The paper's fit at a size, from random weights, without pictures and W&B."""
    return declared(
        [
            *("+experiment=exp5_stage1", "data=phantom", "model.encoder_weights=none"),
            *("log.pictures=0", "log.wandb=disabled", "epochs=1", "averaging=none"),
            *(f"resolution.size={side}", f"batch_size={batch}"),
            *typed,
        ]
    )


def batches_of(side: int, batch: int, count: int = 4) -> list[Batch]:
    """Noise films uint8 (batch, 1, side, side) with square masks of 0 and 1, in host memory."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        shape = (batch, 1, side, side)
        films = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        masks = torch.zeros(shape, dtype=torch.uint8)
        masks[::2, :, side // 4 : side // 2, side // 4 : side // 2] = 1
        batches.append({"image": films, "mask": masks})
    if torch.cuda.is_available():
        batches = [{key: value.pin_memory() for key, value in one.items()} for one in batches]
    return batches


def bare(config: Config) -> Callable[[Batch], None]:
    """One step of a loop in plain PyTorch, channels last, of the same arithmetic as ours."""
    device, half = torch_device(config.machine), precision(config.machine) == "bf16-mixed"
    network = smp.Unet(config.model.encoder, encoder_weights=None, in_channels=3, classes=1)
    network = network.to(device, memory_format=torch.channels_last).train()
    if config.machine.compile:
        network.compile()
    moves = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def step(batch: Batch) -> None:
        films = batch["image"].to(device, non_blocking=True)
        masks = batch["mask"].to(device, non_blocking=True).float()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            grey = (films.float() / 255).expand(-1, 3, -1, -1)
            logits = network(grey.contiguous(memory_format=torch.channels_last)).float()
        chance = logits.sigmoid()
        overlap, total = (chance * masks).sum(), chance.sum() + masks.sum()
        dice = 1 - (2 * overlap + 1) / (total + 1)
        loss = F.binary_cross_entropy_with_logits(logits, masks) + dice
        moves.zero_grad()
        loss.backward()
        moves.step()

    return step


class Usual(pl.LightningModule):
    """A module as the examples of segmentation-models-pytorch have it.

    Float films of three channels (N, 3, H, W) in NCHW, smp's losses, statistics each step.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: str, steps: int):
        super().__init__()
        self.model = smp.Unet(encoder, encoder_weights=None, in_channels=3, classes=1)
        # ImageNet's, as the examples ask smp's hub for them
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.dice = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
        self.bce = nn.BCEWithLogitsLoss()
        self.steps = steps
        self.outputs: list[dict[str, Tensor]] = []

    def forward(self, image: Tensor) -> Tensor:
        return self.model((image - self.mean) / self.std)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        logits, mask = self(batch["image"]), batch["mask"]
        loss = self.dice(logits, mask) + self.bce(logits, mask)
        found = (logits.sigmoid() > 0.5).float()
        counts = smp.metrics.get_stats(found.long(), mask.long(), mode="binary")
        named = dict(zip(("tp", "fp", "fn", "tn"), counts, strict=True))
        self.outputs.append({"loss": loss.detach(), **named})
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        counts = [torch.cat([one[key] for one in self.outputs]) for key in ("tp", "fp", "fn", "tn")]
        iou = smp.metrics.iou_score(*counts, reduction="micro-imagewise")
        self.log("train_iou", iou, prog_bar=True)
        self.outputs.clear()

    def configure_optimizers(self) -> Any:
        moves = torch.optim.Adam(self.parameters(), lr=1e-3)
        course = torch.optim.lr_scheduler.CosineAnnealingLR(moves, T_max=self.steps)
        return {"optimizer": moves, "lr_scheduler": {"scheduler": course, "interval": "step"}}


@dataclass
class Feed:
    """Batches for a Trainer: so many rounds of so many steps, and what each round took.

    A round ends when the Trainer asks for the first batch of the next one. ``between`` is called
    there, off the clock.
    """

    batches: list[Batch]
    steps: int
    rounds: int
    device: torch.device
    between: Callable[[], None] = lambda: None
    warm: int = WARM

    def __post_init__(self) -> None:
        self.spent: list[Spent] = []

    def __len__(self) -> int:
        # Lightning asks for one batch more than it has used, so the last one ends the last round
        return self.warm + self.steps * self.rounds + 1

    def _take(self, count: int) -> Iterator[Batch]:
        for number in range(count):
            yield self.batches[number % len(self.batches)]

    def __iter__(self) -> Iterator[Batch]:
        yield from self._take(self.warm)
        for _ in range(self.rounds):
            self.between()
            clock = Clock(self.device)
            yield from self._take(self.steps)
            self.spent.append(clock.read())
        yield from self._take(1)


class Clock:
    """Wall and processor time since it was made, with the device's work done at both ends."""

    def __init__(self, device: torch.device):
        self.device = device
        self._finish()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> Spent:
        """What was spent."""
        self._finish()
        return Spent(time.perf_counter() - self.wall, time.process_time() - self.cpu)

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextlib.contextmanager
def as_torch_comes() -> Iterator[None]:
    """Without the deterministic algorithms that a Trainer around this may have asked for."""
    asked = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    picks = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warns)
        torch.backends.cudnn.benchmark = picks


class _Counts:
    """What a Trainer of ours asks of its data: how many batches an epoch has."""

    epochs_differ = False

    def __init__(self, count: int):
        self.count = count

    def batches(self, epoch: int) -> int:
        return self.count


def run_ours(config: Config, feed: Feed, network: Any = None) -> None:
    """One epoch of our module in our Trainer over a feed, of a network of its own or given."""
    network = network or build_network(config.model, pretrained=False)
    if config.machine.compile:
        network.compile()
    module = SegmentationModule(network, config, len(feed))
    with tempfile.TemporaryDirectory() as folder, quietly():
        trainer = fit._trainer(config, Path(folder), _Counts(len(feed)), [])
        fit._run(trainer, lambda: trainer.fit(module, train_dataloaders=feed))


def run_usual(config: Config, feed: Feed) -> None:
    """One epoch of the usual module in a Trainer with its defaults over a feed."""
    module = Usual(config.model.encoder, len(feed))
    with quietly():
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator=feed.device.type,
            devices=1,
            precision=precision(config.machine),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        fit._run(trainer, lambda: trainer.fit(module, train_dataloaders=feed))


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what a fit says."""
    fit._quiet()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def usual_batches(batches: list[Batch]) -> list[Batch]:
    """The same films as float tensors, three channels from 0 to 1, with float masks."""
    return [
        {"image": (one["image"].float() / 255).repeat(1, 3, 1, 1), "mask": one["mask"].float()}
        for one in batches
    ]


def multiplied(device: torch.device, half: bool, side: int) -> float:
    """Operations a second of multiplying two matrices, the machine's own measure of its speed."""
    kind = torch.bfloat16 if half else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    one @ other
    clock = Clock(device)
    one @ other
    took = clock.read()
    return 2 * side**3 / (took.wall if device.type == "cuda" else took.cpu)


def operations(config: Config, batch: Batch) -> int:
    """Operations of the matrix products and convolutions of one training step."""
    step = bare(config)
    with FlopCounterMode(display=False) as counted:
        step(batch)
    return counted.get_total_flops()


@dataclass
class Steps:
    """What the ways took, each round of so many steps, and how fast matrices were multiplied."""

    ours: Timed
    bare: Timed
    usual: Timed | None
    operations: int  # of one step
    rates: list[float]  # operations a second, one for each round

    def share(self, clock: table.Clock) -> float:
        """Operations a second of our steps, as a share of the machine's rate."""
        return self.operations / self.ours.median(clock) / median(self.rates)


def timed(
    config: Config, steps: int, rounds: int, usual: bool = True, memory: bool = True
) -> Steps:
    """Time rounds of so many steps of each way, in turn; seconds are those of one step."""
    device = torch_device(config.machine)
    half = precision(config.machine) == "bf16-mixed"
    batches = batches_of(config.resolution.size, config.batch_size)
    converted = usual_batches(batches)
    step = bare(config)
    found: dict[str, list[Spent]] = {"bare": [], "usual": []}
    rates: list[float] = []
    side = 8192 if device.type == "cuda" else 1024

    def between() -> None:
        with as_torch_comes():
            for number in range(WARM if not rates else 1):
                step(batches[number])
            clock = Clock(device)
            for number in range(steps):
                step(batches[number % len(batches)])
            found["bare"].append(clock.read())
            rates.append(multiplied(device, half, side))
            if usual:
                alone = Feed(converted, steps, 1, device)
                run_usual(config, alone)
                found["usual"] += alone.spent

    feed = Feed(batches, steps, rounds, device, between)
    run_ours(config, feed)
    each = {"ours": feed.spent, **found}
    ways = {
        name: Timed([Spent(one.wall / steps, one.cpu / steps) for one in spent])
        for name, spent in each.items()
    }
    if memory and device.type == "cpu":
        with as_torch_comes():
            ways["ours"].peak = table.peak_memory(
                lambda: run_ours(config, Feed(batches, 1, 1, device, warm=1))
            )
            ways["bare"].peak = table.peak_memory(lambda: _two_steps(config, batches))
            ways["usual"].peak = table.peak_memory(
                lambda: run_usual(config, Feed(converted, 1, 1, device, warm=1))
            )
    counted = operations(config, batches[0])
    return Steps(ways["ours"], ways["bare"], ways["usual"] if usual else None, counted, rates)


def _two_steps(config: Config, batches: list[Batch]) -> None:
    step = bare(config)
    for batch in batches[:2]:
        step(batch)


def rows_of(config: Config, found: Steps, clock: table.Clock, title: str) -> list[Row]:
    """The rows of one size."""
    limit = f"{found.share(clock):.2f} of the rate of matrix products, {rate_text(found.rates)}"
    more: dict[str, Any] = {"of": "step", "clock": clock}
    rows = [
        table.compared(
            f"{title}, steady state",
            found.ours,
            found.bare,
            at_least=0.97,
            against="bare PyTorch loop, channels last, same loss and optimizer",
            limit=limit,
            **more,
        )
    ]
    if found.usual is not None:
        usual = "Lightning + smp as usually written"
        rows.append(
            table.compared(title, found.ours, found.usual, at_least=1, against=usual, **more)
        )
    return rows


def rate_text(rates: list[float]) -> str:
    """A rate of operations as people write it."""
    rate = median(rates)
    return f"{rate / 1e12:.0f} TFLOP/s" if rate > 1e13 else f"{rate / 1e9:.0f} GFLOP/s"


class Point(nn.Module):
    """A network of one weight: what is left of a step is what the Trainer does around it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(1, 1, 1)

    def forward(self, films: Tensor) -> Output:
        """Films uint8 (N, 1, H, W) → logits of the same shape."""
        return Output(self.encoder(films.float()))


def overhead(steps: int, rounds: int) -> Row:
    """What module and Trainer add to a step, beside a loop with the same tiny network and loss."""
    config = config_of(32, 2, "machine.accelerator=cpu")
    batches = batches_of(32, 2)
    network = Point()
    moves = optimizer.build(config.optimizer, network, 1e-3)
    alone: list[Spent] = []

    def between() -> None:
        with as_torch_comes():
            clock = Clock(feed.device)
            for number in range(steps):
                batch = batches[number % len(batches)]
                value = total_loss(network(batch["image"]), batch["mask"], config.loss)
                moves.zero_grad()
                value.backward()
                moves.step()
            alone.append(clock.read())

    feed = Feed(batches, steps, rounds, torch.device("cpu"), between)
    run_ours(config, feed, Point())
    ours, bare = ([1000 * one.cpu / steps for one in spent] for spent in (feed.spent, alone))
    return Row(
        "training step, of a network of two weights",
        median(ours),
        median(bare),
        "ms of CPU a step",
        against="bare PyTorch loop",
        limit=f"module and Trainer add {median(ours) - median(bare):.2f} ms a step",
    )


def measure(quick: bool) -> list[Row]:
    """The step on this machine's CPU at sizes that it can bear; ``gpu.py`` has the paper's."""
    rows: list[Row] = []
    for side, batch, steps, rounds in QUICK if quick else SIZES:
        small = (TINY,) if quick else ()
        config = config_of(side, batch, "machine.accelerator=cpu", *small)
        found = timed(config, steps, rounds, memory=not quick)
        rows += rows_of(config, found, "cpu", f"training step, {side}², batch {batch}")
    rows.append(overhead(20 if quick else 200, 2 if quick else 7))
    return rows
