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
from pneumo.training.options import Loss, Over


def soft_dice_loss(
    logits: Tensor,
    target: Tensor,
    smooth: float = 1.0,
    over: Over = Over.batch,
    squared: bool = False,
) -> Tensor:
    """1 - (2 Σpt + smooth) / (Σp + Σt + smooth), p = sigmoid(logits).

    Args:
        logits: (N, 1, H, W).
        target: (N, 1, H, W), 0 or 1.
        smooth: keeps empty masks defined; an empty mask that is right costs nothing.
        over: the pixels of one sum.
        squared: Σp² in place of Σp, as in V-Net (Milletari et al. 2016, section 3).
    """
    probability, target = _rows(logits, over).sigmoid(), _rows(target, over)
    overlap = (probability * target).sum(1)
    predicted = probability.square() if squared else probability
    total = predicted.sum(1) + target.sum(1)
    return _mean(1 - (2 * overlap + smooth) / (total + smooth), target, over)


def lovasz_hinge_loss(
    logits: Tensor, target: Tensor, over: Over = Over.image, symmetric: bool = False
) -> Tensor:
    """The Lovász extension of 1 - Jaccard index, of the errors max(0, 1 - logit · ±1).

    Berman et al., "The Lovász-softmax loss" (2018), section 2 and algorithm 1. Shapes as above.

    Args:
        logits: (N, 1, H, W).
        target: (N, 1, H, W), 0 or 1.
        over: the pixels of one index.
        symmetric: the mean of this loss and of that of the background, with which bestfitting
            (third in the challenge) trained.
    """
    logits, target = _rows(logits, over), _rows(target, over)
    errors, order = (1 - logits * (2 * target - 1)).sort(dim=1, descending=True)
    true = target.gather(1, order).bool()
    growth = _growth(true)
    if symmetric:
        growth = (growth + _growth(~true)) / 2
    return _mean((errors.relu() * growth).sum(1), target, over)


def _growth(true: Tensor) -> Tensor:
    """How much 1 - Jaccard grows as pixels turn wrong one after the other, (rows, pixels), bool.

    With I true pixels still right and U pixels in the union, one that misses the mask adds 1 / U,
    and one outside it I / (U (U - 1)). Differences of the index itself would be too small for
    single precision, and whole numbers are summed alike on every device.
    """
    area = true.sum(1, keepdim=True)
    right = area - true.cumsum(1)
    union = area + (~true).cumsum(1)
    growth = torch.where(true, 1, right / (union - 1).clamp(min=1)) / union
    growth[:, 0] = 1 / union[:, 0]  # where the mask is empty, its first false pixel costs all
    return growth


def _rows(values: Tensor, over: Over) -> Tensor:
    """(N, 1, H, W) → float32 (rows, pixels): one row, or one for each image."""
    if over is Over.batch:
        return values.float().reshape(1, -1)
    return values.float().flatten(1)


def _mean(losses: Tensor, target: Tensor, over: Over) -> Tensor:
    """The mean of the rows' losses; 0 if ``over`` names positives and there are none."""
    if over is not Over.positives:
        return losses.mean()
    positive = target.any(1)
    return (losses * positive).sum() / positive.sum().clamp(min=1)


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - q)^gamma log q, q the probability given to what is true.

    Lin et al., "Focal loss for dense object detection" (2017), equation 4. Of pixels, shapes as
    above, or of films, (N,). With ``gamma`` 0 it is binary cross-entropy.
    """
    margin = logits.float() * (2 * target.float() - 1)
    right, wrong = F.logsigmoid(margin), F.logsigmoid(-margin)  # log q and log (1 - q)
    # a power of 1 - q itself has no finite slope at 0, if gamma is below 1
    return -(torch.exp(gamma * wrong) * right).mean()


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
        dice = soft_dice_loss(mask, target, config.smooth, config.dice_over, config.dice_squared)
        loss = loss + config.dice * dice
    if config.focal:
        loss = loss + config.focal * focal_loss(mask, target, config.focal_gamma)
    if config.lovasz:
        lovasz = lovasz_hinge_loss(mask, target, config.lovasz_over, config.lovasz_symmetric)
        loss = loss + config.lovasz * lovasz
    if config.own and config.own_weight:
        loss = loss + config.own_weight * own_loss(config.own)(mask.float(), target.float())
    if logits.presence is None:
        return loss
    present = target.flatten(1).any(1).float()
    if config.presence:
        entropy = F.binary_cross_entropy_with_logits(logits.presence.float(), present)
        loss = loss + config.presence * entropy
    if config.presence_focal:
        focal = focal_loss(logits.presence, present, config.focal_gamma)
        loss = loss + config.presence_focal * focal
    return loss
