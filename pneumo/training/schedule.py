"""Learning-rate schedules, stepped once an epoch or once a step."""

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, ReduceLROnPlateau

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


@dataclass
class Schedule:
    """A schedule and when it is stepped."""

    scheduler: LRScheduler
    interval: Interval = Interval.epoch


def build(config: Scheduler, optimizer: Optimizer, epochs: int, steps: int) -> Schedule | None:
    """The schedule of a fit; None keeps the rate constant.

    Args:
        config: which one.
        optimizer: its groups' rates are the highest ones; each group keeps its own.
        epochs: of the whole fit.
        steps: optimizer steps of the whole fit.
    """
    base = max(group["lr"] for group in optimizer.param_groups)
    match config:
        case Cosine(interval=Interval.epoch, warmup=0, lr_min=0):
            return Schedule(CosineAnnealingLR(optimizer, T_max=epochs))
        case Cosine():
            each_step = config.interval is Interval.step
            total = steps if each_step else epochs

            def factor(step: int) -> float:
                return warmup_cosine(step, total, config.warmup, config.lr_min / base)

            return Schedule(LambdaLR(optimizer, factor), config.interval)
        case Plateau():
            # Keras reduces once `patience` epochs were no better, torch one epoch later; Keras'
            # min_delta is absolute
            return Schedule(
                ReduceLROnPlateau(
                    optimizer,
                    mode="min" if config.watched is Signal.loss else "max",
                    factor=config.factor,
                    patience=config.patience - 1,
                    threshold=config.min_delta,
                    threshold_mode="rel" if config.relative else "abs",
                    min_lr=config.lr_min,
                    eps=0,  # torch would stop reducing below 1e-8
                )
            )
        case OneCycle():
            return Schedule(
                LambdaLR(optimizer, lambda step: one_cycle(step, steps, config)), Interval.step
            )
        case Cyclic():
            length = steps / config.cycles

            def cycle(step: int) -> float:
                return cosine(math.fmod(step, length) / length, 1.0, config.lr_min / base)

            return Schedule(LambdaLR(optimizer, cycle), Interval.step)
        case Waves():
            return Schedule(LambdaLR(optimizer, lambda epoch: wave(epoch, config, base)))
        case Restarts():
            return Schedule(LambdaLR(optimizer, lambda epoch: restarted(epoch, config, base)))
        case _:
            return None


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from ``start`` (progress 0) to ``end`` (progress 1 and beyond)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def warmup_cosine(step: int, total: int, warmup: float, end: float) -> float:
    """A linear rise from 0 in the first ``warmup`` of all steps, then half a cosine to ``end``."""
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return cosine((step - rise) / max(1, total - rise), 1.0, end)


def wave(epoch: int, config: Waves, base: float) -> float:
    """The factor of an epoch (from 0) of a cosine that falls and rises."""
    low = config.lr_min / base
    return low + (1 - low) * (1 + math.cos(math.pi * epoch / config.half_period)) / 2


def restarted(epoch: int, config: Restarts, base: float) -> float:
    """The factor of an epoch (from 0) of cycles that restart at 1, or of the stated rates."""
    begun = sum(first <= epoch for first in config.tail_epochs)
    if begun:
        return config.tail_rates[begun - 1] / base
    start, length = config.cycle(epoch)
    return cosine((epoch - start) / length, 1.0, config.lr_min / base)


def one_cycle(step: int, total: int, config: OneCycle) -> float:
    """Smith & Topin (2017): up to 1 in the first ``rise`` of all steps, then down, by cosines."""
    top = max(1.0, config.rise * total - 1)
    if step <= top:
        return cosine(step / top, config.start_factor, 1.0)
    return cosine((step - top) / max(1.0, total - 1 - top), 1.0, config.end_factor)
