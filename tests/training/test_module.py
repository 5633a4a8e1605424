"""What a fit logs of its films, and what it takes from a checkpoint."""

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.data import DataLoader

from pneumo.settings import CONF
from pneumo.training.module import SegmentationModule
from pneumo.training.network import Output
from pneumo.training.settings import load_config


class Left(nn.Module):
    """Stands in for a network that is sure of the left half of every film."""

    def forward(self, films):
        logits = torch.full(films.shape, -20.0)
        logits[..., : films.shape[-1] // 2] = 20.0
        return Output(logits)


@pytest.fixture
def module():
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", ["+experiment=exp5", "data=phantom"])
    return SegmentationModule(Left(), load_config(raw), steps=1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_validation_logs_the_scores_of_the_masks_of_all_films(module):
    """Of three films in two batches, one is all positive, one as found, one negative."""
    masks = torch.zeros(3, 1, 32, 32, dtype=torch.uint8)
    masks[0] = masks[1, ..., :16] = 1
    films = [{"image": torch.zeros(1, 32, 32, dtype=torch.uint8), "mask": mask} for mask in masks]
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.validate(module, DataLoader(films, batch_size=2), verbose=False)
    found = {key: value.item() for key, value in trainer.callback_metrics.items()}
    assert found["val/dice"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["val/iou"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert (found["val/sensitivity"], found["val/specificity"]) == (1, 0)


def test_checkpoints_of_version_1_are_read(module):
    checkpoint = {"state_dict": {"network.unet.encoder.a": 1, "network.decoder.b": 2}}
    module.on_load_checkpoint(checkpoint)
    assert checkpoint["state_dict"] == {"network.encoder.a": 1, "network.decoder.b": 2}
