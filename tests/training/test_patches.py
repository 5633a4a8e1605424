"""Networks of patches, by their definitions and with torchvision's ResNet in place of ours."""

import math

import pytest
import torch
import torchvision
from torch.nn import functional as F

from pneumo.errors import PneumoError
from pneumo.training.network import build_network
from pneumo.training.options import Architecture, Model, Pooling
from pneumo.training.patches import patchwise, pooled

FILMS = torch.randint(0, 256, (2, 1, 96, 64), dtype=torch.uint8, generator=torch.manual_seed(0))


def network_of(architecture, pooling=Pooling.max, encoder="tu-test_resnet"):
    torch.manual_seed(0)
    model = Model("x", architecture, encoder, "none", presence=True, pooling=pooling)
    return build_network(model).eval()


def test_a_classifier_is_global_average_pooling_and_a_linear_layer():
    """And its mask is the class activation map: that layer at each place."""
    network = network_of(Architecture.classifier, encoder="resnet18")
    resnet = torchvision.models.resnet18(weights=None)
    resnet.load_state_dict(network.encoder.state_dict(), strict=False)
    resnet.fc = torch.nn.Linear(512, 1)
    resnet.fc.weight.data = network.head.patch.weight.data.flatten(1)
    resnet.fc.bias.data = network.head.patch.bias.data
    films = (FILMS / 255).expand(-1, 3, -1, -1)
    with torch.no_grad():
        found, expected = network(FILMS), resnet.eval()(films)[:, 0]
        assert torch.allclose(found.presence, expected, atol=1e-5)
        features = network.encoder(films)[-1]
        activation = torch.einsum("nchw,c->nhw", features, resnet.fc.weight[0]) + resnet.fc.bias
        assert activation.shape == (2, 3, 2)
        as_large = F.interpolate(activation[:, None], (96, 64), mode="bilinear")
        assert torch.allclose(found.mask, as_large, atol=1e-5)


def test_a_film_is_as_positive_as_its_most_positive_patch_unless_chosen_otherwise():
    network = network_of(Architecture.mil)
    with torch.no_grad():
        found = network(FILMS)
        patches = network.head.patch(network.encoder((FILMS / 255).expand(-1, 3, -1, -1))[-1])
    assert torch.allclose(found.presence, patches.flatten(1).max(1).values, atol=1e-5)
    assert found.mask.shape == (2, 1, 96, 64)


def test_mean_pooling_makes_a_classifier():
    classifier, mean = (
        network_of(Architecture.classifier),
        network_of(Architecture.mil, Pooling.mean),
    )
    with torch.no_grad():
        for one, other in zip(classifier(FILMS), mean(FILMS), strict=True):
            assert torch.equal(one, other)


LOGITS = torch.tensor([[-2.0, 0.5, 1.0, -4.0], [-9.0, -9.0, -9.0, -8.0]], dtype=torch.float64)


def test_noisy_or_is_positive_unless_every_patch_is_negative():
    expected = (1 - (1 - LOGITS.sigmoid()).prod(1)).logit()
    assert pooled(LOGITS, Pooling.noisy_or).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("level", [-200.0, -30.0, -4.6, 0.0, 200.0])
def test_noisy_or_and_its_slope_stay_finite(level):
    patches = torch.full((1, 1024), level, requires_grad=True)
    found = pooled(patches, Pooling.noisy_or)
    found.sum().backward()
    assert patches.grad.isfinite().all()
    s = 1024 * math.log1p(math.exp(level)) if level < 100 else 1024 * level
    expected = math.log(math.expm1(s)) if s < 700 else s
    assert found.item() == pytest.approx(max(expected, math.log(1e-30)), rel=1e-5)


def test_log_sum_exp_lies_between_the_mean_and_the_largest():
    found = pooled(LOGITS, Pooling.lse)
    expected = (5 * LOGITS).exp().mean(1).log() / 5
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert (found > pooled(LOGITS, Pooling.mean)).all()
    assert (found < pooled(LOGITS, Pooling.max)).all()


def test_a_noisy_or_starts_undecided_and_not_surely_positive():
    torch.manual_seed(0)
    head = patchwise("resnet18", Pooling.noisy_or).segmentation_head
    features = 0.1 * torch.rand(4, 512, 8, 8)
    presence = head(features, (256, 256))[1]
    assert (presence.sigmoid() < 0.9).all()
    assert (presence.sigmoid() > 0.1).all()


@pytest.mark.parametrize("pooling", list(Pooling))
def test_labels_of_films_move_every_weight(pooling):
    """A weight without a gradient would stop a fit on several devices."""
    network = network_of(Architecture.mil, pooling).train()
    network(FILMS).presence.sum().backward()
    assert [name for name, one in network.named_parameters() if one.grad is None] == []
    assert {name.partition(".")[0] for name in network.state_dict()} == {"encoder", "head"}


def test_without_a_presence_head_they_could_not_learn():
    for family in (Architecture.classifier, Architecture.mil):
        with pytest.raises(PneumoError, match=rf"model\.presence=false.*{family.name}"):
            Model("x", family)


def test_only_multiple_instances_choose_their_pooling():
    with pytest.raises(PneumoError, match=r"model\.pooling=lse.*only mil"):
        Model("x", Architecture.classifier, presence=True, pooling=Pooling.lse)
