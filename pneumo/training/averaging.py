"""Averaging of weights: of stated epochs, such as the paper's; Lightning's own; exponential.

Keras' callback of the time took the plain mean of all weights, batch-norm statistics included, at
the *end* of each of the last N epochs, the last one too, and left the learning rate alone.
Lightning's callback takes its snapshots at the start of epochs (so never the last), brings its own
learning rate, and re-estimates batch norm in an extra epoch.
"""

from collections.abc import Collection, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, StochasticWeightAveraging
from torch import Tensor, nn

from pneumo.settings import require
from pneumo.training.network import batch_norms
from pneumo.training.options import (
    Averaging,
    CyclesAveraging,
    Ema,
    EpochsAveraging,
    LightningAveraging,
    PaperAveraging,
)
from pneumo.training.weights import renamed

State = dict[str, Tensor]


class EpochsSWA(StochasticWeightAveraging):
    """The mean of the module's state at the ends of the epochs that ``chosen`` names, from 0.

    The fit itself is untouched: checkpoints and validation hold the raw weights until
    ``on_fit_end`` loads the mean into the module. Whole-number entries (batch counters) take the
    newest value. State is saved, so a resumed fit averages the same epochs; one that is broken off
    averages those it has seen.
    """

    def __init__(self, chosen: Collection[int], update_bn: bool = False):
        # neither is used: every hook that reads them is replaced
        super().__init__(swa_lrs=1.0, swa_epoch_start=1)
        self.chosen, self.update_bn = chosen, update_bn
        self.averaged_epochs: list[int] = []
        self._mean: State = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Nothing to prepare."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing to prepare; Lightning's would add a batch-norm epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the schedule alone."""

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the state into the mean, if this epoch is chosen and not taken before."""
        epoch = trainer.current_epoch
        if epoch not in self.chosen or epoch in self.averaged_epochs:
            return
        self.averaged_epochs.append(epoch)
        n = len(self.averaged_epochs)
        for key, value in pl_module.state_dict().items():
            new = value.detach().to("cpu", copy=True)
            if n > 1 and new.is_floating_point():
                new = self._mean[key].add_((new - self._mean[key]) / n)
            self._mean[key] = new

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: it is not called when a finished fit is resumed, so ``on_fit_end`` loads."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the mean into the module."""
        if self.averaged_epochs:
            _load(pl_module, self._mean, trainer, self.update_bn)

    def state_dict(self) -> dict[str, Any]:
        """Epochs and mean, for a checkpoint."""
        return {"averaged_epochs": list(self.averaged_epochs), "mean": dict(self._mean)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from a checkpoint."""
        self.averaged_epochs = list(state_dict["averaged_epochs"])
        self._mean = renamed(state_dict["mean"], "network.")


class LastEpochsSWA(EpochsSWA):
    """The mean of the last ``epochs`` epochs, the last one included (paper, section "Training")."""

    def __init__(self, epochs: int, update_bn: bool = False):
        super().__init__((), update_bn)
        self.epochs = epochs

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a fit whose last epochs are not known beforehand."""
        if stage != "fit":
            return
        if trainer.max_epochs is None or trainer.max_epochs < 1:
            raise ValueError("LastEpochsSWA needs a Trainer with max_epochs")
        self.chosen = range(trainer.max_epochs - self.epochs, trainer.max_epochs)


class LightningEpochsSWA(StochasticWeightAveraging):
    """Lightning's behaviour, told the number of epochs rather than the first one.

    For N epochs of E it averages the states at the ends of epochs E-N to E-1: its window lies one
    epoch before the paper's, and the result of the last epoch is discarded.
    """

    def __init__(
        self, epochs: int, max_epochs: int, lr: float, annealing_epochs: int, update_bn: bool = True
    ):
        first = max_epochs - epochs + 1  # Lightning counts from 1
        super().__init__(swa_lrs=lr, swa_epoch_start=first, annealing_epochs=annealing_epochs)
        if not update_bn:
            # Lightning adds its batch-norm epoch where a module has batch norm
            setattr(self, "pl_module_contains_batch_norm", lambda pl_module: False)  # noqa: B010

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As Lightning's, but drop the last batch's gradients before the batch-norm epoch.

        That epoch computes no gradients, yet steps the optimizer: in Lightning 2.6.6 the average is
        moved by stale ones.
        """
        super().on_train_epoch_start(trainer, pl_module)
        if trainer.fit_loop._skip_backward:
            for optimizer in trainer.optimizers:
                optimizer.zero_grad(set_to_none=True)


class EmaCallback(Callback):
    """Exponential moving average of the module's state, updated after every optimizer step.

    Until step t the weight of the past is at most (1 + t) / (10 + t), so that the random first
    weights are forgotten (as in TensorFlow's ExponentialMovingAverage with ``num_updates``). The
    fit itself is untouched; ``on_fit_end`` loads the average. Whole-number entries take the newest
    value. State is saved with a checkpoint.
    """

    def __init__(self, decay: float, update_bn: bool = False):
        self.decay, self.update_bn = decay, update_bn
        self.steps = 0
        self._mean: State = {}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Move the average, if this batch ended in a step."""
        if trainer.global_step == self.steps:  # gradients are still being added up
            return
        self.steps = trainer.global_step
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in pl_module.state_dict().items():
            known = self._mean.get(key)
            if known is None or not value.is_floating_point():
                self._mean[key] = value.detach().clone()
            else:
                self._mean[key] = known.to(value.device).lerp_(value, 1 - decay)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the average into the module."""
        if self._mean:
            _load(pl_module, self._mean, trainer, self.update_bn)

    def state_dict(self) -> dict[str, Any]:
        """Steps and average, for a checkpoint."""
        return {"steps": self.steps, "mean": dict(self._mean)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from a checkpoint."""
        self.steps, self._mean = int(state_dict["steps"]), dict(state_dict["mean"])


def _load(module: pl.LightningModule, mean: State, trainer: pl.Trainer, update_bn: bool) -> None:
    """Put an average into the module, with statistics of its own if asked for."""
    module.load_state_dict(mean)
    if update_bn:
        assert trainer.train_dataloader is not None
        # as a training step gets them: on the device, and augmented there
        batches = map(trainer.strategy.batch_to_device, trainer.train_dataloader)
        reestimate_batch_norm(module, batches)


@torch.no_grad()
def reestimate_batch_norm(module: pl.LightningModule, batches: Any) -> None:
    """Replace batch-norm statistics by their mean over batches of ``{"image": uint8 films}``.

    An average of weights has other activations than the weights that were averaged (Izmailov et
    al. 2018, section 3.2). Dropout is off meanwhile. Layers that are frozen keep their statistics.
    """
    module.train()  # which leaves frozen layers as they are
    norms = [norm for norm in batch_norms(module) if norm.training]
    module.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    network = module.network
    assert isinstance(network, nn.Module)
    for batch in batches:
        network(batch["image"].to(module.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def build(
    config: Averaging, max_epochs: int, cycle_ends: Sequence[int] = ()
) -> EpochsSWA | LightningEpochsSWA | EmaCallback | None:
    """A fresh callback for one fit (a used one would undo the next fit); None for no averaging.

    Args:
        config: which one.
        max_epochs: of the whole fit.
        cycle_ends: the epochs at whose ends a cycle of the learning rate ends.

    Raises:
        PneumoError: fewer cycles than are to be averaged.
    """
    match config:
        case EpochsAveraging():
            return EpochsSWA(config.at, config.update_bn)
        case CyclesAveraging():
            n = config.cycles
            rule = f"at most {len(cycle_ends)}, the cycles of this schedule that end in their epoch"
            require(n <= len(cycle_ends), "averaging.cycles", n, rule)
            return EpochsSWA(cycle_ends[-n:], config.update_bn)
        case PaperAveraging():
            return LastEpochsSWA(config.epochs, config.update_bn)
        case LightningAveraging():
            return LightningEpochsSWA(
                config.epochs, max_epochs, config.lr, config.annealing_epochs, config.update_bn
            )
        case Ema():
            return EmaCallback(config.decay, config.update_bn)
        case _:
            return None
