"""The best epochs of a fit by a validation score: kept beside its weights, or the reason to stop.

The paper keeps the last weights. The challenge's first kept the best three or five epochs of each
part and stopped after 11 or 13 epochs without a better one (github.com/sneddy/
pneumothorax-segmentation, ``Learning.py``: once an epoch lies *more* than 10 or 12 after the best).
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from torch import nn

from pneumo import files, runs
from pneumo.training import processes
from pneumo.training.weights import read_checkpoint, renamed, save_weights

log = logging.getLogger(__name__)
BEFORE = -1  # the epoch that inherited weights stand for


class Stopping(EarlyStopping):
    """Ends a fit after ``patience`` epochs that were no better.

    A fit that is resumed from the checkpoint of its last epoch trains no other: Lightning's would
    train one more.
    """

    def __init__(self, score: str, patience: int):
        super().__init__(f"val/{score}", patience=patience, mode="max")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience and trainer.is_global_zero:
            name = self.monitor.removeprefix("val/")
            log.info("  stopped early: no better %s in %d epochs", name, self.patience)


class BestEpochs(Checkpoint):
    """Keeps the weights of the best ``keep`` epochs; of equal ones the earlier is better.

    State, and not the folder, tells which they are; what a better epoch displaces is removed one
    epoch later, when the fit's checkpoint no longer needs it.
    """

    def __init__(self, folder: Path, score: str, keep: int):
        self.folder, self.score, self.keep = folder, f"val/{score}", keep
        self.scores: dict[int, dict[str, float]] = {}  # epoch → all its validation scores

    def path(self, epoch: int) -> Path:
        """Where the weights of an epoch are while the fit goes on."""
        return self.folder / f"epoch{epoch}.ckpt"

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            needed = {self.path(epoch) for epoch in self.scores}
            for path in self.folder.glob("epoch*.ckpt"):
                if path not in needed:
                    path.unlink()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep this epoch, if it is one of the best so far."""
        epoch = trainer.current_epoch
        values = {
            key: float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith("val/")
        }
        known = {**self.scores, epoch: values}
        best = sorted(known, key=lambda one: (-known[one][self.score], one))[: self.keep]
        if epoch in best:
            trainer.save_checkpoint(self.path(epoch), weights_only=True)
        self.scores = {one: known[one] for one in best}

    def state_dict(self) -> dict[str, Any]:
        """The scores of the kept epochs, best first, for a checkpoint."""
        return {"scores": {epoch: dict(values) for epoch, values in self.scores.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from a checkpoint."""
        self.scores = {int(epoch): dict(one) for epoch, one in state_dict["scores"].items()}


def convert(
    folder: Path, fit: dict[str, Any], score: str, network: nn.Module, card: dict[str, Any]
) -> None:
    """Write the epochs that ``BestEpochs`` kept as weights, by their rank: ``best/1.safetensors``.

    The network is left with the weights of the last of them.

    Args:
        folder: of the run.
        fit: the fit's checkpoint, which tells which epochs are kept, whichever process ran.
        score: by which they are the best.
        network: to load them into.
        card: what the run's own weights say of themselves.
    """
    places = BestEpochs(folder / runs.CHECKPOINTS, score, keep=0)
    kept = fit["callbacks"].get(BestEpochs.__name__, {"scores": {}})["scores"]
    for rank, (epoch, values) in enumerate(kept.items(), start=1):
        state = read_checkpoint(places.path(epoch))["state_dict"]
        network.load_state_dict(
            {key.removeprefix("network."): one for key, one in renamed(state, "network.").items()}
        )
        validation = {key.removeprefix("val/"): value for key, value in values.items()}
        own = {
            "weights": f"epoch {epoch + 1}, number {rank} by {score}",
            "epoch": epoch,
            "score": {"name": score, "value": validation[score]},
            "validation": {
                key: None if math.isnan(value) else value for key, value in validation.items()
            },
        }
        save_weights(network, places.folder / f"{rank}.safetensors", {**card, **own})


def inherit(network: nn.Module, value: float, callbacks: Sequence[pl.Callback]) -> None:
    """Let the weights that a fit starts from compete with its epochs, as epoch -1.

    They are written as the best ones so far. An epoch must be better than ``value``, their score,
    to take their place, or to count as better for early stopping.
    """
    state = {f"network.{key}": one.cpu() for key, one in network.state_dict().items()}
    score = torch.tensor(value)
    for one in callbacks:
        if isinstance(one, Stopping):
            one.best_score = score
        elif isinstance(one, ModelCheckpoint) and one.monitor is not None:
            path = one.format_checkpoint_name({})
            if processes.is_first():
                with files.replacing(Path(path)) as temporary:
                    torch.save({"epoch": BEFORE, "state_dict": state}, temporary)
            one.best_k_models = {path: score}
            one.best_model_path = one.kth_best_model_path = path
            one.best_model_score = one.kth_value = score
