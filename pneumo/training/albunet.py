"""AlbuNet, the U-Net of the challenge's winner: no batch norm in its decoder."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# channels after the two convolutions of each step, the centre first
STEPS = [(512, 256), (512, 256), (512, 256), (256, 64), (128, 128), (128, 32)]
JOINED = 4  # so many maps of the encoder are seen again: none larger than a quarter of the side


class Parts(NamedTuple):
    """A network's parts, by the names of segmentation-models-pytorch."""

    encoder: Any
    decoder: nn.Module
    segmentation_head: nn.Module


def albunet(encoder_name: str) -> Parts:
    """AlbuNet with random weights, which fits any side that is a multiple of 32.

    By A. Buslaev; in Shvets et al., "Angiodysplasia detection and localization using deep
    convolutional neural networks" (2018), as sneddy trained it:
    https://github.com/sneddy/pneumothorax-segmentation, ternausnets.py. A ResNet's first pooling
    takes the largest of 2 × 2 pixels there, not of 3 × 3; encoders of other kinds keep theirs.
    """
    encoder: Any = smp.encoders.get_encoder(encoder_name, in_channels=3, weights=None)
    if isinstance(encoder, smp.encoders.resnet.ResNetEncoder):
        encoder.maxpool = nn.MaxPool2d(2)
    return Parts(encoder, AlbuNetDecoder(encoder.out_channels), nn.Conv2d(STEPS[-1][-1], 1, 1))


class AlbuNetDecoder(nn.Module):
    """A centre below the encoder's last map, and five steps up from there to the film's side.

    Takes the encoder's maps, the film first, each of half the side of the one before. Gives
    (N, 32, H, W).
    """

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        joined = [*reversed(channels[-JOINED:]), 0, 0]
        steps, width = [], channels[-1]
        for (middle, out), more in zip(STEPS, joined, strict=True):
            steps.append(nn.Sequential(*_conv(width, middle), *_conv(middle, out)))
            width = out + more
        self.steps = nn.ModuleList(steps)
        self.last = nn.Sequential(*_conv(width, width))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps of the encoder → a map of the film's side, see the class."""
        x = F.max_pool2d(features[-1], 2, ceil_mode=True)
        for number, (step, feature) in enumerate(zip(self.steps, reversed(features), strict=True)):
            # twice the side, except that an odd side of the encoder's last map is met
            x = step(F.interpolate(x, feature.shape[-2:], mode="bilinear"))
            if number < JOINED:
                x = torch.cat([x, feature], 1)
        return self.last(x)


def _conv(before: int, after: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)
