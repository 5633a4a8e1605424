import math

import pytest
import torch

from pneumo.errors import PneumoError
from pneumo.training import schedule
from pneumo.training.options import (
    Cosine,
    Cyclic,
    Interval,
    OneCycle,
    Plateau,
    Restarts,
    Scheduler,
    Signal,
    Waves,
)


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


def epoch_rates(scheduler, one, epochs):
    """The learning rate of every epoch."""
    found = []
    for _ in range(epochs):
        found.append(one.param_groups[0]["lr"])
        one.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("half_period", "lr_min"), [(8, 1e-7), (8, 1e-6), (1, 0.0), (60, 1e-7)])
def test_waves_are_torchs_cosine_beyond_its_t_max(half_period, lr_min):
    one, other = optimizer(), optimizer()
    course = schedule.build(Waves(half_period=half_period, lr_min=lr_min), one, 50, 500)
    assert course.interval is Interval.epoch
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(other, half_period, lr_min)
    found = epoch_rates(course.scheduler, one, 50)
    assert found == pytest.approx(epoch_rates(theirs, other, 50), rel=1e-6, abs=1e-12)
    assert found[:: 2 * half_period] == pytest.approx([1e-3] * len(found[:: 2 * half_period]))


@pytest.mark.parametrize(("first", "factor"), [(5, 2), (3, 1), (1, 3)])
def test_restarts_are_torchs_warm_restarts(first, factor):
    one, other = optimizer(), optimizer()
    config = Restarts(first=first, factor=factor, lr_min=1e-6)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(other, first, factor, 1e-6)
    found = epoch_rates(schedule.build(config, one, 44, 500).scheduler, one, 44)
    assert found == pytest.approx(epoch_rates(theirs, other, 44))


RATES = (1e-5, 1e-3, 2e-4)


@pytest.mark.parametrize(
    ("config", "last"),
    [
        (Cosine(), 0),
        (Cosine(lr_min=1e-4), 1e-4),
        (Cosine(warmup=0.25, lr_min=1e-4), 1e-4),
        (Cosine(interval=Interval.step, lr_min=1e-4), 1e-4),
        (OneCycle(end_factor=0.1), 1e-4),
        (Cyclic(cycles=4, lr_min=1e-4), 1e-3),
        (Waves(half_period=20, lr_min=1e-4), 1e-4),
        (Restarts(first=8, tail_epochs=[18], tail_rates=[1e-4]), 1e-4),
        (Plateau(patience=3, factor=0.2), 1e-3 * 0.2**6),
    ],
)
def test_every_group_of_an_optimizer_keeps_its_share_of_the_highest_rate(config, last):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in RATES]
    one = torch.optim.Adam(groups)
    scheduler = schedule.build(config, one, 20, 20).scheduler
    for _ in range(20):
        one.step()
        scheduler.step(*[1.0] * isinstance(config, Plateau))
        lowest, highest, other = (group["lr"] for group in one.param_groups)
        assert (lowest, other) == pytest.approx((highest / 100, highest / 5))
    assert highest == pytest.approx(last)


X5 = Restarts(tail_epochs=[40, 42], tail_rates=[1e-5, 5e-6])


def test_the_second_of_the_challenge_ends_with_stated_rates():
    one = optimizer()
    found = epoch_rates(schedule.build(X5, one, 44, 500).scheduler, one, 44)
    assert [epoch for epoch, rate in enumerate(found) if rate == pytest.approx(1e-3)] == [
        *(0, 5, 15, 35)
    ]
    assert found[40:] == pytest.approx([1e-5, 1e-5, 5e-6, 5e-6])
    assert found[39] > 9e-4  # the fourth cycle, of forty epochs, has hardly begun


@pytest.mark.parametrize(
    ("config", "steps", "ends"),
    [
        (X5, [1] * 44, [4, 14, 34, 43]),
        (Restarts(), [1] * 44, [4, 14, 34]),
        (Restarts(), [1] * 35, [4, 14, 34]),
        (Restarts(first=2, factor=1), [1] * 5, [1, 3]),
        (Cyclic(cycles=4), [10] * 20, [4, 9, 14, 19]),
        (Cyclic(cycles=2), [30, 20, 10, 10, 10], [0, 4]),  # its half is within the second epoch
        (Cyclic(cycles=4), [10] * 2, [0, 1]),
        (Waves(), [1] * 50, []),
        (Scheduler(), [1] * 50, []),
    ],
)
def test_a_schedule_tells_where_its_cycles_end(config, steps, ends):
    assert config.cycle_ends(steps) == ends


def test_a_plateau_of_a_score_is_torchs_where_patience_is_one_more():
    scores = [0.3, 0.4, 0.4, 0.40001, 0.39, 0.5, 0.5, 0.1, 0.2, 0.3, 0.5001, *[0.5] * 12]
    one, other = optimizer(), optimizer()
    config = Plateau(
        factor=0.1, patience=3, lr_min=1e-7, watched=Signal.dice, relative=True, min_delta=1e-4
    )
    ours = schedule.build(config, one, 50, 500).scheduler
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        other, mode="max", factor=0.1, patience=2, min_lr=1e-7
    )
    for score in scores:
        for scheduler, optimiser in ((ours, one), (theirs, other)):
            optimiser.step()
            scheduler.step(score)
        assert one.param_groups[0]["lr"] == pytest.approx(other.param_groups[0]["lr"])
    assert one.param_groups[0]["lr"] < 1e-6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tail_epochs": [42, 40], "tail_rates": [1, 1]}, r"tail_epochs=\[42, 40\].*ascending"),
        ({"tail_epochs": [40]}, r"tail_rates=\[\].*as many as scheduler.tail_epochs=\[40\]"),
        ({"tail_epochs": [40], "tail_rates": [0.0]}, r"tail_rates=.*positive"),
        ({"first": 0}, "scheduler.first=0"),
    ],
)
def test_restarts_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(PneumoError, match=message):
        Restarts(**wrong)
