"""The ``LightningModule``: steps and logging only. No files, no plots, no threshold search."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pneumo.masks.rule import to_mask
from pneumo.masks.settings import Postprocess
from pneumo.masks.truth import Truth
from pneumo.training import loss, optimizer, schedule, sharing
from pneumo.training.metrics import ImageScores
from pneumo.training.network import Network, Output, batch_norms, probabilities
from pneumo.training.options import Plateau
from pneumo.training.settings import Config
from pneumo.training.weights import renamed

Batch = dict[str, Tensor]


def masks_of(said: Output, rule: Postprocess) -> np.ndarray:
    """What a rule makes of a batch of probabilities: masks uint8 (N, H, W) of 0 and 1."""
    maps = said.mask[:, 0].cpu().numpy()
    presence = [None] * len(maps) if said.presence is None else said.presence.tolist()
    return np.stack([to_mask(one, rule, told) for one, told in zip(maps, presence, strict=True)])


class SegmentationModule(pl.LightningModule):
    """Trains and validates a network on batches of uint8 films.

    Logs per epoch ``train/loss``, ``val/loss`` and the scores of ``ImageScores`` as ``val/…``, of
    masks made with the experiment's own thresholds (``config.postprocess``). Losses are of the
    batches of all processes, as a single one would have them. Schedules are made for ``steps``
    optimizer steps in the whole fit. ``truth`` is what is known of the films.
    """

    def __init__(self, network: Network, config: Config, steps: int, truth: Truth = Truth.masks):
        super().__init__()
        self.network, self.config, self.steps = network, config, steps
        self._freeze()
        self.scores = ImageScores(truth)
        self._plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether the encoder stays as it is in the current epoch."""
        moves = self.config.optimizer
        return moves.freeze_encoder or self.current_epoch < moves.freeze_epochs

    def _freeze(self) -> None:
        """Give no gradient to what stays as it is in the current epoch."""
        moves = self.config.optimizer
        if moves.freeze_encoder or moves.freeze_epochs:
            self.network.encoder.requires_grad_(not self.encoder_is_frozen)
        if moves.freeze_batch_norm or moves.freeze_batch_norm_affine:
            for norm in batch_norms(self.network):
                norm.requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        """Hold frozen statistics, as Lightning 2.6 never calls ``train``; count losses anew."""
        self.losses = torch.zeros((), device=self.device), 0
        self._freeze()
        self.train()

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Seed by epoch, so that a resumed fit draws what an uninterrupted one draws.

        Here, since between the start of an epoch and its first batch the loader's iterator draws a
        number, but in the first epoch of a process Lightning has made it before.
        """
        if batch_index == 0:
            rank = self.global_rank
            sequence = np.random.SeedSequence([self.config.seed, self.current_epoch, rank])
            torch.manual_seed(int(sequence.generate_state(1)[0]))

    def train(self, mode: bool = True) -> "SegmentationModule":
        """As torch's, but what is frozen keeps its batch-norm statistics."""
        super().train(mode)
        if self.encoder_is_frozen:
            self.network.encoder.eval()
        if self.config.optimizer.freeze_batch_norm:
            for norm in batch_norms(self.network):
                norm.eval()
        return self

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        logits = sharing.gathered_output(self.network(batch["image"]))
        masks = sharing.gathered(batch["mask"])
        value = loss.total_loss(logits, masks, self.config.loss)
        self._add(value.detach(), len(masks))
        return value * sharing.size()  # by which DDP divides the sum of gradients

    def _add(self, value: Tensor, films: int) -> None:
        """Count a batch's loss in the epoch's mean over films, which the last batch logs.

        Lightning would do the same from a log of every step, at half a millisecond a step.
        """
        total, count = self.losses[0] + value * films, self.losses[1] + films
        self.losses = total, count
        if self.trainer.is_last_batch:
            self.log(
                "train/loss",
                total / count,
                on_step=False,
                on_epoch=True,
                prog_bar=True,
                batch_size=1,
                sync_dist=True,
            )

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits, masks = self.network(batch["image"]), batch["mask"]
        value, films = self._validation_loss(logits, batch)
        self.log("val/loss", value, prog_bar=True, batch_size=films, sync_dist=True)
        said = torch.from_numpy(masks_of(probabilities(logits), self.config.postprocess)[:, None])
        real = batch["row"] >= 0
        if real.any():
            self.scores.update(said.to(self.device)[real], masks[real])

    def _validation_loss(self, logits: Output, batch: Batch) -> tuple[Tensor, int]:
        """Of a batch of all processes, without the films that fill it up; and their number."""
        real = sharing.gathered(batch["row"]) >= 0
        everything, masks = sharing.gathered_output(logits), sharing.gathered(batch["mask"])[real]
        presence = None if everything.presence is None else everything.presence[real]
        logits = Output(everything.mask[real], presence)
        return loss.total_loss(logits, masks, self.config.loss), len(masks)

    def on_validation_epoch_end(self) -> None:
        shown = ("iou", "dice_positive")
        for name, value in self.scores.compute().items():
            self.log(f"val/{name}", value, prog_bar=name in shown, sync_dist=True)
        self.scores.reset()

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule; a plateau, which watches validation, is stepped here."""
        config = self.config
        moves = optimizer.build(config.optimizer, self.network, config.lr)
        course = schedule.build(config.scheduler, moves, config.epochs, self.steps)
        if course is None:
            return moves
        if isinstance(course.scheduler, ReduceLROnPlateau):
            self._plateau = course.scheduler
            if self._plateau_state:
                course.scheduler.load_state_dict(self._plateau_state)
            return moves
        stepped = {"scheduler": course.scheduler, "interval": course.interval.name}
        return {"optimizer": moves, "lr_scheduler": stepped}

    def on_train_epoch_end(self) -> None:
        """Step a plateau.

        Lightning would do so after the checkpoint is written; a resumed fit would miss the step.
        """
        if self._plateau is not None:
            assert isinstance(self.config.scheduler, Plateau)
            watched = self.config.scheduler.watched.name
            self._plateau.step(float(self.trainer.callback_metrics[f"val/{watched}"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._plateau is not None:
            checkpoint["plateau"] = self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = renamed(checkpoint["state_dict"], "network.")
        self._plateau_state = checkpoint.get("plateau")
