"""Networks that learn from labels of whole films: each place of a map is a patch with a logit.

Of Gooßen et al., "Deep learning for pneumothorax detection and localization in chest radiographs"
(2019, arXiv:1907.07324), the abstract is what was at hand: they compare a convolutional network, a
multiple-instance network and a fully convolutional one on 1,003 films (areas under the ROC curve
.96, .93 and .92). What follows from it here is assumed, not theirs:

- ``architecture=classifier``, their first kind: global average pooling and one linear layer. Its
  class activation map (Zhou et al. 2016, section 2) is that layer at each place.
- ``architecture=mil``, their second: the places of an encoder's last map are the instances, and
  ``model.pooling`` makes a film of them. By default its largest, the standard assumption that a bag
  is positive if one instance is (Dietterich et al. 1997, whom they cite).
- Their third learns from masks; ``architecture=unet`` with ``presence=false`` is of that kind.
"""

import math

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pneumo.training.albunet import Parts
from pneumo.training.options import Pooling

LSE_SHARPNESS = 5.0  # 0 would make it the mean, infinity the largest
NOISY_OR_START = 0.01  # a patch's probability at first; at 1/2, any film would be surely positive


def patchwise(encoder_name: str, pooling: Pooling) -> Parts:
    """An encoder and a ``PatchHead`` on its last map, with random weights."""
    encoder = smp.encoders.get_encoder(encoder_name, in_channels=3, weights=None)
    return Parts(encoder, nn.Identity(), PatchHead(encoder.out_channels[-1], pooling))


class PatchHead(nn.Module):
    """One linear layer at each place of a map, and the pooling of its logits to one of the film."""

    def __init__(self, channels: int, pooling: Pooling):
        super().__init__()
        self.pooling = pooling
        self.patch = nn.Conv2d(channels, 1, 1)
        if pooling is Pooling.noisy_or and self.patch.bias is not None:
            nn.init.constant_(self.patch.bias, math.log(NOISY_OR_START / (1 - NOISY_OR_START)))

    def forward(self, features: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """A map (N, C, h, w) → logits of the mask, (N, 1, *size), and of presence, (N,)."""
        patches = self.patch(features)
        mask = F.interpolate(patches, size, mode="bilinear")
        return mask, pooled(patches.flatten(1), self.pooling)


def pooled(patches: Tensor, pooling: Pooling) -> Tensor:
    """Logits of patches, (N, patches) → of films, (N,), in single precision."""
    logits = patches.float()
    match pooling:
        case Pooling.mean:
            return logits.mean(1)
        case Pooling.max:
            return logits.amax(1)
        case Pooling.lse:
            # (1 / r) log mean exp(r x), Pinheiro & Collobert 2015, equation 1
            total = torch.logsumexp(LSE_SHARPNESS * logits, 1)
            return (total - math.log(logits.shape[1])) / LSE_SHARPNESS
        case Pooling.noisy_or:
            # no patch is positive with probability exp(-s), so the film's logit is log(exp(s) - 1)
            s = F.softplus(logits).sum(1)
            # log(s) + s / 2 is that to 4e-6 where the difference would lose its digits
            least = s.clamp(min=0.01)
            large = least + torch.log1p(-torch.exp(-least))
            return torch.where(s < 0.01, torch.log(s.clamp(min=1e-30)) + s / 2, large)
