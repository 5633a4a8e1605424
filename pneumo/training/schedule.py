"""Learning-rate schedules, stepped once an epoch."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau

from pneumo.training.settings import Cosine, Plateau, Scheduler


def build(config: Scheduler, optimizer: Optimizer, epochs: int) -> LRScheduler | None:
    """The schedule of a fit of ``epochs`` epochs; None keeps the rate constant."""
    match config:
        case Cosine():
            return CosineAnnealingLR(optimizer, T_max=epochs, eta_min=config.lr_min)
        case Plateau():
            # Keras reduces once `patience` epochs were no better, torch one epoch later; Keras' min_delta is absolute
            return ReduceLROnPlateau(
                optimizer,
                factor=config.factor,
                patience=config.patience - 1,
                threshold=config.min_delta,
                threshold_mode="abs",
                min_lr=config.lr_min,
                eps=0,  # torch would stop reducing below 1e-8
            )
        case _:
            return None
