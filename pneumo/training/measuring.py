"""What a training step costs on this machine: a short piece of the real fit, on films of noise.

The real network, loss, optimizer and module run in Lightning's Trainer at the fit's own size. On a
CPU the augmentation counts, since the process that trains also loads; on a GPU others load beside
it. Where a whole batch would take too long, fewer films are measured.
"""

import logging
import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch.utils.data import DataLoader, Dataset

from pneumo.training import augmentation
from pneumo.training.augmentation import Augment
from pneumo.training.device import precision, set_for_training, set_threads, torch_device, uses_cuda
from pneumo.training.module import Batch, SegmentationModule
from pneumo.training.network import Network, build_network
from pneumo.training.options import Model
from pneumo.training.settings import Config

WARM = 1  # batches that do not count: memory is taken, kernels are chosen
LEAST = 2  # films of a batch, for batch norm
MOST = 20  # batches that count


@dataclass(frozen=True)
class Measured:
    """What was measured of a kind of fit."""

    batch: float  # seconds of a whole training batch
    validation: float  # seconds of a validation batch
    memory: int  # bytes at most while it trains: of the GPU, without one of the process
    films: int  # of the batch that was measured; more of them take more in proportion


class _Noise(Dataset[Batch]):
    """Batches of one film of noise with a square mask in every other one."""

    def __init__(self, side: int, films: int, batches: int, augment: Augment | None = None):
        self.films, self.batches, self.augment = films, batches, augment
        self.image = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
        self.mask = np.zeros((side, side), np.uint8)
        self.mask[side // 4 : side // 2, side // 4 : side // 2] = 1

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> Batch:
        pairs = [self._film(index, number) for number in range(self.films)]
        images, masks = (np.stack(part)[:, None] for part in zip(*pairs, strict=True))
        masks[1::2] = 0
        pictures = {"image": torch.from_numpy(images), "mask": torch.from_numpy(masks)}
        return {**pictures, "row": torch.arange(self.films)}

    def _film(self, batch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        if self.augment is None:
            return self.image, self.mask
        return self.augment(self.image, self.mask, [0, batch, number])


class _Clock(pl.Callback):
    """When each batch was done."""

    def __init__(self) -> None:
        self.training: list[float] = []
        self.validation: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.training.append(_now())

    def on_train_batch_end(self, *_: Any) -> None:
        self.training.append(_now())

    def on_validation_batch_end(self, *_: Any) -> None:
        self.validation.append(_now())


def _now() -> float:
    """The time once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def weights_of(config: Model) -> int:
    """Bytes of a network's weights; takes no memory. Raises PneumoError if it cannot be built."""
    with torch.device("meta"):
        return sum(one.nbytes for one in Network(config).state_dict().values())


def measure(config: Config, seconds: float, steps: int) -> Measured:
    """Train for about so many seconds, two batches at least.

    Args:
        config: the fit, scaled.
        seconds: how long that may take.
        steps: optimizer steps of the whole fit, for its schedule.

    Raises:
        PneumoError: a network that cannot be built, or no such device.
    """
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    set_threads(config.machine)
    set_for_training()
    whole = max(LEAST, config.batch_size // config.machine.processes)  # of one device
    network = build_network(config.model, pretrained=False)
    if config.machine.compile:
        network.compile()
    films, begun = LEAST, time.perf_counter()
    batch, validation, before, peak = _run(config, network, films, 1, steps)
    left = seconds - (time.perf_counter() - begun)
    most = int(left / (batch / films) / (WARM + 2))  # films of a batch that would fit thrice
    if most > films:
        films = min(most, whole)
        count = min(MOST, max(1, int(left / (batch / LEAST * films)) - WARM - 1))
        batch, validation, before, peak = _run(config, network, films, count, steps)
    share = whole / films
    # gradients and Adam's two moments are as many for any number of films
    fixed = min(peak, before + 3 * weights_of(config.model))
    memory = int(fixed + (peak - fixed) * share)
    return Measured(batch * share, validation * share, memory, films)


def _run(
    config: Config, network: Network, films: int, count: int, steps: int
) -> tuple[float, float, int, int]:
    """Some batches: seconds of one in training and in validation, memory before and at most."""
    device, cuda = torch_device(config.machine), uses_cuda(config.machine)
    clock, side = _Clock(), config.resolution.size
    if cuda:  # films come as they are trained on
        training = _Noise(config.augmentation.window or side, films, WARM + count)
    else:
        augment = augmentation.build(config.augmentation, config.resolution)
        training = _Noise(side, films, WARM + count, augment)
    validation = _Noise(side, films, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logs
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator=config.machine.accelerator,
            devices=1,
            precision=precision(config.machine),  # type: ignore[arg-type]
            gradient_clip_val=config.optimizer.clip or None,
            accumulate_grad_batches=config.optimizer.accumulate,
            deterministic="warn" if config.machine.deterministic else None,
            benchmark=not config.machine.deterministic,
            plugins=[LightningEnvironment()],
            callbacks=[clock],
            logger=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        _reset_peak(device)
        before = _memory(device)
        trainer.fit(
            SegmentationModule(network, config, steps),
            DataLoader(training, batch_size=None),
            DataLoader(validation, batch_size=None),
        )
    spent = np.diff(clock.training)[WARM:]
    judged = clock.validation[-1] - clock.validation[-2]
    return float(median(spent)), judged, before, max(before, _peak(device))


def _memory(device: torch.device) -> int:
    """Bytes that are taken now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    """Bytes that were taken at most since ``_reset_peak``, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak of resident memory
    except OSError:  # not Linux, or not allowed: the peak is then that of the whole process
        return


def _status(key: str) -> int:
    """A line of what Linux says of this process's memory, in bytes."""
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # macOS counts bytes, others kilobytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    (kilobytes,) = [line.split()[1] for line in text.splitlines() if line.startswith(f"{key}:")]
    return int(kilobytes) * 1024
