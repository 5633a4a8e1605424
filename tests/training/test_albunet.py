"""AlbuNet by its released structure, with torchvision's ResNet-34 in place of ours."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from pneumo.training.albunet import albunet

# of the released network, num_filters 32: channels in and out of each convolution after the encoder
CONVOLUTIONS = [
    *((512, 512), (512, 256)),  # centre
    *((512 + 256, 512), (512, 256)),
    *((256 + 256, 512), (512, 256)),
    *((128 + 256, 256), (256, 64)),
    *((64 + 64, 128), (128, 128)),
    *((128, 128), (128, 32)),
    (32, 32),
]


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    found = albunet("resnet34")
    for layer in found.decoder.modules():
        if isinstance(layer, nn.Conv2d):  # weights by which a film changes the result
            nn.init.kaiming_normal_(layer.weight)
    found.encoder.eval()
    return found


def test_its_decoder_has_the_released_convolutions_and_no_batch_norm(parts):
    found = [layer for layer in parts.decoder.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in found] == CONVOLUTIONS
    assert {layer.kernel_size for layer in found} == {(3, 3)}
    kinds = {type(layer).__name__ for layer in parts.decoder.modules()}
    assert kinds == {"AlbuNetDecoder", "ModuleList", "Sequential", "Conv2d", "ReLU"}
    assert (parts.segmentation_head.in_channels, parts.segmentation_head.out_channels) == (32, 1)


def test_it_gives_what_the_released_structure_gives(parts):
    """Both poolings take 2 × 2 pixels, and the map of half the side is not joined."""
    resnet = torchvision.models.resnet34(weights=None)
    resnet.load_state_dict(parts.encoder.state_dict(), strict=False)
    resnet.eval()
    films = torch.rand(2, 3, 128, 64)
    layers = [layer for layer in parts.decoder.modules() if isinstance(layer, nn.Conv2d)]

    def step(x, number):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = layers[2 * number](x).relu()
        return layers[2 * number + 1](x).relu()

    with torch.no_grad():
        x = F.max_pool2d(resnet.bn1(resnet.conv1(films)).relu(), 2, 2)
        maps = []
        for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
            x = stage(x)
            maps.insert(0, x)
        x = step(F.max_pool2d(x, 2, 2), 0)
        for number, skip in enumerate(maps, 1):
            x = step(torch.cat([x, skip], 1), number)
        expected = layers[-1](step(x, 5)).relu()
        found = parts.decoder(parts.encoder(films))
    assert expected.std() > 0.01
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [32, 96, 160])
def test_sides_that_only_32_divides_fit_too(parts, side):
    with torch.no_grad():
        found = parts.decoder(parts.encoder(torch.rand(1, 3, side, side)))
    assert found.shape == (1, 32, side, side)
