"""What runs a network: films in, probabilities out. PyTorch or ONNX Runtime; flip averaging."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pneumo.errors import PneumoError, brief
from pneumo.settings import Machine
from pneumo.training.options import Model

# films uint8 (n, size, size) → probabilities float32, same shape
Engine = Callable[[np.ndarray], np.ndarray]


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

    def run(films: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(films))[:, None].to(device)
            return probabilities(network(x)).mask[:, 0].cpu().numpy()

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

    def run(films: np.ndarray) -> np.ndarray:
        films = np.ascontiguousarray(films)[:, None]
        return np.asarray(session.run(None, {"films": films})[0])[:, 0]

    return run


def with_flip(engine: Engine, films: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of films, and their mean with those of the mirror images, mirrored back.

    Flip TTA (paper, section "Testing"). Films uint8 (n, size, size); two arrays float32 like them.
    """
    plain, mirrored = np.split(engine(np.concatenate([films, films[..., ::-1]])), 2)
    return plain, (plain + mirrored[..., ::-1]) / 2


def to_levels(probability: np.ndarray) -> np.ndarray:
    """Probabilities → levels of 1/255, uint8, rounded."""
    return (probability * 255).round().astype(np.uint8)
