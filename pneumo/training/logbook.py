"""What a fit shows and records.

``metrics.csv``, overlays, a progress bar or lines, Weights & Biases, TensorBoard.
"""

import csv
import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from tqdm import tqdm

from pneumo import files, tracking
from pneumo.data.settings import PhantomData
from pneumo.errors import brief
from pneumo.masks import pictures
from pneumo.masks.scores import LABELS, TRAINING
from pneumo.masks.settings import Postprocess
from pneumo.settings import Log
from pneumo.training.loader import FilmData
from pneumo.training.module import SegmentationModule, masks_of
from pneumo.training.network import probabilities
from pneumo.training.settings import Config

log = logging.getLogger(__name__)
# shown of every epoch: scores of masks, or of whole films where nothing else is known
OF_MASKS, OF_FILMS = ["iou", "dice", "dice_positive"], ["sensitivity", "specificity"]
COLUMNS = ("epoch", "lr", "train/loss", "val/loss", *(f"val/{key}" for key in TRAINING))


class History(Callback):
    """One row an epoch in ``metrics.csv``, written whole each time, and shown as a line.

    A resumed fit goes on where it was, by its checkpoint; those of older versions hold no rows, and
    theirs are read from the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.rate = math.nan  # with which the epoch began; set where one is gone on with

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, for a checkpoint."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from a checkpoint."""
        self.rows = [dict(row) for row in state_dict["rows"]]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # not in on_fit_start, which does not know the epoch yet
        if trainer.current_epoch and not self.rows and self.path.is_file():
            with open(self.path, newline="", encoding="utf-8") as file:
                self.rows = [
                    dict(row)
                    for row in csv.DictReader(file)
                    if int(row["epoch"]) < trainer.current_epoch
                ]
        if trainer.current_epoch and trainer.is_global_zero:
            log.info("  continuing at epoch %d", trainer.current_epoch + 1)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        written = {int(row["epoch"]) for row in self.rows}
        if not trainer.is_global_zero or trainer.current_epoch in written:
            return
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch,
            "lr": self.rate,
            **{key: values.get(key, float("nan")) for key in COLUMNS[2:]},
        }
        self.rows.append(row)
        with (
            files.replacing(self.path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        for logger in trainer.loggers:
            logger.log_metrics(
                {"epoch": trainer.current_epoch, "lr": self.rate}, step=trainer.global_step
            )
        shown = [key for key in OF_MASKS if f"val/{key}" in values] or OF_FILMS
        scores = ", ".join(f"{LABELS[key]} {row[f'val/{key}']:.4f}" for key in shown)
        tqdm.write(  # above the bar, if there is one
            f"  epoch {row['epoch'] + 1}/{trainer.max_epochs}: loss {row['train/loss']:.4f}, "
            f"validation loss {row['val/loss']:.4f}, {scores}"
        )
        sys.stdout.flush()


class Stopwatch(Callback):
    """The wall time of the epochs of a fit, their validation included, in seconds.

    State is saved with the checkpoint, so that the parts of an interrupted fit add up; what was
    done after it is not counted. NaN where a checkpoint without it was gone on from.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._known = False
        self._started: float | None = None  # of an epoch that goes on

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch and not self._known:
            self.seconds = math.nan
        self._started = time.monotonic()  # also of an epoch that was broken off

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds, self._started = self._so_far(), None

    def _so_far(self) -> float:
        if self._started is None:
            return self.seconds
        return self.seconds + time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """The time so far, for a checkpoint."""
        return {"seconds": self._so_far()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up from a checkpoint."""
        self.seconds, self._known = float(state_dict["seconds"]), True


class Pictures(Callback):
    """Overlays of a few fixed validation films, each few epochs and at the end.

    They go into ``pictures/``, and to Weights & Biases if ``sent``: films do not leave the machine
    unasked.
    """

    def __init__(self, data: FilmData, folder: Path, log: Log, rule: Postprocess, sent: bool):
        count = log.pictures
        rows = data.parts.validation
        positive = [i for i, row in enumerate(rows) if data.positive[row]]
        negative = [i for i, row in enumerate(rows) if not data.positive[row]]
        # three quarters are positive, more where negatives are few
        most = min(len(positive), max(count - count // 4, count - len(negative)))
        self.indices = [*positive[:most], *negative[: count - most]]
        self.dataset, self.folder = data.validation, folder
        self.every, self.rule, self.sent = log.pictures_every, rule, sent

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not self.indices or not trainer.is_global_zero or trainer.sanity_checking:
            return
        final = trainer.state.fn == "validate"  # after the fit, of the weights that are kept
        if not final and epoch % self.every and epoch != trainer.max_epochs:
            return
        samples = [self.dataset[i] for i in self.indices]
        images = torch.stack([sample["image"] for sample in samples])
        assert isinstance(pl_module, SegmentationModule)
        with torch.no_grad():
            logits = pl_module.network(images.to(pl_module.device))
        masks = masks_of(probabilities(logits), self.rule)
        tiles = [
            pictures.overlay(sample["image"][0].numpy(), sample["mask"][0].numpy(), mask)
            for sample, mask in zip(samples, masks, strict=True)
        ]
        name = "final.png" if final else f"epoch{epoch:03d}.png"
        with files.replacing(self.folder / name) as temporary:
            Image.fromarray(np.hstack(tiles)).save(temporary, "PNG")
        for logger in trainer.loggers:
            if self.sent and isinstance(logger, GuardedWandbLogger):
                logger.pictures(tiles, trainer.global_step)


class RunBar(Callback):
    """A bar over all steps of a fit, with the time that is left, on a terminal."""

    def __init__(self, data: FilmData):
        self.data = data

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        each = [self.data.batches(epoch) for epoch in range(trainer.max_epochs or 0)]
        self.bar = tqdm(
            total=sum(each),
            initial=sum(each[: trainer.current_epoch]),
            unit="step",
            leave=False,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", False)
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.bar.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if hasattr(self, "bar"):  # else it stopped before the first step
            self.bar.close()


class GuardedWandbLogger(WandbLogger):
    """Weights & Biases that never stops a training.

    The first failure is said in one line, and nothing more is sent.
    """

    broken = False

    def _guard(self, action: Callable[[], Any]) -> None:
        if self.broken:
            return
        try:
            action()
        except Exception as error:  # whatever its client may raise
            self.broken = True
            log.warning("Weights & Biases failed and is left out from here on (%s)", brief(error))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._guard(lambda: super(GuardedWandbLogger, self).log_metrics(metrics, step))

    def log_hyperparams(self, params: Any) -> None:
        self._guard(lambda: super(GuardedWandbLogger, self).log_hyperparams(params))

    def pictures(self, tiles: list[np.ndarray], step: int) -> None:
        """Send overlays."""
        self._guard(
            lambda: super(GuardedWandbLogger, self).log_image(
                "validation films", [Image.fromarray(t) for t in tiles], step=step
            )
        )

    def summary(self, scores: dict[str, Any]) -> None:
        """Send the final scores."""
        self._guard(lambda: self.experiment.summary.update(scores))

    def finish(self) -> None:
        """End the run: a second fit in this process is a run of its own."""
        self._guard(lambda: tracking.finish(self.experiment))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Checkpoints stay on this machine."""

    def finalize(self, status: str) -> None:
        self._guard(lambda: super(GuardedWandbLogger, self).finalize(status))


def pictures_sent(config: Config) -> bool:
    """Whether overlays go to Weights & Biases: those of drawn films, and others when asked for."""
    return config.log.send_pictures or isinstance(config.data, PhantomData)


def loggers(config: Config, folder: Path, about: dict[str, Any]) -> list[Logger]:
    """TensorBoard and Weights & Biases as configured."""
    chosen: list[Logger] = []
    if config.log.tensorboard:
        try:
            chosen.append(TensorBoardLogger(folder, name="", version="tensorboard"))
        except ModuleNotFoundError:
            log.warning(
                "log.tensorboard=true needs TensorBoard: pip install -e '.[tensorboard]'; "
                "training goes on without it"
            )
    run = tracking.start(
        config.log,
        folder,
        group="-".join(filter(None, (config.data.name, config.scale.name, config.tag))),
        name="-".join(config.path.parts[-3:]),
        job_type=config.experiment,
        config=about,
    )
    if run is not None:
        if not run.offline:
            what = "settings, scores and learning curves"
            if pictures_sent(config):
                what += f", and overlays of {config.log.pictures} validation films"
            log.info("Weights & Biases: %s are sent to %s", what, run.url)
        chosen.append(GuardedWandbLogger(experiment=run))
    return chosen


def close(chosen: list[Logger]) -> None:
    """Finish what was opened for one fit, also after a failure."""
    for logger in chosen:
        if isinstance(logger, GuardedWandbLogger):
            logger.finish()
