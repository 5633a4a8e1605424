"""Optimizer settings → optimizer, with its groups of parameters."""

from typing import Any

import torch
from torch import nn

from pneumo.training.network import Network
from pneumo.training.options import AdamW, Optimizer


def build(config: Optimizer, network: Network, lr: float) -> torch.optim.Optimizer:
    """Adam or AdamW; parameters that are frozen have no gradient, and stay.

    Settings that ask for nothing special give one group, as the paper's recipe has it. Else the
    encoder has a learning rate of its own, and AdamW leaves biases and norms without decay.
    """
    groups = _groups(config, network, lr)
    if isinstance(config, AdamW):
        return torch.optim.AdamW(groups, lr=lr, weight_decay=config.weight_decay, fused=True)
    return torch.optim.Adam(groups, lr=lr, weight_decay=config.weight_decay, fused=True)


def _groups(config: Optimizer, network: Network, lr: float) -> list[dict[str, Any]]:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        encoder = name.startswith("encoder.")
        decays = not isinstance(config, AdamW) or parameter.ndim > 1
        rate = lr * config.encoder_lr if encoder else lr
        decay = config.weight_decay if decays else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
