"""Losses on logits, in single precision."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pneumo.training.network import Output
from pneumo.training.settings import Loss


def soft_dice_loss(
    logits: Tensor, target: Tensor, smooth: float = 1.0, per_image: bool = False
) -> Tensor:
    """1 - (2 Σpt + smooth) / (Σp + Σt + smooth), p = sigmoid(logits).

    Args:
        logits: (N, 1, H, W).
        target: (N, 1, H, W), 0 or 1.
        smooth: keeps empty masks defined; an empty mask that is right costs nothing.
        per_image: sum over each image and take the mean, instead of over the whole batch.
    """
    probability, target = logits.float().sigmoid(), target.float()
    dims = (1, 2, 3) if per_image else (0, 1, 2, 3)
    overlap = (probability * target).sum(dims)
    total = probability.sum(dims) + target.sum(dims)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - q)^gamma log q over pixels, q the probability given to what is true.

    Lin et al., "Focal loss for dense object detection" (2017), equation 4. Shapes as above; with
    ``gamma`` 0 it is binary cross-entropy.
    """
    target = target.float()
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    wrong = 1 - torch.exp(-entropy)  # exp(-entropy) is q
    return (wrong**gamma * entropy).mean()


def total_loss(logits: Output, target: Tensor, config: Loss) -> Tensor:
    """The weighted sum that ``config`` names: a scalar, float32.

    Args:
        logits: of the network.
        target: masks (N, 1, H, W), 0 or 1.
        config: the weights; those of 0 are not computed.
    """
    mask = logits.mask
    loss = torch.zeros((), device=mask.device)
    if config.bce:
        entropy = F.binary_cross_entropy_with_logits(mask.float(), target.float())
        loss = loss + config.bce * entropy
    if config.dice:
        dice = soft_dice_loss(mask, target, config.smooth, config.dice_per_image)
        loss = loss + config.dice * dice
    if config.focal:
        loss = loss + config.focal * focal_loss(mask, target, config.focal_gamma)
    if config.presence and logits.presence is not None:
        present = target.flatten(1).any(1).float()
        entropy = F.binary_cross_entropy_with_logits(logits.presence.float(), present)
        loss = loss + config.presence * entropy
    return loss
