"""Pneumothorax segmentation in chest X-rays.

Importing it loads no torch and reaches for no network.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pneumo.inference.model import LoadedModel

__version__ = "0.1.0"


def load_model(
    folder: str | Path, accelerator: str = "auto", engine: str = "auto", unsuitable: str = "refuse"
) -> "LoadedModel":
    """Open a bundle that ``python -m pneumo.export`` made; call the result on films.

    Args:
        folder: the bundle.
        accelerator: auto, cpu, gpu, cuda or mps.
        engine: torch, onnx, or auto.
        unsuitable: refuse, or use: films of another body part, lateral films, and films unlike
            those the model was trained on.

    Raises:
        PneumoError: what is missing or damaged.
    """
    # imported here because torch takes seconds to load
    from pneumo.inference.model import LoadedModel
    from pneumo.inference.settings import Unsuitable
    from pneumo.settings import Machine

    machine = Machine(accelerator=accelerator)
    return LoadedModel(Path(folder), machine, engine, Unsuitable(unsuitable))
