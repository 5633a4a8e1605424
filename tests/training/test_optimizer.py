"""Groups of parameters, decay, freezing."""

from types import SimpleNamespace

import pytest
import torch

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
