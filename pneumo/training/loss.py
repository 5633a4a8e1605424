"""Binary cross-entropy plus soft Dice loss on logits, in single precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pneumo.training.settings import Loss


def soft_dice_loss(
    logits: Tensor, target: Tensor, smooth: float = 1.0, per_image: bool = False
) -> Tensor:
    """1 - (2 Σpt + smooth) / (Σp + Σt + smooth), p = sigmoid(logits); sums over the batch, or per image and then averaged.

    Args:
        logits, target: (N, 1, H, W), target 0 or 1. ``smooth`` keeps empty masks defined: all right is 0, not a special case.
    """
    probability, target = logits.float().sigmoid(), target.float()
    dims = (1, 2, 3) if per_image else (0, 1, 2, 3)
    overlap = (probability * target).sum(dims)
    total = probability.sum(dims) + target.sum(dims)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def total_loss(logits: Tensor, target: Tensor, config: Loss) -> Tensor:
    """``bce`` × binary cross-entropy (mean over pixels) + ``dice`` × soft Dice loss. Shapes (N, 1, H, W), a scalar float32."""
    loss = torch.zeros((), device=logits.device)
    if config.bce:
        loss = loss + config.bce * F.binary_cross_entropy_with_logits(
            logits.float(), target.float()
        )
    if config.dice:
        loss = loss + config.dice * soft_dice_loss(
            logits, target, config.smooth, config.dice_per_image
        )
    return loss
