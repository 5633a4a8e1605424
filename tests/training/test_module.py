"""What a fit logs of its films, and what it takes from a checkpoint."""

import pytest
import pytorch_lightning as pl
import torch
from conftest import slow_but
from hydra import compose, initialize_config_dir
from pytorch_lightning.callbacks import Checkpoint
from torch import nn
from torch.utils.data import DataLoader

from pneumo.settings import CONF
from pneumo.training.module import SegmentationModule
from pneumo.training.network import Output, build_network
from pneumo.training.options import Model
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
    grey = torch.zeros(1, 32, 32, dtype=torch.uint8)
    films = [{"image": grey, "mask": mask, "row": row} for row, mask in enumerate(masks)]
    films.append({"image": grey, "mask": masks[0], "row": -1})  # only fills up the last batch
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


def composed(*overrides):
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", ["+experiment=exp5", "data=phantom", "epochs=4", *overrides])
    return load_config(raw)


class Observer(Checkpoint):
    """The network at the end of each epoch, and what it draws first; saves one's checkpoint."""

    def __init__(self, saved=None, path=None):
        self.states, self.draws, self.rates = [], [], []
        self.saved, self.path = saved, path

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        if number == 0:  # nothing was drawn in the first batch
            self.draws.append(torch.rand(1).item())
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer, module):
        state = module.network.state_dict()
        self.states.append({key: value.clone() for key, value in state.items()})
        if trainer.current_epoch == self.saved:
            trainer.save_checkpoint(self.path)


def trained(config, observer, resume=None):
    """Four epochs of two batches; the network before them, and after."""
    torch.manual_seed(0)
    model = Model("x", encoder="tu-test_resnet", encoder_weights="none", presence=False)
    network = build_network(model)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    films = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    masks = (films > 128).to(torch.uint8)
    batches = [{"image": films[row], "mask": masks[row], "row": row} for row in range(4)]
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        callbacks=[observer],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader(batches, batch_size=2)
    trainer.fit(SegmentationModule(network, config, steps=8), loader, loader, ckpt_path=resume)
    return before


def moved(before, after):
    """The parts of a network that differ: weights, norms (scale and shift), statistics."""
    norms = {key.rpartition(".")[0] for key in before if key.endswith("running_mean")}
    found = set()
    for key, value in before.items():
        part = "encoder" if key.startswith("encoder.") else "rest"
        kind = "weights"
        if "running" in key:
            kind = "statistics"
        elif key.rpartition(".")[0] in norms:
            kind = "norms"
        if not key.endswith("num_batches_tracked") and not torch.equal(value, after[key]):
            found.add(f"{part} {kind}")
    return found


ALL = {f"{part} {kind}" for part in ("encoder", "rest") for kind in ("weights", "norms")}
ALL |= {"encoder statistics", "rest statistics"}
DECODER = {name for name in ALL if name.startswith("rest")}
FROZEN = {
    "nothing": ((), ALL, ALL),
    "encoder": (("optimizer.freeze_encoder=true",), DECODER, DECODER),
    "encoder at first": (("optimizer.freeze_epochs=2",), DECODER, ALL),
    "batch norm": (
        ("optimizer.freeze_batch_norm=true",),
        {"encoder weights", "rest weights"},
        {"encoder weights", "rest weights"},
    ),
    "scale and shift": (
        ("optimizer.freeze_batch_norm_affine=true",),
        {name for name in ALL if "norms" not in name},
        {name for name in ALL if "norms" not in name},
    ),
}


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize("case", FROZEN)
def test_what_is_frozen_stays_through_a_fit_and_nothing_else(case):
    overrides, at_first, at_last = FROZEN[case]
    seen = Observer()
    before = trained(composed("averaging=none", *overrides), seen)
    assert moved(before, seen.states[1]) == at_first
    assert moved(before, seen.states[3]) == at_last


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize("stop", slow_but([1], [0, 1, 2]))
def test_an_encoder_frozen_at_first_goes_on_as_if_it_had_not_been_stopped(stop, tmp_path):
    config = composed("averaging=none", "optimizer.freeze_epochs=2", "optimizer.layer_decay=0.7")
    whole, resumed = Observer(stop, tmp_path / "stopped.ckpt"), Observer()
    trained(config, whole)
    trained(config, resumed, tmp_path / "stopped.ckpt")
    for key, value in whole.states[-1].items():
        assert torch.equal(value, resumed.states[-1][key]), key


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize("stop", slow_but([1], [0, 1, 2]))
def test_a_plateau_and_what_is_drawn_go_on_as_if_a_fit_had_not_been_stopped(stop, tmp_path):
    """No epoch is a hundred better than the first, so the third and the fourth have lower rates."""
    typed = ("scheduler.patience=1", "scheduler.min_delta=100", "scheduler.factor=0.5")
    config = composed("averaging=none", "scheduler=plateau", *typed)
    whole, resumed = Observer(stop, tmp_path / "stopped.ckpt"), Observer()
    trained(config, whole)
    trained(config, resumed, tmp_path / "stopped.ckpt")
    assert whole.rates == [1e-3, 1e-3, 5e-4, 2.5e-4]
    assert resumed.rates == whole.rates[stop + 1 :]
    assert resumed.draws == whole.draws[stop + 1 :]
    assert len(set(whole.draws)) == 4
    for key, value in whole.states[-1].items():
        assert torch.equal(value, resumed.states[-1][key]), key


def test_checkpoints_of_version_1_are_read(module):
    checkpoint = {"state_dict": {"network.unet.encoder.a": 1, "network.decoder.b": 2}}
    module.on_load_checkpoint(checkpoint)
    assert checkpoint["state_dict"] == {"network.encoder.a": 1, "network.decoder.b": 2}


class Point(nn.Module):
    """Stands in for a network: the grey levels, scaled and shifted."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(1, 1, 1)

    def forward(self, films):
        return Output(self.encoder(films / 255))


class Losses(pl.Callback):
    """Each batch's loss with its films, and the epoch's as it stands when the epoch ends."""

    def __init__(self):
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        self.batches.append((outputs["loss"].item(), len(batch["image"])))

    def on_train_epoch_end(self, trainer, module):
        self.epochs.append((trainer.callback_metrics["train/loss"].item(), self.batches))
        self.batches = []


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_the_training_loss_of_an_epoch_is_the_mean_over_its_films():
    """Three films in two batches, over three epochs."""
    torch.manual_seed(0)
    seen = Losses()
    films = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8)
    batches = [{"image": film, "mask": (film > 128).to(torch.uint8)} for film in films]
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[seen],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = SegmentationModule(Point(), composed("averaging=none", "lr=0.1"), steps=6)
    trainer.fit(module, DataLoader(batches, batch_size=2))
    assert [films for _, films in seen.epochs[0][1]] == [2, 1]
    for told, each in seen.epochs:
        assert told == pytest.approx(sum(loss * films for loss, films in each) / 3, rel=1e-6)
    assert len({told for told, _ in seen.epochs}) == 3
