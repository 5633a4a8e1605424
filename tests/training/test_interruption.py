"""A fit that is told to stop within an epoch goes on to the weights of one that was not."""

import itertools
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from pneumo import runs
from pneumo.settings import CONF
from pneumo.training import fit, logbook
from pneumo.training.interruption import Interruption
from pneumo.training.loader import EpochSampler
from pneumo.training.settings import load_config


def test_what_is_left_of_an_epoch_is_served_once_then_whole_epochs():
    sampler = EpochSampler(range(6))
    sampler.begun = 4
    assert len(sampler) == 6  # Lightning adds the batches that are done to those it is given
    assert list(sampler) == [4, 5]
    assert list(sampler) == [0, 1, 2, 3, 4, 5]


def test_the_time_of_a_broken_epoch_counts(monkeypatch):
    monkeypatch.setattr(logbook.time, "monotonic", itertools.count().__next__)
    before, after = logbook.Stopwatch(), logbook.Stopwatch()
    trainer = SimpleNamespace(current_epoch=0)
    before.on_train_start(trainer, None)
    before.on_train_epoch_start(trainer, None)
    after.load_state_dict(before.state_dict())  # 1
    after.on_train_start(trainer, None)
    after.on_train_epoch_end(trainer, None)  # 1 more
    assert after.seconds == 2


SHORT = [word for word in TINY if not word.startswith(("averaging", "epochs", "log."))]
OWN = (
    *("epochs=2", "resolution.size=32", "scale.size=1", "batch_size=4", "log.pictures=0"),
    *("averaging=ema", "scheduler=onecycle", "optimizer.accumulate=2", "log.checkpoints=true"),
)


def config(folder, *own):
    typed = ["+experiment=exp2", *SHORT, *OWN, *own, f"runs_dir={folder}"]
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", typed)
        raw.variant = "one"
        wanted = load_config(raw)
    return wanted.scaled({word.partition("=")[0] for word in typed})


def told_in(monkeypatch, epoch, batch, number):
    """Send this process a signal while it works on a batch."""
    start = Interruption.on_train_batch_start

    def on_train_batch_start(self, trainer, module, films, index):
        start(self, trainer, module, films, index)
        if (trainer.current_epoch, index) == (epoch, batch):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Interruption, "on_train_batch_start", on_train_batch_start)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights and history of a fit of two epochs of four batches, two a step."""
    folder = tmp_path_factory.mktemp("undisturbed")
    wanted = config(folder)
    fit.fit(wanted, wanted.path)
    return wanted.path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epoch", "batch", "number", "workers"),
    [(0, 0, signal.SIGUSR2, 0), (1, 1, signal.SIGTERM, 1), (0, 3, signal.SIGUSR1, 0)],
)
def test_it_goes_on_to_the_same_weights(
    undisturbed, tmp_path, monkeypatch, epoch, batch, number, workers
):
    wanted = config(tmp_path, f"machine.workers={workers}")
    told_in(monkeypatch, epoch, batch, number)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(wanted, wanted.path)
    monkeypatch.undo()
    assert signal.getsignal(number) is before
    kept = torch.load(wanted.path / runs.CHECKPOINT, weights_only=True)
    whole_epochs = batch == 3  # its validation is done first
    assert kept["epoch"] == epoch
    assert kept["global_step"] == (2 * epoch + 1 if not whole_epochs else 2)
    fit.fit(wanted, wanted.path)
    ours, theirs = (load_file(path / runs.WEIGHTS) for path in (wanted.path, undisturbed))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    rows = [(path / runs.HISTORY).read_text() for path in (wanted.path, undisturbed)]
    assert rows[0] == rows[1]
