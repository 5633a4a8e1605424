import math

import pytest
import torch

from pneumo.training import schedule
from pneumo.training.settings import Cosine, Plateau, Scheduler


def optimizer():
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)


def test_cosine_per_epoch():
    one = optimizer()
    steps = schedule.build(Cosine(), one, 10)
    rates = []
    for _ in range(10):
        rates.append(one.param_groups[0]["lr"])
        one.step()
        steps.step()
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * t / 10)) / 2 for t in range(10)])


def keras(losses, factor, patience, min_delta):
    """Keras' ReduceLROnPlateau, from its documentation: the rate in force after each epoch."""
    rate, best, wait, rates = 1e-3, math.inf, 0, []
    for value in losses:
        if value < best - min_delta:
            best, wait = value, 0
        else:
            wait += 1
            if wait >= patience:
                rate, wait = rate * factor, 0
        rates.append(rate)
    return rates


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_plateau_as_keras(patience):
    generator = torch.Generator().manual_seed(patience)
    losses = (1 / torch.arange(1, 41) + 0.05 * torch.rand(40, generator=generator)).tolist() + [
        0.05,
        0.04999,
        0.04998,
    ] * 4
    one = optimizer()
    steps = schedule.build(Plateau(patience=patience), one, 50)
    rates = []
    for value in losses:
        one.step()
        steps.step(value)
        rates.append(one.param_groups[0]["lr"])
    assert rates == pytest.approx(keras(losses, 0.2, patience, 1e-4))


def test_constant():
    assert schedule.build(Scheduler(), optimizer(), 10) is None
