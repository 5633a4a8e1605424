import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from hydra import compose, initialize_config_dir
from torch.nn import functional as F

from pneumo.errors import PneumoError
from pneumo.settings import CONF
from pneumo.training import loss
from pneumo.training.network import Output
from pneumo.training.options import Loss, Over
from pneumo.training.settings import load_config

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
    assert loss.soft_dice_loss(LOGITS, TARGET, over=Over.image) == pytest.approx(float(each.mean()))


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


POSITIVE = torch.tensor([True, False])  # which of the two films above have a mask


def test_dice_over_positives_leaves_films_without_a_mask_out():
    one = loss.soft_dice_loss(LOGITS[POSITIVE], TARGET[POSITIVE])
    found = loss.soft_dice_loss(LOGITS, TARGET, over=Over.positives)
    assert found == pytest.approx(float(one))
    many = torch.cat([LOGITS, LOGITS, -LOGITS]), torch.cat([TARGET, TARGET, TARGET])
    mean = (2 * one + loss.soft_dice_loss(-LOGITS[POSITIVE], TARGET[POSITIVE])) / 3
    found = loss.soft_dice_loss(*many, over=Over.positives)
    assert found == pytest.approx(float(mean))


def test_squares_below_the_dice_fraction_by_hand():
    p, t = LOGITS.sigmoid().flatten(1), TARGET.flatten(1).float()
    each = 1 - (2 * (p * t).sum(1) + 0.01) / ((p * p).sum(1) + t.sum(1) + 0.01)
    found = loss.soft_dice_loss(LOGITS, TARGET, 0.01, Over.image, squared=True)
    assert found == pytest.approx(float(each.mean()))


@pytest.fixture(scope="module")
def films():
    """Logits of four films of 16² and their masks, of which the last is empty."""
    torch.manual_seed(0)
    masks = (torch.rand(4, 1, 16, 16) > 0.8).byte()
    masks[3] = 0
    return 3 * torch.randn(4, 1, 16, 16), masks


def test_dice_of_an_independent_library(films):
    theirs = smp.losses.DiceLoss("binary", smooth=0.15)(*films)  # added to halves of both sums
    assert loss.soft_dice_loss(*films, smooth=0.3) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("over", [Over.batch, Over.image])
def test_lovasz_hinge_and_its_gradient_by_an_independent_library(films, over):
    logits, masks = films
    theirs = smp.losses.LovaszLoss("binary", per_image=over is Over.image)
    values, slopes = [], []
    for function in (lambda x: loss.lovasz_hinge_loss(x, masks, over), lambda x: theirs(x, masks)):
        x = logits.clone().requires_grad_()
        value = function(x)
        value.backward()
        values.append(value.item())
        slopes.append(x.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert torch.allclose(slopes[0], slopes[1], atol=1e-6)
    both = (theirs(logits, masks) + theirs(-logits, 1 - masks)) / 2
    found = loss.lovasz_hinge_loss(logits, masks, over, symmetric=True)
    assert found == pytest.approx(float(both), rel=1e-5)


def test_lovasz_hinge_of_clear_errors_is_twice_what_the_jaccard_index_lacks():
    """A logit of ±1 has an error of 0 where it is right and of 2 where it is wrong."""
    logits = torch.tensor([1.0, 1, 1, -1, -1, -1]).reshape(1, 1, 2, 3)
    masks = torch.tensor([1, 1, 0, 1, 0, 0]).reshape(1, 1, 2, 3)
    assert loss.lovasz_hinge_loss(logits, masks) == pytest.approx(2 * (1 - 2 / 4))
    found = loss.lovasz_hinge_loss(logits, masks, symmetric=True)  # of the background: also 2 / 4
    assert found == pytest.approx(2 * (1 - 2 / 4))
    empty = torch.zeros_like(masks)
    assert loss.lovasz_hinge_loss(logits, empty) == pytest.approx(2)
    assert loss.lovasz_hinge_loss(-torch.ones(1, 1, 2, 3), empty) == pytest.approx(0)


def test_lovasz_hinge_keeps_the_small_share_of_a_pixel_in_a_large_film():
    """One false pixel beside a mask of 1 % adds I / (U (U - 1)), here 9.5e-11 of 1024²."""
    masks = torch.zeros(1, 1, 1024, 1024)
    masks[:, :, :100, :105] = 1
    logits = torch.full((1, 1, 1024, 1024), 2.0, requires_grad=True)
    loss.lovasz_hinge_loss(logits, masks).backward()
    area, union = 100 * 105, 1024 * 1024
    false = logits.grad[masks == 0]
    assert float(false.min()) == pytest.approx(area / union / (union - 1), rel=1e-3)
    assert float(false.sum()) == pytest.approx(1 - area / union, rel=1e-3)


OPTIONS = [
    Loss(focal=4, smooth=1e-5),
    Loss(focal=1, focal_gamma=0.5),
    Loss(bce=0, lovasz=1, dice_over=Over.image, dice_squared=True, smooth=0.01),
    Loss(bce=0, lovasz=1, dice_over=Over.positives, lovasz_over=Over.positives),
    Loss(bce=0, dice=0, lovasz=1, lovasz_over=Over.batch, lovasz_symmetric=True),
]


@pytest.mark.parametrize("config", OPTIONS)
@pytest.mark.parametrize("level", [-200.0, 0.0, 200.0])
def test_films_without_a_mask_leave_every_loss_and_gradient_finite(config, level):
    logits = torch.full((2, 1, 8, 8), level, requires_grad=True)
    value = loss.total_loss(Output(logits), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), config)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_positives_alone_cost_nothing_where_there_are_none():
    config = Loss(bce=0, lovasz=1, dice_over=Over.positives, lovasz_over=Over.positives)
    assert loss.total_loss(Output(LOGITS), torch.zeros_like(TARGET), config) == 0


