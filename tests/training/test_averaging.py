import copy
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader, TensorDataset

from pneumo.errors import PneumoError
from pneumo.training import averaging
from pneumo.training.options import (
    Averaging,
    CyclesAveraging,
    Ema,
    EpochsAveraging,
    LightningAveraging,
    PaperAveraging,
)

EPOCHS = 10


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
        )

    def training_step(self, batch, _):
        return self.network(batch[0]).pow(2).mean()

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
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
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
    module, trainer = fit(seen, averaging.build(PaperAveraging(epochs=n), EPOCHS))
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


STATED = EpochsAveraging(at=[1, 4, 9], update_bn=False)
LAST_CYCLES = CyclesAveraging(cycles=2, update_bn=False)


@pytest.mark.parametrize(
    ("config", "averaged"), [(STATED, [1, 4, 9]), (LAST_CYCLES, [5, 8])], ids=["epochs", "cycles"]
)
def test_the_mean_of_stated_epochs(config, averaged):
    seen = Snapshots()
    module, _ = fit(seen, averaging.build(config, EPOCHS, cycle_ends=[2, 5, 8]))
    for key, value in module.state_dict().items():
        states = [seen.states[epoch][key] for epoch in averaged]
        expected = torch.stack(states).mean(0) if value.is_floating_point() else states[-1]
        assert torch.allclose(value, expected, atol=1e-6), key


def test_more_cycles_than_the_schedule_has_are_refused():
    with pytest.raises(PneumoError, match=r"averaging\.cycles=3: must be at most 2"):
        averaging.build(CyclesAveraging(cycles=3), EPOCHS, cycle_ends=[4, 9])


def test_training_itself_is_not_changed():
    with_it, without = Snapshots(), Snapshots()
    fit(with_it, averaging.build(PaperAveraging(epochs=3), EPOCHS))
    fit(without)
    assert all(
        torch.equal(a[key], b[key])
        for a, b in zip(with_it.states, without.states, strict=True)
        for key in a
    )


