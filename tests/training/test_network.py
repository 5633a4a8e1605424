import pytest
import torch
from conftest import slow_but
from hydra import compose, initialize_config_dir
from torchvision.transforms.functional import normalize

from pneumo.errors import PneumoError
from pneumo.settings import CONF, options_of
from pneumo.training.network import Network, build_network, probabilities
from pneumo.training.options import (
    LABELLED_BY_FILM,
    Architecture,
    Attention,
    BatchNorm,
    Model,
    Stem,
)
from pneumo.training.settings import load_config

RANDOM = Model("unet_resnet34", encoder_weights="none")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(RANDOM).eval()


def test_the_papers_network(network):
    assert 24.4e6 < sum(p.numel() for p in network.parameters()) < 24.5e6
    blocks = network.decoder.blocks
    assert [block.conv1[0].out_channels for block in blocks] == [256, 128, 64, 32, 16]
    for block in blocks:
        assert [type(layer).__name__ for layer in block.conv1] == ["Conv2d", "BatchNorm2d", "ReLU"]
        assert block.conv1[0].kernel_size == block.conv2[0].kernel_size == (3, 3)


def test_bytes_in_logits_out(network):
    films = torch.randint(0, 256, (2, 1, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        logits = network(films).mask
        three = torch.cat([films] * 3, 1).float() / 255  # the paper: three equal channels in [0, 1]
        assert torch.allclose(
            logits, network.head(network.decoder(network.encoder(three))), atol=1e-5
        )
    assert logits.shape == (2, 1, 64, 96)


def test_each_channel_may_have_its_own_mean_and_std(network):
    """As torchvision normalises for ResNets: https://docs.pytorch.org/vision/stable/models.html"""
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    normed = build_network(Model("x", encoder_weights="none", mean=mean, std=std)).eval()
    normed.load_state_dict(network.state_dict())  # the statistics are no part of the weights
    film = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
    three = normalize(film.expand(-1, 3, -1, -1) / 255, mean, std)
    with torch.no_grad():
        expected = network.head(network.decoder(network.encoder(three)))
        assert torch.allclose(normed(film).mask, expected, atol=1e-4)


def test_exp1_has_a_learned_convolution():
    one = build_network(Model("x", encoder_weights="none", stem=Stem.conv))
    assert tuple(one.stem.weight.shape) == (3, 1, 1, 1)
    one(torch.zeros(2, 1, 32, 32, dtype=torch.uint8)).mask.sum().backward()
    assert one.stem.weight.grad is not None


def test_its_convolution_may_be_larger():
    one = build_network(Model("x", encoder_weights="none", stem=Stem.conv, stem_kernel=3))
    assert tuple(one.stem.weight.shape) == (3, 1, 3, 3)
    assert one(torch.zeros(2, 1, 32, 64, dtype=torch.uint8)).mask.shape == (2, 1, 32, 64)


def norms_of(network):
    kinds = (torch.nn.BatchNorm2d,)
    return [layer for layer in network.modules() if isinstance(layer, kinds)]


def test_batch_norm_moves_as_keras_does_where_asked():
    """Keras: moving = .99 moving + .01 batch; and 1e-3 is added to the variance."""
    keras = BatchNorm(momentum=0.01, eps=1e-3)
    one = build_network(Model("x", encoder_weights="none", batch_norm=keras)).train()
    first = norms_of(one)[0]
    seen = []
    first.register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0], output)))
    one(torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8))
    ((x, y),) = seen
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    assert torch.allclose(first.running_mean, 0.01 * mean, atol=1e-6)
    assert torch.allclose(first.running_var, 0.99 + 0.01 * variance, atol=1e-5)
    biased = x.var((0, 2, 3), unbiased=False)
    expected = (x - mean[:, None, None]) / (biased + 1e-3).sqrt()[:, None, None]
    assert torch.allclose(y, expected.relu(), atol=1e-4)  # the ReLU after it works in place
    assert {(layer.momentum, layer.eps) for layer in norms_of(one)} == {(0.01, 1e-3)}


def test_batch_norm_is_each_librarys_own_unless_asked(network):
    assert {(layer.momentum, layer.eps) for layer in norms_of(network)} == {(0.1, 1e-5)}
    of_tensorflow = Model("x", encoder="tu-tf_efficientnet_lite0", encoder_weights="none")
    encoder = build_network(of_tensorflow).encoder
    assert {(layer.momentum, layer.eps) for layer in norms_of(encoder)} == {(0.1, 1e-3)}


def test_unknown_encoder():
    with pytest.raises(PneumoError, match=r"model\.encoder=resnet35"):
        build_network(Model("x", encoder="resnet35", encoder_weights="none"))


@pytest.mark.parametrize("architecture", list(Architecture))
def test_every_family_gives_masks_of_the_films_size(architecture):
    one = build_network(Model("x", architecture, encoder_weights="none", presence=True)).eval()
    with torch.no_grad():
        output = one(torch.zeros(2, 1, 64, 64, dtype=torch.uint8))
    assert output.mask.shape == (2, 1, 64, 64)
    assert output.presence.shape == (2,)
    found = probabilities(output)
    assert torch.equal(found.mask, output.mask.sigmoid())
    assert torch.equal(found.presence, output.presence.sigmoid())
    parts = {key.partition(".")[0] for key in one.state_dict()}
    if architecture in LABELLED_BY_FILM:
        assert parts == {"encoder", "head"}
        return
    assert type(one.decoder).__name__.lower() == f"{architecture.name}decoder"
    assert parts == {"encoder", "decoder", "head", "presence"}


def test_an_unknown_encoder_is_named_with_its_family():
    with pytest.raises(PneumoError, match=r"model\.encoder=resnet35.*model\.architecture=fpn"):
        build_network(Model("x", Architecture.fpn, "resnet35", encoder_weights="none"))


QUICK = ("albunet_resnet34", "classifier_resnet50", "unet_resnet34", "unet_convnext_tiny")


@pytest.mark.parametrize("name", slow_but(QUICK, options_of("model")))
def test_every_network_that_is_offered_has_a_presence_head_where_asked(name):
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", ["+experiment=exp5", f"model={name}", "model.presence=true"])
    config = load_config(raw).model
    assert config.name == name
    with torch.device("meta"):  # shapes only
        output = Network(config)(torch.zeros(2, 1, 128, 128, dtype=torch.uint8))
    assert output.mask.shape == (2, 1, 128, 128)
    assert output.presence.shape == (2,)


def test_scse_adds_up_what_channels_and_pixels_excite():
    """Roy et al. 2018: x times a weight of each channel, plus x times a weight of each pixel."""
    scse = Model("x", encoder="resnet18", encoder_weights="none")
    scse.decoder_attention = Attention.scse
    one = build_network(scse).eval()
    attention = one.decoder.blocks[4].attention2
    seen = []
    attention.register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        one(torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8))
        ((x, y),) = seen
        channel, pixel = attention.attention.children()
        assert torch.allclose(y, x * channel(x) + x * pixel(x))
    assert channel(x).shape == (1, 16, 1, 1)
    assert pixel(x).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("encoder", ["resnet34", "tu-tf_efficientnet_b3.aa_in1k"])
@pytest.mark.parametrize("architecture", [Architecture.unet, Architecture.albunet])
def test_every_weight_learns(architecture, encoder):
    """One without a gradient would stop a fit on several devices."""
    model = Model("x", architecture, encoder, encoder_weights="none", presence=True)
    one = build_network(model)
    output = one(torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8))
    (output.mask.sum() + output.presence.sum()).backward()
    assert [name for name, weight in one.named_parameters() if weight.grad is None] == []