@pytest.mark.parametrize("config", OPTIONS)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_every_loss_of_half_precision_logits_is_that_of_the_same_in_single(config, kind):
    logits = (torch.randn(2, 1, 128, 128) + 2).to(kind)
    masks = torch.ones(2, 1, 128, 128, dtype=torch.uint8)
    value = loss.total_loss(Output(logits), masks, config)
    assert value.dtype == torch.float32
    assert value == loss.total_loss(Output(logits.float()), masks.float(), config)


def test_amirassovs_sum_is_nine_tenths_of_masks_and_one_of_presence():
    """.9 (3 BCE + Dice) + .1 BCE, written out."""
    present = torch.tensor([1.5, -0.5])
    p, t = LOGITS.sigmoid(), TARGET.float()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    dice = 1 - (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)
    entropy = -(present[0].sigmoid().log() + (1 - present[1].sigmoid()).log()) / 2
    config = composed_loss("amirassov", "model.presence=true")
    found = loss.total_loss(Output(LOGITS, present), TARGET, config)
    assert found == pytest.approx(float(0.9 * (3 * bce + dice) + 0.1 * entropy), rel=1e-5)


def composed_loss(name, *overrides):
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", ["+experiment=exp5", f"loss={name}", *overrides])
    return load_config(raw).loss


def test_the_presence_head_learns_whether_there_is_any():
    present = torch.tensor([1.5, -0.5])  # of the first film, which has a mask, and of the second
    weights = Loss(presence=3)
    without = loss.total_loss(Output(LOGITS), TARGET, Loss())
    found = loss.total_loss(Output(LOGITS, present), TARGET, weights)
    entropy = -(present[0].sigmoid().log() + (1 - present[1].sigmoid()).log()) / 2
    assert found - without == pytest.approx(3 * float(entropy), rel=1e-5)


PRESENT = torch.tensor([1.5, -0.5])  # logits of the two films
LABELS = torch.tensor([1.0, 0.0])  # of which the first has a mask


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_of_presence_by_an_independent_library(gamma):
    weights = Loss(bce=0, dice=0, presence_focal=3, focal_gamma=gamma)
    theirs = torchvision.ops.sigmoid_focal_loss(PRESENT, LABELS, -1, gamma, "mean")
    found = loss.total_loss(Output(LOGITS, PRESENT), TARGET, weights)
    assert found == pytest.approx(3 * float(theirs), rel=1e-5)


def test_labels_of_films_alone_leave_masks_without_a_gradient():
    logits = LOGITS.clone().requires_grad_()
    present = PRESENT.clone().requires_grad_()
    config = composed_loss("presence", "model.presence=true")
    found = loss.total_loss(Output(logits, present), TARGET, config)
    expected = F.binary_cross_entropy_with_logits(PRESENT, LABELS)
    assert found.item() == pytest.approx(float(expected))
    found.backward()
    assert logits.grad is None
    assert (present.grad != 0).all()


def test_x5s_classifiers_sum_is_focal_and_entropy_of_presence_and_entropy_of_masks():
    config = composed_loss("x5_classifier", "model.presence=true")
    focal = torchvision.ops.sigmoid_focal_loss(PRESENT, LABELS, -1, 2, "mean")
    entropies = [
        F.binary_cross_entropy_with_logits(logits, target)
        for logits, target in ((PRESENT, LABELS), (LOGITS, TARGET.float()))
    ]
    found = loss.total_loss(Output(LOGITS, PRESENT), TARGET, config)
    assert found == pytest.approx(float(focal + sum(entropies)), rel=1e-5)


def test_x5s_sum_for_both_tasks_is_dice_of_masks_and_entropy_of_presence():
    config = composed_loss("x5_multitask", "model.presence=true")
    dice = loss.total_loss(Output(LOGITS), TARGET, composed_loss("x5"))
    entropy = F.binary_cross_entropy_with_logits(PRESENT, LABELS)
    found = loss.total_loss(Output(LOGITS, PRESENT), TARGET, config)
    assert found == pytest.approx(float(dice + entropy), rel=1e-5)


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