@pytest.mark.parametrize(
    ("config", "stop"),
    [
        *((PaperAveraging(epochs=3), stop) for stop in (2, 6, 7, 8, 9)),
        *((EpochsAveraging(at=[2, 5, 7], update_bn=False), stop) for stop in (1, 2, 6, 9)),
    ],
)
def test_resuming_anywhere_gives_the_same_weights(config, stop, tmp_path):
    path = tmp_path / "stop.ckpt"
    whole, _ = fit(averaging.build(config, EPOCHS), SaveAt(stop, path))
    again, _ = fit(averaging.build(config, EPOCHS), resume=path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    torch.load(path, weights_only=True)  # nothing in it needs trust


def test_an_epoch_that_is_repeated_after_a_resume_counts_once():
    module, callback = Net(), averaging.build(EpochsAveraging(at=[1, 2], update_bn=False), EPOCHS)
    for epoch, value in ((0, 100.0), (1, 2.0), (1, 50.0), (2, 4.0)):
        torch.nn.init.constant_(module.network[0].weight, value)
        callback.on_train_epoch_end(SimpleNamespace(current_epoch=epoch), module)
        resumed = averaging.build(EpochsAveraging(at=[1, 2], update_bn=False), EPOCHS)
        resumed.load_state_dict(copy.deepcopy(callback.state_dict()))
        callback = resumed
    callback.on_fit_end(SimpleNamespace(), module)
    assert (module.network[0].weight == 3).all()


def test_ema_waits_for_the_step_while_gradients_add_up():
    module, callback = Net(), averaging.build(Ema(decay=0.9), EPOCHS)
    for step, value in ((1, 1.0), (1, 90.0), (2, 2.0)):
        torch.nn.init.constant_(module.network[0].weight, value)
        callback.on_train_batch_end(SimpleNamespace(global_step=step), module)
    mean = callback.state_dict()["mean"]["network.0.weight"]
    assert torch.allclose(mean, torch.tensor(1 + 0.75 * (2 - 1)))  # decay (1 + 2) / (10 + 2)


def test_a_fresh_callback_for_each_fit():
    assert averaging.build(PaperAveraging(epochs=2), 10) is not averaging.build(
        PaperAveraging(epochs=2), 10
    )
    assert averaging.build(Averaging(), 10) is None


def test_lightnings_own_averages_the_asked_number_of_epochs_one_earlier():
    seen = Snapshots()
    module, _ = fit(seen, averaging.build(LightningAveraging(epochs=3, lr=1e-2), EPOCHS))
    expected = torch.stack(
        [state["network.0.weight"] for state in seen.states[EPOCHS - 4 : EPOCHS - 1]]
    ).mean(0)
    assert torch.allclose(module.state_dict()["network.0.weight"], expected, atol=1e-6)


class Steps(Callback):
    """The state after every step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, module, *_):
        self.states.append(copy.deepcopy(module.state_dict()))


def test_ema_follows_its_formula():
    seen = Steps()
    module, _ = fit(seen, averaging.build(Ema(decay=0.9), EPOCHS))
    key = "network.0.weight"
    mean = seen.states[0][key].clone()
    for step, state in enumerate(seen.states[1:], start=2):
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * state[key]
    assert len(seen.states) == 3 * EPOCHS
    assert torch.allclose(module.state_dict()[key], mean, atol=1e-6)
    assert not torch.allclose(module.state_dict()[key], seen.states[-1][key], atol=1e-4)


def test_a_resumed_ema_gives_the_same_weights(tmp_path):
    path = tmp_path / "stopped.ckpt"
    whole, _ = fit(averaging.build(Ema(decay=0.9), EPOCHS), SaveAt(4, path))
    resumed, _ = fit(averaging.build(Ema(decay=0.9), EPOCHS), resume=path)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


class Films(torch.utils.data.Dataset):
    """Batches as films travel."""

    def __init__(self):
        self.images = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return 24

    def __getitem__(self, i):
        return {"image": self.images[i]}


def test_reestimated_batch_norm_statistics_are_those_of_the_films():
    module = Net().train()
    module.network[1].running_mean += 7
    module.network[1].num_batches_tracked += 5
    averaging.reestimate_batch_norm(module, DataLoader(Films(), batch_size=8))
    activations = module.network[0](Films().images)
    assert torch.allclose(module.network[1].running_mean, activations.mean(0), atol=1e-6)
    batches = activations.reshape(3, 8, -1)
    assert torch.allclose(module.network[1].running_var, batches.var(1).mean(0), atol=1e-6)
    assert module.network[1].momentum == 0.1
    assert not module.network.training


def test_batch_norm_is_reestimated_on_films_as_training_gets_them():
    """That is, on its device and after the hooks that augment films there."""

    class Moved(Net):
        def on_after_batch_transfer(self, batch, _):
            return {"image": batch["image"] + 7}

        def training_step(self, batch, _):
            return self.network(batch["image"]).pow(2).mean()

    module = Moved()
    config = EpochsAveraging(at=[0], update_bn=True)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[averaging.build(config, 1)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(Films(), batch_size=8))
    activations = module.network[0](Films().images + 7)
    assert torch.allclose(module.network[1].running_mean, activations.mean(0), atol=1e-5)


def test_frozen_layers_keep_their_statistics():
    class Frozen(Net):
        def train(self, mode=True):
            super().train(mode)
            self.network[1].eval()
            return self

    module = Frozen()
    module.network[1].running_mean += 7
    before = module.network[1].running_mean.clone()
    averaging.reestimate_batch_norm(module, DataLoader(Films(), batch_size=8))
    assert torch.equal(module.network[1].running_mean, before)


def test_lightnings_batch_norm_epoch_can_be_left_out():
    seen = Snapshots()
    config = LightningAveraging(epochs=3, lr=1e-2, update_bn=False)
    module, _ = fit(seen, averaging.build(config, EPOCHS))
    assert len(seen.states) == EPOCHS
    averaged = [state["network.0.weight"] for state in seen.states[EPOCHS - 4 : EPOCHS - 1]]
    state = module.state_dict()
    assert torch.allclose(state["network.0.weight"], torch.stack(averaged).mean(0), atol=1e-6)
    statistics = "network.1.running_mean"
    assert torch.equal(state[statistics], seen.states[-1][statistics])
