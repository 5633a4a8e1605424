import pytest
import segmentation_models_pytorch as smp
import torch

from pneumo.errors import PneumoError
from pneumo.training import loss
from pneumo.training.network import Output
from pneumo.training.settings import Loss

LOGITS = torch.tensor([0.0, 2.0, -1.0, 3.0, 0.5, -2.0, 1.0, 0.0]).reshape(2, 1, 2, 2)
TARGET = torch.tensor([0, 1, 0, 1, 0, 0, 0, 0]).reshape(2, 1, 2, 2)


def test_value_by_hand():
    p, t = LOGITS.sigmoid().flatten(), TARGET.flatten().float()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    assert loss.total_loss(Output(LOGITS), TARGET, Loss()) == pytest.approx(float(bce + dice))
    assert loss.total_loss(Output(LOGITS), TARGET, Loss(bce=2, dice=0)) == pytest.approx(
        float(2 * bce)
    )
    each = torch.stack(
        [loss.soft_dice_loss(LOGITS[i : i + 1], TARGET[i : i + 1]) for i in range(2)]
    )
    assert loss.soft_dice_loss(LOGITS, TARGET, per_image=True) == pytest.approx(float(each.mean()))


def test_empty_masks_are_defined_and_false_positives_still_cost():
    empty = torch.zeros(2, 1, 4, 4)
    assert loss.soft_dice_loss(torch.full_like(empty, -50), empty) == pytest.approx(0)
    assert loss.soft_dice_loss(torch.full_like(empty, 50), empty) > 0.9
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    loss.total_loss(Output(logits), empty.byte(), Loss()).backward()
    assert (logits.grad > 0).all()


def test_half_precision_logits_are_summed_in_single():
    logits = torch.full((1, 1, 512, 512), 4.0, dtype=torch.float16)
    value = loss.total_loss(Output(logits), torch.ones(1, 1, 512, 512, dtype=torch.uint8), Loss())
    assert value.dtype == torch.float32
    assert torch.isfinite(value)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_focal_loss_by_hand_and_by_an_independent_library(gamma):
    p, t = LOGITS.sigmoid(), TARGET.float()
    right = t * p + (1 - t) * (1 - p)
    expected = (-((1 - right) ** gamma) * right.log()).mean()
    assert loss.focal_loss(LOGITS, TARGET, gamma) == pytest.approx(float(expected), rel=1e-5)
    theirs = smp.losses.FocalLoss("binary", gamma=gamma)(LOGITS, TARGET)
    assert loss.focal_loss(LOGITS, TARGET, gamma) == pytest.approx(float(theirs), rel=1e-5)
    only = Loss(bce=0, dice=0, focal=2, focal_gamma=gamma)
    found = loss.total_loss(Output(LOGITS), TARGET, only)
    assert found == pytest.approx(2 * float(expected), rel=1e-5)


def test_the_presence_head_learns_whether_there_is_any():
    present = torch.tensor([1.5, -0.5])  # of the first film, which has a mask, and of the second
    weights = Loss(presence=3)
    without = loss.total_loss(Output(LOGITS), TARGET, Loss())
    found = loss.total_loss(Output(LOGITS, present), TARGET, weights)
    entropy = -(present[0].sigmoid().log() + (1 - present[1].sigmoid()).log()) / 2
    assert found - without == pytest.approx(3 * float(entropy), rel=1e-5)


OWN = """
def half(logits, masks):
    return ((logits.sigmoid() - masks) ** 2).mean() / 2

def one_argument(logits):
    return logits.sum()

def no_number(logits, masks):
    return logits

def of_positives(logits, masks):
    return (logits.sum((1, 2, 3)) / masks.sum((1, 2, 3))).mean()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a user's losses, where the command is started."""
    (tmp_path / "ownlosses.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_loss_of_ones_own_is_weighed_beside_the_others(folder):
    loss.check_own_loss("ownlosses.half")
    config = Loss(dice=0, own="ownlosses.half", own_weight=3)
    squares = ((LOGITS.sigmoid() - TARGET) ** 2).mean()
    bce = loss.total_loss(Output(LOGITS), TARGET, Loss(dice=0))
    found = loss.total_loss(Output(LOGITS), TARGET, config)
    assert found == pytest.approx(float(bce + 1.5 * squares))
    assert loss.own_source("ownlosses.half") == OWN


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ownlosses.quarter", "not found"),
        ("nosuchfile.loss", "nosuchfile.py in"),
        ("half", "<module>.<function>"),
        ("ownlosses.one_argument", "TypeError"),
        ("ownlosses.no_number", "one number with a gradient"),
        ("ownlosses.of_positives", "mask is empty"),
    ],
)
def test_a_loss_that_would_fail_is_refused_before_training(folder, name, said):
    with pytest.raises(PneumoError, match=said) as refused:
        loss.check_own_loss(name)
    assert f"loss.own={name}" in str(refused.value)
