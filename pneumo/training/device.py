"""Which device does the work."""

import torch

from pneumo.errors import PneumoError
from pneumo.settings import Machine


def torch_device(machine: Machine) -> torch.device:
    """The device of ``machine.accelerator``. Raises PneumoError if this machine has none."""
    names = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    wanted = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(
        machine.accelerator, (machine.accelerator,)
    )
    for name in wanted:
        if names[name]:
            return torch.device(name)
    raise PneumoError(f"machine.accelerator={machine.accelerator}: not on this machine")
