"""Losses on logits, in single precision."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pneumo.errors import PneumoError, brief
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


def own_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A user's loss, ``<module>.<function>``, from the folder of the command or installed.

    It is called as ``loss(logits, masks)``, both (N, 1, H, W), float32, masks of 0 and 1. Raises
    PneumoError if there is none.
    """
    module, _, function = name.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:  # the command `pneumo` does not look there by itself
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise PneumoError(
            f"loss.own={name}: not found ({brief(error)}); it is <module>.<function>, of a file "
            f"{module or '<module>'}.py in {here} or of an installed package"
        ) from None
    except Exception as error:  # whatever a user's module raises
        raise PneumoError(f"loss.own={name}: {module} cannot be imported: {brief(error)}") from None
    return found


def check_own_loss(name: str) -> None:
    """Try a user's loss on two small films.

    Raises PneumoError unless it gives one finite number with a gradient.
    """
    logits = torch.zeros(2, 1, 32, 32, requires_grad=True)
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 8:24, 8:24] = 1  # the other film is empty
    try:
        value = own_loss(name)(logits, masks)
    except PneumoError:
        raise
    except Exception as error:  # whatever a user's function raises
        kind = type(error).__name__
        raise PneumoError(
            f"loss.own={name}: failed on logits and masks of (2, 1, 32, 32): {kind}: {brief(error)}"
        ) from None
    if not (isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad):
        raise PneumoError(
            f"loss.own={name}: must return a tensor of one number with a gradient, not {value!r}"
        )
    if not value.isfinite():
        raise PneumoError(
            f"loss.own={name}: is {value.item()} for a film with a mask and one without; the "
            "second film's mask is empty, as most are"
        )


def own_source(name: str) -> str:
    """The text of the module that a user's loss is in, so that a run can be rebuilt."""
    return inspect.getsource(importlib.import_module(own_loss(name).__module__))


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
    if config.own and config.own_weight:
        loss = loss + config.own_weight * own_loss(config.own)(mask.float(), target.float())
    if config.presence and logits.presence is not None:
        present = target.flatten(1).any(1).float()
        entropy = F.binary_cross_entropy_with_logits(logits.presence.float(), present)
        loss = loss + config.presence * entropy
    return loss
