import copy

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

from pneumo.training import averaging
from pneumo.training.settings import SWA, LightningSWA, PaperSWA

EPOCHS = 10


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
        )

    def training_step(self, batch, _):
        return self.net(batch[0]).pow(2).mean()

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS),
        }


class Snapshots(Callback):
    """What an independent observer sees at the end of each epoch."""

    def __init__(self, save=None):
        self.states, self.rates, self.save = [], [], save

    def on_train_epoch_start(self, trainer, module):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer, module):
        self.states.append(copy.deepcopy(module.state_dict()))


class SaveAt(Callback):
    def __init__(self, epoch, path):
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def fit(*callbacks, resume=None, epochs=EPOCHS):
    data = TensorDataset(torch.randn(24, 4, generator=torch.Generator().manual_seed(1)))
    module = Net()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, batch_size=8), ckpt_path=resume)
    return module, trainer


@pytest.fixture(autouse=True)
def _few_workers_on_purpose(recwarn):
    import warnings

    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*Swapping scheduler.*")


@pytest.mark.parametrize("n", [1, 3, EPOCHS])
def test_the_mean_of_the_last_epochs_batch_norm_included_and_rate_untouched(n):
    seen = Snapshots()
    module, trainer = fit(seen, averaging.build(PaperSWA(epochs=n), EPOCHS))
    assert len(seen.states) == trainer.max_epochs == EPOCHS
    assert seen.rates == pytest.approx(
        [
            1e-2 * (1 + torch.cos(torch.tensor(torch.pi * t / EPOCHS)).item()) / 2
            for t in range(EPOCHS)
        ]
    )
    for key, value in module.state_dict().items():
        last = [state[key] for state in seen.states[-n:]]
        expected = torch.stack(last).mean(0) if value.is_floating_point() else last[-1]
        assert torch.allclose(value, expected, atol=1e-6), key


def test_training_itself_is_not_changed():
    with_it, without = Snapshots(), Snapshots()
    fit(with_it, averaging.build(PaperSWA(epochs=3), EPOCHS))
    fit(without)
    assert all(
        torch.equal(a[key], b[key])
        for a, b in zip(with_it.states, without.states, strict=True)
        for key in a
    )


@pytest.mark.parametrize("stop", [2, 6, 7, 8, 9])
def test_resuming_anywhere_gives_the_same_weights(stop, tmp_path):
    path = tmp_path / "stop.ckpt"
    whole, _ = fit(averaging.build(PaperSWA(epochs=3), EPOCHS), SaveAt(stop, path))
    again, _ = fit(averaging.build(PaperSWA(epochs=3), EPOCHS), resume=path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    torch.load(path, weights_only=True)  # nothing in it needs trust


def test_a_fresh_callback_for_each_fit():
    assert averaging.build(PaperSWA(epochs=2), 10) is not averaging.build(PaperSWA(epochs=2), 10)
    assert averaging.build(SWA(), 10) is None


def test_lightnings_own_averages_the_asked_number_of_epochs_one_earlier():
    seen = Snapshots()
    module, _ = fit(seen, averaging.build(LightningSWA(epochs=3, lr=1e-2), EPOCHS))
    expected = torch.stack(
        [state["net.0.weight"] for state in seen.states[EPOCHS - 4 : EPOCHS - 1]]
    ).mean(0)
    assert torch.allclose(module.state_dict()["net.0.weight"], expected, atol=1e-6)
