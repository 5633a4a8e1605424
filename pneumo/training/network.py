"""Model settings → network. segmentation-models-pytorch and timm underneath."""

from difflib import get_close_matches
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

from pneumo.errors import PneumoError, brief
from pneumo.training.albunet import albunet
from pneumo.training.options import Architecture, Attention, BatchNorm, Model, Pooling, Stem
from pneumo.training.patches import PatchHead, patchwise
from pneumo.training.weights import load_encoder


class Output(NamedTuple):
    """What a network says of N films: logits from ``forward``, or what ``probabilities`` makes."""

    mask: Tensor  # (N, 1, H, W)
    presence: Tensor | None = None  # (N,), if the network has that head


class Network(nn.Module):
    """Takes films as they are stored and gives logits.

    Input uint8 (or float 0 to 255), (N, 1, H, W); ``Output`` of the same height and width. Grey
    levels are scaled to [0, 1], then ``(x - mean) / std`` (the paper: none) of all channels or of
    each, then made three channels, all on the network's device.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Model):
        super().__init__()
        for key in ("mean", "std"):  # of one channel or three; no part of the weights
            value = torch.tensor(getattr(config, key)).reshape(1, -1, 1, 1)
            self.register_buffer(key, value, persistent=False)
        side = config.stem_kernel
        learned = config.stem is Stem.conv
        self.stem = nn.Conv2d(1, 3, side, padding=side // 2) if learned else None
        body = _body(config)
        self.encoder, self.decoder, self.head = body.encoder, body.decoder, body.segmentation_head
        channels = body.encoder.out_channels[-1]
        own_head = config.presence and not isinstance(self.head, PatchHead)
        self.presence = nn.Linear(channels, 1) if own_head else None
        _set_batch_norm(self, config.batch_norm)

    def forward(self, films: Tensor) -> Output:
        """Films → logits, see the class."""
        x = (films.float() / 255 - self.mean) / self.std
        x = self.stem(x) if self.stem is not None else x.expand(-1, 3, -1, -1)
        features = self.encoder(x.contiguous(memory_format=torch.channels_last))
        if isinstance(self.head, PatchHead):
            return Output(*self.head(features[-1], films.shape[-2:]))
        mask = self.head(self.decoder(features))
        if self.presence is None:
            return Output(mask)
        return Output(mask, self.presence(features[-1].mean((2, 3)))[:, 0])


def probabilities(logits: Output) -> Output:
    """Logits → probabilities in [0, 1], single precision."""
    presence = None if logits.presence is None else logits.presence.float().sigmoid()
    return Output(logits.mask.float().sigmoid(), presence)


def build_network(config: Model, pretrained: bool = True) -> Network:
    """The network, with the encoder weights of ``config`` if ``pretrained``.

    They are not needed when all weights will be loaded. Raises PneumoError if they cannot be had:
    random weights are never a silent stand-in.
    """
    network = Network(config)
    if pretrained and config.encoder_weights != "none":
        load_encoder(network.encoder, config)
    return network.to(memory_format=torch.channels_last)


def check_network(config: Model) -> None:
    """Raise PneumoError for a network that cannot be built; takes neither memory nor data."""
    with torch.device("meta"):
        Network(config)


def batch_norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch-norm layer of a network."""
    kind = nn.modules.batchnorm._BatchNorm
    return [layer for layer in network.modules() if isinstance(layer, kind)]


def _set_batch_norm(network: nn.Module, config: BatchNorm) -> None:
    """Give every batch-norm layer what the settings say of it."""
    for layer in batch_norms(network):
        if config.momentum is not None:
            layer.momentum = config.momentum
        if config.eps is not None:
            layer.eps = config.eps


def _body(config: Model) -> Any:
    """Encoder, decoder and segmentation head of a family."""
    options = {"encoder_weights": None, "in_channels": 3, "classes": 1}
    attends = config.decoder_attention is not Attention.none
    attention = config.decoder_attention.value if attends else None
    try:
        match config.architecture:
            case Architecture.unet:
                return smp.Unet(config.encoder, decoder_attention_type=attention, **options)
            case Architecture.unetplusplus:
                return smp.UnetPlusPlus(config.encoder, decoder_attention_type=attention, **options)
            case Architecture.fpn:
                return smp.FPN(config.encoder, **options)
            case Architecture.deeplabv3plus:
                return smp.DeepLabV3Plus(config.encoder, **options)
            case Architecture.albunet:
                return albunet(config.encoder)
            case Architecture.classifier:
                return patchwise(config.encoder, Pooling.mean)
            case Architecture.mil:
                return patchwise(config.encoder, config.pooling)
    # timm raises RuntimeError for a name that it does not know
    except (KeyError, ValueError, RuntimeError) as error:
        near = (
            []
            if config.encoder in (known := _encoders())
            else get_close_matches(config.encoder, known)
        )
        hint = f"did you mean {' or '.join(near)}?" if near else brief(error)
        raise PneumoError(
            f"model.encoder={config.encoder}: not an encoder that segmentation-models-pytorch "
            f"offers for model.architecture={config.architecture.name}; {hint}"
        ) from None


def _encoders() -> list[str]:
    """What ``model.encoder`` may be: names of segmentation-models-pytorch, and of timm."""
    return [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]
