"""What all settings share: the registry that Hydra composes from, checks, and the settings of every stage.

YAML files in ``conf/`` choose values; dataclasses own names, types and defaults, so that a typo fails while
the configuration is composed. Each stage keeps its dataclasses in its own ``settings`` module and registers
them here. ``checked`` turns a composed configuration into its dataclass; no ``DictConfig`` travels further.
No settings module imports torch, so that ``--help`` answers at once.
"""

import dataclasses
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumo.errors import PneumoError

# a wheel keeps conf/ inside the package; a checkout has it beside the package
_PACKAGED = Path(__file__).parent / "conf"
CONF = str(_PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1] / "conf")
# group → option → dataclass, for groups whose options have fields of their own
OPTIONS: dict[str, dict[str, type]] = {}


def register(name: str, schema: type) -> None:
    """Make the settings of a command known to Hydra, for the defaults list of its YAML file."""
    ConfigStore.instance().store(name=name, node=schema)


def register_options(group: str, **options: type) -> None:
    """Make the options of a group known to Hydra as ``schema/<group>/<option>``."""
    OPTIONS[group] = options
    for name, node in options.items():
        ConfigStore.instance().store(group=f"schema/{group}", name=name, node=node)


def keys(schema: type, prefix: str = "") -> list[str]:
    """Every key of a command's settings, dotted, the keys of every option of a group among them."""
    names: list[str] = []
    for setting in dataclasses.fields(schema):
        names.append(prefix + setting.name)
        nodes = OPTIONS.get(setting.name, {"": setting.type})
        for node in nodes.values():
            if isinstance(node, type) and dataclasses.is_dataclass(node):
                names += keys(node, f"{prefix}{setting.name}.")
    return list(dict.fromkeys(names))


def require(condition: bool, key: str, value: Any, rule: str) -> None:
    """Raise PneumoError that names the key, the value and the rule, unless the condition holds."""
    if not condition:
        raise PneumoError(f"{key}={value}: must be {rule}")


@dataclass
class Machine:
    """Where and how the work is done. Several devices share each batch."""

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "auto"  # auto: bf16-mixed on a GPU that has it, else 32-true
    workers: int = -1  # data loader processes; -1 chooses
    threads: int = 0  # threads of torch on the CPU; 0 leaves torch's choice
    deterministic: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        accelerators, precisions = (
            ("auto", "cpu", "gpu", "cuda", "mps"),
            ("auto", "32-true", "16-mixed", "bf16-mixed"),
        )
        require(
            self.accelerator in accelerators,
            "machine.accelerator",
            self.accelerator,
            f"one of {', '.join(accelerators)}",
        )
        require(
            self.precision in precisions,
            "machine.precision",
            self.precision,
            f"one of {', '.join(precisions)}",
        )
        require(self.devices >= 1, "machine.devices", self.devices, "at least 1")
        require(self.workers >= -1, "machine.workers", self.workers, "-1 (choose) or more")
        require(self.threads >= 0, "machine.threads", self.threads, "0 (torch's choice) or more")


class Wandb(Enum):
    """Weights & Biases: online where logged in, else offline."""

    auto = "auto"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Log:
    """What is recorded beside metrics.csv."""

    wandb: Wandb = Wandb.auto
    project: str = "pneumo"
    tensorboard: bool = False
    pictures: int = 4  # validation films shown as overlays; 0 for none
    pictures_every: int = 5  # epochs

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "log.pictures", self.pictures, "0 or more")
        require(self.pictures_every >= 1, "log.pictures_every", self.pictures_every, "at least 1")


def checked(raw: DictConfig) -> Any:
    """A composed configuration → its checked dataclass. Raises PneumoError that names the key."""
    try:
        return OmegaConf.to_object(raw)
    except PneumoError:
        raise
    except OmegaConfBaseException as error:
        raise PneumoError(" ".join(str(error).split())) from None
