"""Optimizer settings → optimizer, with its groups of parameters."""

import re
from typing import Any

import torch
from torch import nn

from pneumo.errors import PneumoError
from pneumo.training.network import Network
from pneumo.training.options import AdamW, Optimizer

# how encoders call their stages: ResNets layer1.…, timm's ConvNeXt model.stages_0.…, EfficientNets
# blocks.0.…, DenseNets features.denseblock1.…, Swin layers_0.…
STAGE = re.compile(r"(?:model\.|features\.)*(?:layers?|stages|_?blocks?|denseblock)[._]?\d+(?=\.)")

LEAST, MOST = 3, 8  # stages; blocks numbered through, as EfficientNet-b3's 26 of smp, are none


def build(config: Optimizer, network: Network, lr: float) -> torch.optim.Optimizer:
    """Adam or AdamW; parameters that are frozen have no gradient, and stay.

    Settings that ask for nothing special give one group, as the paper's recipe has it. Else the
    encoder, or each of its stages, has a learning rate of its own, and AdamW leaves biases and
    norms without decay.
    """
    groups = _groups(config, network, lr)
    if isinstance(config, AdamW):
        return torch.optim.AdamW(groups, lr=lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.Adam(groups, lr=lr, weight_decay=config.weight_decay, fused=True)


def _groups(config: Optimizer, network: Network, lr: float) -> list[dict[str, Any]]:
    """Groups of equal rate and decay; with ``layer_decay``, those of the full rate come first."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    depths = _depths(config, network.encoder)
    for name, parameter in network.named_parameters():
        encoder = name.startswith("encoder.")
        decays = not isinstance(config, AdamW) or parameter.ndim > 1
        rate = lr
        if encoder:
            rate *= config.encoder_lr * config.layer_decay ** depths[name.removeprefix("encoder.")]
        decay = config.weight_decay if decays else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    order = sorted(groups, key=lambda group: group[0] != lr) if config.layer_decay < 1 else groups
    return [{"params": groups[group], "lr": group[0], "weight_decay": group[1]} for group in order]


def _depths(config: Optimizer, encoder: nn.Module) -> dict[str, int]:
    """How many stages lie from an encoder's output to each of its parameters, its own included.

    The last stage has depth 1, and what comes before the first stage, the stem, one more than that:
    with ResNets, which call their stages layers, 1 to 4 and 5. Decoder and heads would have depth
    0, as the head of a classifier has in BEiT and ConvNeXt (Bao et al. 2022, appendix; Liu et al.
    2022, appendix A). What stands between two stages belongs to the one before it.
    """
    names = [name for name, _ in encoder.named_parameters()]
    if config.layer_decay == 1:
        return dict.fromkeys(names, 0)
    stages: list[str] = []
    places: dict[str, int] = {}
    for name in names:
        stage = STAGE.match(name)
        if stage and stage[0] not in stages:
            stages.append(stage[0])
        places[name] = len(stages)
    if not LEAST <= len(stages) <= MOST:
        raise PneumoError(
            f"optimizer.layer_decay={config.layer_decay}: the stages of this encoder are not known "
            f"(its first parameter is {names[0]}); use optimizer.encoder_lr, which holds for all"
        )
    return {name: len(stages) + 1 - place for name, place in places.items()}
