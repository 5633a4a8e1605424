"""Model settings → network. segmentation-models-pytorch and timm underneath."""

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from pneumo.errors import PneumoError, brief
from pneumo.training.settings import Model, Stem
from pneumo.training.weights import load_encoder


class Network(nn.Module):
    """U-Net that takes films as they are stored and gives logits.

    Input uint8 (or float 0 to 255), (N, 1, H, W); output float (N, 1, H, W). Grey levels are scaled to [0, 1], then
    ``(x - mean) / std`` (the paper: none), then made three channels, all on the network's device.
    """

    def __init__(self, config: Model):
        super().__init__()
        self.mean, self.std = config.mean, config.std
        self.stem = nn.Conv2d(1, 3, kernel_size=3, padding=1) if config.stem is Stem.conv else None
        try:
            self.unet = smp.Unet(config.encoder, encoder_weights=None, in_channels=3, classes=1)
        except (KeyError, ValueError) as error:
            raise PneumoError(
                f"model.encoder={config.encoder}: segmentation-models-pytorch has no such encoder ({brief(error)})"
            ) from None

    def forward(self, films: Tensor) -> Tensor:
        """Films → logits, see the class."""
        x = (films.float() / 255 - self.mean) / self.std
        x = self.stem(x) if self.stem is not None else x.expand(-1, 3, -1, -1)
        return self.unet(x.contiguous(memory_format=torch.channels_last))


def build_network(config: Model, pretrained: bool = True) -> Network:
    """The network, with the encoder weights of ``config`` if ``pretrained`` (not needed when all weights will be loaded).

    Raises PneumoError if they cannot be had: random weights are never a silent stand-in.
    """
    network = Network(config)
    if pretrained and config.encoder_weights != "none":
        load_encoder(network.unet.encoder, config)
    return network.to(memory_format=torch.channels_last)
