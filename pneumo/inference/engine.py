"""What runs a network: films in, probabilities out. PyTorch or ONNX Runtime; flip averaging."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pneumo.errors import PneumoError, brief
from pneumo.pool import cores
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


class Pace(NamedTuple):
    """How films are put to a network: ``batch`` at a time, ``lanes`` batches at once."""

    batch: int
    lanes: int
    machine: Machine  # for the network: its threads are those of one lane


def pace(engine: str, machine: Machine, batch: int, alone: bool = False) -> Pace:
    """How many films a network does best at once; ``engine`` as for ``bundle.load``.

    A CPU does as many single films as it has cores, at most four for the memory they take: threads
    that share a film wait for one another, and batches gain nothing there. A film that is
    ``alone`` gets all threads.
    """
    if engine != "onnx" and (lanes := lanes_of(machine)):
        return Pace(batch, lanes, machine)
    if alone:
        return Pace(1, 1, machine)
    threads = machine.threads or cores()
    lanes = min(threads, 4)
    return Pace(1, lanes, dataclasses.replace(machine, threads=threads // lanes))


def lanes_of(machine: Machine) -> int:
    """How many batches are on their way to torch's device at once, so that it need not wait.

    0 of a CPU, which has nothing to wait for. Raises PneumoError if there is no such device.
    """
    from pneumo.training.device import torch_device

    return {"cpu": 0, "cuda": 2}.get(torch_device(machine).type, 1)


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
            x = torch.from_numpy(np.ascontiguousarray(films))[:, None]
            if device.type == "cuda":
                x = x.pin_memory()  # the copy then need not wait for another lane's work
            mask, presence = probabilities(network(x.to(device, non_blocking=True)))
            told = None if presence is None else _fetched(presence)
            return Probabilities(_fetched(mask[:, 0]), told)

    return run


def _fetched(values: Any) -> np.ndarray:
    """A tensor as an array. From CUDA it comes through locked pages, which is several times as
    fast, and without waiting for what other lanes have put behind it.
    """
    import torch

    if values.device.type != "cuda":
        return values.cpu().numpy()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record()
    done.synchronize()
    return host.numpy()


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
