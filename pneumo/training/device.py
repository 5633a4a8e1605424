"""Which device does the work, with what precision, on how many threads. Chosen here only."""

import torch

from pneumo.errors import PneumoError
from pneumo.settings import Machine


def torch_device(machine: Machine) -> torch.device:
    """The device of ``machine.accelerator``. Raises PneumoError if this machine has none."""
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    choices = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}
    for name in choices.get(machine.accelerator, (machine.accelerator,)):
        if here[name]:
            return torch.device(name)
    raise PneumoError(f"machine.accelerator={machine.accelerator}: not on this machine")


def uses_cuda(machine: Machine) -> bool:
    """Whether the work is done on a CUDA device."""
    return torch_device(machine).type == "cuda"


def check_devices(machine: Machine) -> None:
    """Raise PneumoError if this machine has fewer devices than ``machine.devices``.

    On a CPU that is a number of processes, so any will do.
    """
    kind = torch_device(machine).type
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, machine.devices)
    if machine.devices > count:
        raise PneumoError(
            f"machine.devices={machine.devices}: this machine has {count} of {kind}; use fewer, or "
            "machine.accelerator=cpu"
        )


def device_name(machine: Machine) -> str:
    """A short name for records: cpu, mps, or what CUDA calls the GPU."""
    device = torch_device(machine)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def precision(machine: Machine) -> str:
    """Lightning's name of the precision: bf16-mixed on a GPU that has it, unless told otherwise."""
    if machine.precision != "auto":
        return machine.precision
    return "bf16-mixed" if uses_cuda(machine) and torch.cuda.is_bf16_supported() else "32-true"


def set_for_training() -> None:
    """Set torch's switches for training, whatever the machine."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    # Deterministic algorithms would also fill every new tensor with NaN, against programs that read
    # memory before they write it. No layer does, and it costs a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def set_threads(machine: Machine) -> None:
    """Limit torch's threads on the CPU, if ``machine.threads`` says how many."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
