"""Groups of parameters, decay, freezing."""

from types import SimpleNamespace

import pytest
import torch

from pneumo.errors import PneumoError
from pneumo.training import optimizer
from pneumo.training.module import SegmentationModule
from pneumo.training.network import build_network
from pneumo.training.options import AdamW, Model, Optimizer


@pytest.fixture
def network():
    return build_network(Model("x", encoder_weights="none"))


def test_the_papers_adam_is_torchs_over_all_parameters(network):
    one = optimizer.build(Optimizer(), network, 1e-3)
    assert type(one) is torch.optim.Adam
    (group,) = one.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in network.parameters()]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 0, (0.9, 0.999))


def test_the_encoder_learns_at_a_rate_of_its_own(network):
    one = optimizer.build(Optimizer(encoder_lr=0.1), network, 1e-3)
    rates = {id(p): group["lr"] for group in one.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = 1e-4 if name.startswith("encoder.") else 1e-3
        assert rates[id(parameter)] == pytest.approx(expected), name


def test_adamw_decays_weights_but_neither_biases_nor_norms(network):
    one = optimizer.build(AdamW(weight_decay=0.05), network, 1e-3)
    assert type(one) is torch.optim.AdamW
    decays = {id(p): group["weight_decay"] for group in one.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert decays[id(parameter)] == (0.05 if parameter.ndim > 1 else 0), name


def test_a_frozen_encoder_stays_as_it_is(network):
    config = SimpleNamespace(optimizer=AdamW(freeze_encoder=True))
    before = {key: value.clone() for key, value in network.encoder.state_dict().items()}
    head = network.head[0].weight.detach().clone()
    module = SegmentationModule(network, config, steps=1).train()
    one = optimizer.build(config.optimizer, network, 1e-2)
    films = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    module.network(films).mask.square().mean().backward()
    one.step()
    for key, value in network.encoder.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not torch.equal(head, network.head[0].weight)
    assert network.decoder.training


def rates_of(config, encoder):
    """The rate of each parameter of a U-Net, and the groups it was told by."""
    network = build_network(Model("x", encoder=encoder, encoder_weights="none"))
    one = optimizer.build(config, network, 1e-3)
    rates = {id(p): group["lr"] for group in one.param_groups for p in group["params"]}
    assert one.param_groups[0]["lr"] == 1e-3  # what is shown as the learning rate
    return {name: rates[id(parameter)] for name, parameter in network.named_parameters()}


# one parameter of each stage, and by how many halvings its rate lies below the decoder's
DEPTHS = {
    "resnet18": {
        "encoder.conv1.weight": 5,
        "encoder.bn1.weight": 5,
        "encoder.layer1.0.conv1.weight": 4,
        "encoder.layer2.0.downsample.0.weight": 3,
        "encoder.layer3.1.bn2.bias": 2,
        "encoder.layer4.1.conv2.weight": 1,
    },
    "tu-convnext_atto": {
        "encoder.model.stem_0.weight": 5,
        "encoder.model.stem_1.bias": 5,
        "encoder.model.stages_0.blocks.1.gamma": 4,
        "encoder.model.stages_1.downsample.0.weight": 3,
        "encoder.model.stages_2.blocks.5.mlp.fc1.weight": 2,
        "encoder.model.stages_3.blocks.0.conv_dw.weight": 1,
    },
    "tu-tf_efficientnet_lite0": {
        "encoder.model.conv_stem.weight": 8,
        "encoder.model.blocks.0.0.conv_dw.weight": 7,
        "encoder.model.blocks.6.0.conv_pwl.weight": 1,
    },
}


@pytest.mark.parametrize("encoder", DEPTHS)
def test_stages_nearer_the_input_learn_more_slowly(encoder):
    rates = rates_of(AdamW(layer_decay=0.5, encoder_lr=0.1), encoder)
    for name, depth in DEPTHS[encoder].items():
        assert rates[name] == pytest.approx(1e-4 * 0.5**depth), name
    apart = [name for name in rates if not name.startswith("encoder.")]
    assert {rates[name] for name in apart} == {1e-3}
    assert len({rate for name, rate in rates.items() if name not in apart}) == max(
        DEPTHS[encoder].values()
    )


def test_an_encoder_whose_stages_are_not_known_is_refused():
    with pytest.raises(PneumoError, match=r"layer_decay=0\.5: the stages of this encoder are not"):
        rates_of(Optimizer(layer_decay=0.5), "vgg11")


def test_blocks_that_are_numbered_through_are_no_stages():
    """smp's EfficientNet-b3 has 26, so its stem would hardly learn."""
    network = build_network(Model("unet", encoder="efficientnet-b3"), pretrained=False)
    with pytest.raises(PneumoError, match=r"optimizer\.layer_decay=0\.8.*are not known"):
        optimizer.build(AdamW(layer_decay=0.8), network, 1e-3)
