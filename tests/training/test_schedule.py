import math

import pytest
import torch

from pneumo.training import schedule
from pneumo.training.options import Cosine, Cyclic, Interval, OneCycle, Plateau, Scheduler


def optimizer():
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)


def test_cosine_per_epoch():
    one = optimizer()
    steps = schedule.build(Cosine(), one, 10, 100).scheduler
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
    steps = schedule.build(Plateau(patience=patience), one, 50, 500).scheduler
    rates = []
    for value in losses:
        one.step()
        steps.step(value)
        rates.append(one.param_groups[0]["lr"])
    assert rates == pytest.approx(keras(losses, 0.2, patience, 1e-4))


def test_constant():
    assert schedule.build(Scheduler(), optimizer(), 10, 100) is None


def rates(config, epochs=5, steps=100):
    """The learning rate of every step, as a share of the highest."""
    one = optimizer()
    course = schedule.build(config, one, epochs, steps)
    assert course.interval is Interval.step
    found = []
    for _ in range(steps):
        found.append(one.param_groups[0]["lr"] / 1e-3)
        one.step()
        course.scheduler.step()
    return found


def test_warm_up_then_cosine_per_step():
    found = rates(Cosine(interval=Interval.step, warmup=0.1, lr_min=1e-5))
    assert found[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert found[10] == pytest.approx(1)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[55] == pytest.approx((1 + 0.01) / 2)


def test_one_cycle_as_torch():
    one = optimizer()
    theirs = torch.optim.lr_scheduler.OneCycleLR(one, max_lr=1e-3, total_steps=100)
    expected = []
    for _ in range(100):
        expected.append(one.param_groups[0]["lr"] / 1e-3)
        one.step()
        theirs.step() if len(expected) < 100 else None
    assert rates(OneCycle()) == pytest.approx(expected, rel=1e-6)


def test_cycles_restart_at_the_top():
    found = rates(Cyclic(cycles=4))
    assert [i for i, rate in enumerate(found) if rate == pytest.approx(1)] == [0, 25, 50, 75]
    assert max(found[24], found[49], found[74]) < 0.01
