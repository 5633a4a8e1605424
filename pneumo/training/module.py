"""The ``LightningModule``: steps and logging only. No files, no plots, no threshold search."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pneumo.masks.rule import to_mask
from pneumo.training import loss, schedule
from pneumo.training.metrics import ImageScores
from pneumo.training.network import Network
from pneumo.training.settings import Config

Batch = dict[str, Tensor]


class SegmentationModule(pl.LightningModule):
    """Trains and validates a network on batches of uint8 films.

    Logs per epoch ``train/loss``, ``val/loss`` and the scores of ``ImageScores`` as ``val/…``, of masks made with the
    experiment's own thresholds (``config.postprocess``).
    """

    def __init__(self, network: Network, config: Config):
        super().__init__()
        self.network, self.config = network, config
        self.scores = ImageScores()
        self._plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None

    def on_train_epoch_start(self) -> None:
        """Seed by epoch, so that a resumed fit draws what an uninterrupted one draws."""
        sequence = np.random.SeedSequence([self.config.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        value = loss.total_loss(self.network(batch["image"]), batch["mask"], self.config.loss)
        self.log(
            "train/loss",
            value,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=len(batch["image"]),
            sync_dist=True,
        )
        return value

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits = self.network(batch["image"])
        value = loss.total_loss(logits, batch["mask"], self.config.loss)
        self.log("val/loss", value, prog_bar=True, batch_size=len(batch["image"]), sync_dist=True)
        probabilities = logits.float().sigmoid().cpu().numpy()
        masks = np.stack([to_mask(p[0], self.config.postprocess) for p in probabilities])
        self.scores.update(torch.from_numpy(masks[:, None]).to(self.device), batch["mask"])

    def on_validation_epoch_end(self) -> None:
        shown = ("iou", "dice_positive")
        for name, value in self.scores.compute().items():
            self.log(f"val/{name}", value, prog_bar=name in shown)
        self.scores.reset()

    def configure_optimizers(self) -> Any:
        """Adam, and the schedule stepped per epoch (a plateau looks at the validation loss)."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self.config.lr, fused=True)
        scheduler = schedule.build(self.config.scheduler, optimizer, self.config.epochs)
        if isinstance(scheduler, ReduceLROnPlateau):
            self._plateau = scheduler
            if self._plateau_state:
                scheduler.load_state_dict(self._plateau_state)
            return optimizer
        return (
            optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler}
        )

    def on_train_epoch_end(self) -> None:
        """Step a plateau here: Lightning would after the checkpoint is written, and a resumed fit would miss the step."""
        if self._plateau is not None:
            self._plateau.step(float(self.trainer.callback_metrics["val/loss"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._plateau_state = checkpoint.get("plateau")
