"""Stochastic weight averaging: the paper's, as a subclass of Lightning's callback, and Lightning's own.

Keras' callback of the time took the plain mean of all weights, batch-norm statistics included, at the *end* of each of the
last N epochs, the last one too, and left the learning rate alone. Lightning's callback takes its snapshots at the start
of epochs (so never the last), brings its own learning rate, and re-estimates batch norm in an extra epoch.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import StochasticWeightAveraging
from torch import Tensor

from pneumo.training.settings import SWA, LightningSWA, PaperSWA


class LastEpochsSWA(StochasticWeightAveraging):
    """The mean of the module's state at the end of each of the last ``epochs`` epochs (paper, section "Training").

    The fit itself is untouched: checkpoints and validation hold the raw weights until ``on_fit_end`` loads the mean into
    the module. Whole-number entries (batch counters) take the newest value. State is saved, so a resumed fit averages
    the same epochs; one that stops early averages those it has seen.
    """

    def __init__(self, epochs: int):
        super().__init__(
            swa_lrs=1.0, swa_epoch_start=1
        )  # neither is used: every hook that reads them is replaced
        self.epochs = epochs
        self.averaged_epochs: list[int] = []
        self._mean: dict[str, Tensor] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a fit whose last epochs are not known beforehand."""
        if stage == "fit" and (trainer.max_epochs is None or trainer.max_epochs < 1):
            raise ValueError("LastEpochsSWA needs a Trainer with max_epochs")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing to prepare; Lightning's would add a batch-norm epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the schedule alone."""

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the state into the mean, if this is one of the last epochs and was not taken before."""
        epoch = trainer.current_epoch
        assert trainer.max_epochs is not None
        if epoch < trainer.max_epochs - self.epochs or epoch in self.averaged_epochs:
            return
        self.averaged_epochs.append(epoch)
        n = len(self.averaged_epochs)
        for key, value in pl_module.state_dict().items():
            new = value.detach().to("cpu", copy=True)
            if n > 1 and new.is_floating_point():
                new = self._mean[key].add_((new - self._mean[key]) / n)
            self._mean[key] = new

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: it is not called when a finished fit is resumed, so the mean is loaded in ``on_fit_end``."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the mean into the module."""
        if self.averaged_epochs:
            pl_module.load_state_dict(self._mean)

    def state_dict(self) -> dict[str, Any]:
        """Epochs and mean, for a checkpoint."""
        return {"averaged_epochs": list(self.averaged_epochs), "mean": dict(self._mean)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from a checkpoint."""
        self.averaged_epochs = list(state_dict["averaged_epochs"])
        self._mean = dict(state_dict["mean"])


class LightningEpochsSWA(StochasticWeightAveraging):
    """Lightning's behaviour, told the number of epochs rather than the first one (which it counts from 1).

    For N epochs of E it averages the states at the ends of epochs E-N to E-1: its window lies one epoch before the
    paper's, and the result of the last epoch is discarded.
    """

    def __init__(self, epochs: int, max_epochs: int, lr: float, annealing_epochs: int):
        super().__init__(
            swa_lrs=lr, swa_epoch_start=max_epochs - epochs + 1, annealing_epochs=annealing_epochs
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As Lightning's, but drop the last batch's gradients before the batch-norm epoch.

        That epoch computes no gradients, yet steps the optimizer: in Lightning 2.6.6 the average is moved by stale ones.
        """
        super().on_train_epoch_start(trainer, pl_module)
        if trainer.fit_loop._skip_backward:
            for optimizer in trainer.optimizers:
                optimizer.zero_grad(set_to_none=True)


def build(config: SWA, max_epochs: int) -> StochasticWeightAveraging | None:
    """A fresh callback for one fit (one that was used before would undo the next fit); None for no averaging."""
    match config:
        case PaperSWA():
            return LastEpochsSWA(config.epochs)
        case LightningSWA():
            return LightningEpochsSWA(config.epochs, max_epochs, config.lr, config.annealing_epochs)
        case _:
            return None
