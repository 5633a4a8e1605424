"""What runs a network: films in, probabilities out. PyTorch or ONNX Runtime; flip averaging."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pneumo.errors import PneumoError, brief
from pneumo.settings import Machine
from pneumo.training.options import Model


class Probabilities(NamedTuple):
    """What is said of n films: float32 maps (n, size, size) and, of a network that tells it, (n,).

    ``presence`` is the probability that a film shows pneumothorax at all.
    """

    maps: np.ndarray
    presence: np.ndarray | None = None


# films uint8 (n, size, size) → what a network says of them
Engine = Callable[[np.ndarray], Probabilities]


def torch_engine(model: Model, weights: Path, key: str, machine: Machine) -> Engine:
    """A network with its weights on the machine's device.

    Raises PneumoError, which names ``key``, if they do not fit, or if there is no such device.
    """
    # torch takes seconds; whoever runs ONNX, or has the maps already, needs none
    import torch

    from pneumo.training.device import set_threads, torch_device
    from pneumo.training.network import build_network, probabilities
    from pneumo.training.weights import load_weights

    set_threads(machine)
    device = torch_device(machine)
    network = build_network(model, pretrained=False)
    load_weights(network, weights, key)
    network.eval().to(device)

    def run(films: np.ndarray) -> Probabilities:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(films))[:, None].to(device)
            mask, presence = probabilities(network(x))
            told = None if presence is None else presence.cpu().numpy()
            return Probabilities(mask[:, 0].cpu().numpy(), told)

    return run


def onnx_engine(path: Path, machine: Machine) -> Engine:
    """An ONNX network on the CPU. Raises PneumoError."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise PneumoError("engine=onnx needs ONNX Runtime: pip install -e '.[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine.threads
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its exceptions share no base
        raise PneumoError(f"{path}: not an ONNX network that can be run ({brief(error)})") from None

    def run(films: np.ndarray) -> Probabilities:
        films = np.ascontiguousarray(films)[:, None]
        try:
            mask, *presence = map(np.asarray, session.run(None, {"films": films}))
        except Exception as error:  # its exceptions share no base
            raise PneumoError(f"{path}: this ONNX network fails ({brief(error)})") from None
        fits = mask.shape == films.shape and all(one.shape == (len(films),) for one in presence)
        if not fits or mask.dtype != np.float32:
            raise PneumoError(
                f"{path}: not an ONNX network of this project ({mask.shape} of films)"
            )
        return Probabilities(mask[:, 0], presence[0] if presence else None)

    return run


def mean_of(engines: Sequence[Engine]) -> Engine:
    """Several networks as one: the mean of their maps, and of the presence of those that tell it.

    The mean of maps, not of weights: the networks may lie anywhere.
    """

    def run(films: np.ndarray) -> Probabilities:
        each = [engine(films) for engine in engines]
        told = [one.presence for one in each if one.presence is not None]
        maps = np.mean([one.maps for one in each], axis=0)
        return Probabilities(maps, np.mean(told, axis=0) if told else None)

    return run if len(engines) > 1 else engines[0]


def with_flip(engine: Engine, films: np.ndarray) -> tuple[Probabilities, Probabilities]:
    """Probabilities of films, and their mean with those of the mirror images, mirrored back.

    Flip TTA (paper, section "Testing") of maps and of presence. Films uint8 (n, size, size).
    """
    maps, presence = engine(np.concatenate([films, films[..., ::-1]]))
    plain, mirrored = np.split(maps, 2)
    both = (plain + mirrored[..., ::-1]) / 2
    if presence is None:
        return Probabilities(plain), Probabilities(both)
    own, others = np.split(presence, 2)
    return Probabilities(plain, own), Probabilities(both, (own + others) / 2)


def to_levels(probability: np.ndarray) -> np.ndarray:
    """Probabilities → levels of 1/255, uint8, rounded."""
    return (probability * 255).round().astype(np.uint8)
