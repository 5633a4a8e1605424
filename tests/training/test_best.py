"""The best epochs of a fit: kept, competed with, waited for, also where a fit was killed."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from pneumo import runs
from pneumo.training import best
from pneumo.training.fit import WholeCheckpointIO
from pneumo.training.weights import read_card

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Counting(pl.LightningModule):
    """Its one weight is the number of epochs that it was trained; its scores are given."""

    def __init__(self, scores):
        super().__init__()
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.network.weight)
        self.given = scores

    def training_step(self, batch, _):
        return -self.network.weight.sum()

    def validation_step(self, batch, _):
        self.log("val/dice", self.given[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1)


class Killed(Exception):
    pass


class Kill(Checkpoint):
    """Ends the process in an epoch: in its midst, or at its end before last.ckpt is written."""

    def __init__(self, epoch, at_end=False):
        self.epoch, self.at_end = epoch, at_end

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch and not self.at_end:
            raise Killed

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == self.epoch and self.at_end:
            raise Killed


def fit(folder, scores, keep=0, patience=None, inherited=None, kill=None):
    """A fit in a folder that goes on from its checkpoint; returns the module and its epochs."""
    monitored = ModelCheckpoint(
        folder,
        "best",
        monitor="val/dice",
        mode="max",
        save_weights_only=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks = [monitored]
    if patience:
        callbacks.append(best.Stopping("dice", patience))
    if keep:
        callbacks.append(best.BestEpochs(folder / "best", "dice", keep))
    callbacks += [kill] if kill else []
    trainer = pl.Trainer(
        max_epochs=len(scores),
        accelerator="cpu",
        callbacks=[*callbacks, last],
        plugins=[WholeCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module, loader = Counting(scores), DataLoader(torch.zeros(1))
    resume = folder / "last.ckpt"
    if inherited is not None and not resume.is_file():
        best.inherit(module.network, inherited, trainer.callbacks)
    ckpt = str(resume) if resume.is_file() else None
    trainer.fit(module, loader, loader, ckpt_path=ckpt)
    return module, trainer.current_epoch


def kept(folder):
    """The epochs whose weights lie in ``best/`` after the fit, by rank."""
    state = torch.load(folder / "last.ckpt", weights_only=True)
    best.convert(folder, state, "dice", torch.nn.Linear(1, 1, bias=False), {"fold": 3})
    runs.tidy(folder, checkpoints=True)
    found = runs.checkpoints(folder)
    assert sorted((folder / "best").iterdir()) == sorted(found)
    epochs = []
    for rank, path in enumerate(found, start=1):
        assert path.name == f"{rank}.safetensors"
        card = read_card(path)
        assert load_file(path)["weight"].item() == card["epoch"] + 1
        assert card["fold"] == 3
        assert card["score"]["value"] == card["validation"]["dice"]
        epochs.append(card["epoch"])
    return epochs


SCORES = [0.1, 0.5, 0.3, 0.5, 0.2, 0.4, 0.6]


@pytest.mark.parametrize(("keep", "epochs"), [(1, [6]), (3, [6, 1, 3]), (9, [6, 1, 3, 5, 2, 4, 0])])
def test_the_best_epochs_stay_in_their_order_and_of_equal_ones_the_earlier(tmp_path, keep, epochs):
    fit(tmp_path, SCORES, keep)
    assert kept(tmp_path) == epochs


def test_more_than_nine_kept_epochs_are_in_the_order_of_their_rank(tmp_path):
    scores = [epoch / 20 for epoch in range(11)]
    fit(tmp_path, scores, keep=11)
    assert kept(tmp_path) == list(range(10, -1, -1))


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("epoch", [1, 3, 6])
def test_the_same_epochs_are_kept_where_a_fit_was_killed(tmp_path, epoch, at_end):
    with pytest.raises(Killed):
        fit(tmp_path, SCORES, 3, kill=Kill(epoch, at_end))
    fit(tmp_path, SCORES, 3)
    assert kept(tmp_path) == [6, 1, 3]


def test_an_epoch_is_not_lost_to_one_that_turned_out_worse_when_repeated(tmp_path):
    """On a GPU, an epoch that is repeated need not give the same score."""
    with pytest.raises(Killed):
        fit(tmp_path, [0.1, 0.2, 0.3], 2, kill=Kill(2, at_end=True))
    fit(tmp_path, [0.1, 0.2, 0.0], 2)
    assert kept(tmp_path) == [1, 0]


def test_a_fit_ends_after_so_many_epochs_without_a_better_one(tmp_path, caplog):
    caplog.set_level("INFO", "pneumo")
    _, epochs = fit(tmp_path, [0.1, 0.3, 0.3, 0.2, 0.9], patience=2)
    assert epochs == 4
    assert caplog.messages.count("  stopped early: no better dice in 2 epochs") == 1


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_patience_goes_on_where_a_fit_was_killed(tmp_path, epoch):
    scores = [0.1, 0.3, 0.3, 0.2, 0.9]
    with pytest.raises(Killed):
        fit(tmp_path, scores, patience=2, kill=Kill(epoch))
    assert fit(tmp_path, scores, patience=2)[1] == 4


def test_a_fit_that_had_stopped_trains_no_other_epoch_when_resumed(tmp_path):
    scores = [0.1, 0.3, 0.3, 0.2, 0.9, 0.9]
    fit(tmp_path, scores, patience=2)
    module, epochs = fit(tmp_path, scores, patience=2)
    assert epochs == 4
    assert module.network.weight.item() == 4


def handed_on(folder):
    """Epoch and weight of the best checkpoint."""
    saved = torch.load(folder / "best.ckpt", weights_only=True)
    return saved["epoch"], saved["state_dict"]["network.weight"].item()


@pytest.mark.parametrize("kill", [None, Kill(1), Kill(1, at_end=True)])
@pytest.mark.parametrize(
    ("inherited", "best_one"), [(0.7, (-1, 0)), (0.6, (-1, 0)), (0.55, (3, 4)), (0.0, (3, 4))]
)
def test_inherited_weights_stay_the_best_unless_an_epoch_is_better(
    tmp_path, inherited, best_one, kill
):
    scores = [0.1, 0.5, 0.4, 0.6, 0.2]
    if kill:
        with pytest.raises(Killed):
            fit(tmp_path, scores, inherited=inherited, kill=kill)
    fit(tmp_path, scores, keep=1, inherited=inherited)
    assert handed_on(tmp_path) == best_one


def test_a_fit_that_was_moved_still_knows_its_best_epoch(tmp_path):
    scores, place = [0.1, 0.5, 0.4, 0.2], tmp_path / "before"
    with pytest.raises(Killed):
        fit(place, scores, kill=Kill(2))
    fit(place.rename(tmp_path / "after"), scores)
    assert handed_on(tmp_path / "after") == (1, 2)
    assert not place.exists()


def test_patience_waits_for_an_epoch_better_than_the_inherited_weights(tmp_path):
    _, epochs = fit(tmp_path, [0.1, 0.2, 0.3, 0.4], patience=2, inherited=0.35)
    assert epochs == 2
