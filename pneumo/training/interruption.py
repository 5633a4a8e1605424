"""A fit that is told to stop: it finishes its step, keeps its state, and ends; later it goes on.

Schedulers tell a process by a signal that its time is up: SLURM by the one that was asked for, or
by SIGTERM when another job takes its place; submitit sends USR2, Lightning waits for USR1.
"""

import logging
import signal
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback

from pneumo.training import processes, sharing
from pneumo.training.averaging import LightningEpochsSWA
from pneumo.training.logbook import History
from pneumo.training.module import SegmentationModule

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
BY_TORCHRUN = (signal.SIGINT, signal.SIGHUP)  # what else it hands on, once


class Interruption(Callback):
    """Writes the checkpoint within an epoch when a signal asks for it, and ends the fit there.

    The state that Lightning does not keep within an epoch is kept here: random numbers, the sum of
    the loss so far, and the rate that the epoch began with. The films that are left are
    ``FilmData``'s to serve. The fit ends with ``KeyboardInterrupt``, as by Ctrl-C.

    Of several processes each may have a signal of its own, so all ask each other after every step,
    and end after the same one. Lightning's own averaging must see whole epochs: there, and after
    the last step of an epoch, the fit ends as it was at the end of an epoch, from whose checkpoint
    it goes on to the same weights.
    """

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint
        self.asked = False
        self._within: dict[str, Any] = {}  # state of an epoch that was broken off
        self._group: Any = None  # of several processes: what they ask each other by, on the CPU

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen from here on; Lightning has set its own handlers before, and restores all."""
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            for one in listened():
                signal.signal(one, self._ask)
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")
        if self._within:  # Lightning calls no hook of an epoch that it goes on with
            module = _ours(pl_module)
            module.on_train_epoch_start()
            module.losses = self._within["loss"].to(module.device), self._within["films"]
            self._history(trainer).rate = self._within["lr"]

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def _is_asked(self) -> bool:
        """Whether this process, or another one of the fit, was told to stop."""
        return self.asked if self._group is None else sharing.any_of(self.asked, self._group)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_asked():  # the last epoch's checkpoint is all there is to keep
            self._end(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw on from where the epoch was broken off; loading films has drawn meanwhile."""
        rank = trainer.global_rank
        if rank < len(self._within.get("random", [])):  # it may go on with more processes
            torch.set_rng_state(self._within["random"][rank])
        if rank < len(self._within.get("cuda", [])) and pl_module.device.type == "cuda":
            torch.cuda.set_rng_state(self._within["cuda"][rank], pl_module.device)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """End the fit after a whole step, if that was asked for."""
        self._within = {}
        last = batch_idx + 1 >= trainer.num_training_batches
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if last or not stepped or not self._is_asked():
            return
        if not _averages_within(trainer):
            loss, films = _ours(pl_module).losses
            on_gpu = pl_module.device.type == "cuda"
            state = torch.cuda.get_rng_state(pl_module.device) if on_gpu else None
            self._within = {
                "random": self._of_each(torch.get_rng_state()),
                "cuda": [one for one in self._of_each(state) if one is not None],
                "loss": loss.clone(),
                "films": films,
                "lr": self._history(trainer).rate,
            }
            trainer.save_checkpoint(self.checkpoint)
        self._end(trainer)

    def _of_each(self, own: Any) -> list[Any]:
        """What every process holds, in their order."""
        each = [own]
        if self._group is not None:
            each *= sharing.size()
            dist.all_gather_object(each, own, self._group)
        return each

    def _history(self, trainer: pl.Trainer) -> History:
        (found,) = [one for one in trainer.callbacks if isinstance(one, History)]  # type: ignore[attr-defined]
        return found

    def _end(self, trainer: pl.Trainer) -> None:
        log.info("  told to stop in epoch %d; it goes on from here", trainer.current_epoch + 1)
        raise KeyboardInterrupt

    def state_dict(self) -> dict[str, Any]:
        """The state within an epoch, for a checkpoint; nothing between epochs."""
        return dict(self._within)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from a checkpoint; those of older versions are of one process."""
        self._within = dict(state_dict)
        if isinstance(self._within.get("random"), torch.Tensor):
            self._within["random"] = [self._within["random"]]


def listened() -> tuple[signal.Signals, ...]:
    """The signals that tell this process to stop."""
    return SIGNALS + BY_TORCHRUN if processes.launched() else SIGNALS


def _ours(module: pl.LightningModule) -> SegmentationModule:
    assert isinstance(module, SegmentationModule)
    return module


def _averages_within(trainer: pl.Trainer) -> bool:
    return any(isinstance(one, LightningEpochsSWA) for one in trainer.callbacks)  # type: ignore[attr-defined]
