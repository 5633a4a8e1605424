import pytest
import torch

from pneumo.training import loss
from pneumo.training.settings import Loss

LOGITS = torch.tensor([0.0, 2.0, -1.0, 3.0, 0.5, -2.0, 1.0, 0.0]).reshape(2, 1, 2, 2)
TARGET = torch.tensor([0, 1, 0, 1, 0, 0, 0, 0]).reshape(2, 1, 2, 2)


def test_value_by_hand():
    p, t = LOGITS.sigmoid().flatten(), TARGET.flatten().float()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    assert loss.total_loss(LOGITS, TARGET, Loss()) == pytest.approx(float(bce + dice))
    assert loss.total_loss(LOGITS, TARGET, Loss(bce=2, dice=0)) == pytest.approx(float(2 * bce))
    each = torch.stack(
        [loss.soft_dice_loss(LOGITS[i : i + 1], TARGET[i : i + 1]) for i in range(2)]
    )
    assert loss.soft_dice_loss(LOGITS, TARGET, per_image=True) == pytest.approx(float(each.mean()))


def test_empty_masks_are_defined_and_false_positives_still_cost():
    empty = torch.zeros(2, 1, 4, 4)
    assert loss.soft_dice_loss(torch.full_like(empty, -50), empty) == pytest.approx(0)
    assert loss.soft_dice_loss(torch.full_like(empty, 50), empty) > 0.9
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    loss.total_loss(logits, empty.byte(), Loss()).backward()
    assert (logits.grad > 0).all()


def test_half_precision_logits_are_summed_in_single():
    logits = torch.full((1, 1, 512, 512), 4.0, dtype=torch.float16)
    value = loss.total_loss(logits, torch.ones(1, 1, 512, 512, dtype=torch.uint8), Loss())
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
