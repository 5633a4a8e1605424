"""What all settings share: the registry that Hydra composes from, checks, machine and log.

YAML files in ``conf/`` choose values; dataclasses own names, types and defaults, so that a typo
fails while the configuration is composed. Each stage keeps its dataclasses in its own ``settings``
module and registers them here. ``checked`` turns a composed configuration into its dataclass; no
``DictConfig`` travels further. No settings module imports torch, so that ``--help`` answers at
once.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pneumo.errors import PneumoError, one_line

# a wheel keeps conf/ inside the package; a checkout has it beside the package
_PACKAGED = Path(__file__).parent / "conf"
CONF = str(_PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1] / "conf")
PLACES = [CONF]  # and the folder that --config-dir names, of this command
# group → option → dataclass, for groups whose options have fields of their own
OPTIONS: dict[str, dict[str, type]] = {}


def register(name: str, schema: type) -> None:
    """Make the settings of a command known to Hydra, for the defaults list of its YAML file."""
    ConfigStore.instance().store(name=name, node=schema)


NAMED = "named/data"  # Hydra's group of data sets for commands that see no ``conf/data``


def register_options(group: str, **options: type) -> None:
    """Make the options of a group known to Hydra as ``schema/<group>/<option>``."""
    OPTIONS[group] = options
    for name, node in options.items():
        ConfigStore.instance().store(group=f"schema/{group}", name=name, node=node)


def declare(
    default: Any = MISSING,
    help: str = "",
    *,
    factory: Callable[[], Any] | None = None,
    place: bool = False,
    incidental: bool = False,
    shared: bool = False,
    named: bool = False,
) -> Any:
    """A field of a settings dataclass, with everything that is known of it.

    Nothing else keeps lists of keys.

    Args:
        default: its value; without one, a YAML file must choose it.
        help: what ``--help`` says of it.
        factory: makes the default, where that is a list or a dataclass.
        place: a path of this machine: quoted for Hydra's grammar, and sent nowhere.
        incidental: does not change what is computed, so it may differ when a run goes on.
        shared: a parent takes it over from its child.
        named: stands in a run's path, or another value is refused there.
    """
    marks = {"place": place, "incidental": incidental, "shared": shared, "named": named}
    metadata = {"help": help, **marks}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def fields(schema: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a command: (dotted key, dataclass field).

    Those of every option of a group are among them.
    """
    for one in dataclasses.fields(schema):
        yield prefix + one.name, one
        kinds = [kind for kind in get_args(one.type) if kind is not type(None)] or [one.type]
        for node in OPTIONS.get(one.name, {"": kinds[0]}).values():
            if isinstance(node, type) and dataclasses.is_dataclass(node):
                yield from fields(node, f"{prefix}{one.name}.")


def keys(schema: type, mark: str = "") -> list[str]:
    """The dotted keys of a command's settings: all, or those with a mark of ``declare``."""
    chosen = (key for key, one in fields(schema) if not mark or one.metadata.get(mark))
    return list(dict.fromkeys(chosen))


def unknown(raw: DictConfig, prefix: str = "") -> Iterator[str]:
    """Dotted keys of a composed configuration that no settings class has.

    Hydra adds whatever stands behind a ``+``.
    """
    schema = cast(Any, OmegaConf.get_type(raw))
    names = {one.name for one in dataclasses.fields(schema)}
    for key in map(str, raw):
        node = raw._get_node(key)
        if key not in names:
            yield prefix + key
        elif isinstance(node, DictConfig) and dataclasses.is_dataclass(OmegaConf.get_type(node)):
            yield from unknown(node, f"{prefix}{key}.")


def nearest(wrong: str, schema: type) -> str | None:
    """The setting most likely meant by a key that does not exist.

    By its spelling (``epocs``), by a part of a longer name (``threshold``), or by what ``--help``
    says of it (``learning_rate``).
    """
    known = dict(fields(schema))
    leaf = wrong.rpartition(".")[2]
    words = set(re.split(r"[._\s-]+", leaf.lower()))
    alike = get_close_matches(wrong, known, n=1, cutoff=0.8)
    alike += [key for key in known if key.rpartition(".")[2] == leaf]
    alike += [key for key in known if words <= set(re.split(r"[._]", key))]
    told = [
        key for key, one in known.items() if words <= set(re.findall(r"\w+", one.metadata["help"]))
    ]
    alike += sorted(told, key=len) if len(words) > 1 else []
    alike += [key for key in known if get_close_matches(leaf, re.split(r"[._]", key), 1, 0.8)]
    alike += get_close_matches(wrong, known, n=1)
    return alike[0] if alike else None


def no_such_setting(wrong: str, schema: type) -> str:
    """The message for a key that does not exist, with the one that was likely meant."""
    near = nearest(wrong, schema)
    return f"{wrong}: no such setting; " + (f"did you mean {near}?" if near else "see --help")


def files_of(group: str) -> dict[str, Path]:
    """A group's options and their YAML files, in ``conf/`` and in ``--config-dir``, by name."""
    if not group:
        return {}
    paths = [path for place in PLACES for path in sorted(Path(place, group).glob("*.yaml"))]
    return dict(sorted((path.stem, path) for path in paths))


def options_of(group: str) -> list[str]:
    """The names of a group's options."""
    return list(files_of(group))


def default_of(one: Any) -> str:
    """A field's default as it would be typed."""
    value = one.default
    if one.default_factory is not dataclasses.MISSING:
        value = one.default_factory()
    if value is None:
        return "null"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


Settings = TypeVar("Settings")


def check_plain(values: Any) -> None:
    """Raise ValueError if values that were recorded hold an interpolation.

    A run or bundle may come from anyone; ``${oc.env:…}`` would put a secret of this machine into
    what is made of it.
    """
    left = [values]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
        elif isinstance(one, str) and "${" in one:
            raise ValueError(f"{one[:60]!r}: recorded values cannot refer to others")


def settings_from(schema: type[Settings], values: dict[str, Any]) -> Settings:
    """Plain values as they were recorded → settings; what is missing takes its default.

    Raises ValueError for a key or value that this version does not know.
    """
    check_plain(values)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), values)
        return cast(Settings, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ValueError(one_line(error)) from None


BETWEEN_0_AND_1 = "between 0 and 1, both exclusive"


def require(condition: bool, key: str, value: Any, rule: str) -> None:
    """Raise PneumoError that names the key, the value and the rule, unless the condition holds."""
    if not condition:
        raise PneumoError(f"{key}={value}: must be {rule}")


@dataclass
class Machine:
    """Where and how the work is done. Several devices share each batch."""

    accelerator: str = declare("auto", "auto, cpu, gpu, cuda or mps")
    devices: int = declare(1, "how many on each node; they share each batch")
    nodes: int = declare(1, "machines that share each batch, by torchrun or cluster=slurm")
    precision: str = declare("auto", "auto: bf16-mixed on a GPU that has it, else 32-true")
    workers: int = declare(-1, "data loader processes; -1 chooses")
    threads: int = declare(0, "threads of torch on the CPU; 0 leaves torch's choice")
    deterministic: bool = declare(
        True, "the same seed gives the same weights; costs some speed on a GPU"
    )
    compile: bool = declare(False, "compile the network (torch.compile)")

    def __post_init__(self) -> None:
        choices = {
            "accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
            "precision": ("auto", "32-true", "16-mixed", "bf16-mixed"),
        }
        for key, names in choices.items():
            value = getattr(self, key)
            require(value in names, f"machine.{key}", value, f"one of {', '.join(names)}")
        require(self.devices >= 1, "machine.devices", self.devices, "at least 1")
        require(self.nodes >= 1, "machine.nodes", self.nodes, "at least 1")
        require(self.workers >= -1, "machine.workers", self.workers, "-1 (choose) or more")
        require(self.threads >= 0, "machine.threads", self.threads, "0 (torch's choice) or more")

    @property
    def processes(self) -> int:
        """How many share each batch: one a device, on all nodes."""
        return self.nodes * self.devices

    @property
    def shared(self) -> str:
        """The settings that say so, for messages."""
        nodes = f"machine.nodes={self.nodes} times " if self.nodes > 1 else ""
        return f"{nodes}machine.devices={self.devices}"


class Wandb(Enum):
    """Weights & Biases: online where logged in, else offline."""

    auto = "auto"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Tracking:
    """Where Weights & Biases keeps what it is told."""

    wandb: Wandb = declare(Wandb.auto, "auto (online where logged in), offline or disabled")
    project: str = declare("pneumo", "project of Weights & Biases")
    entity: str | None = declare(None, "user or team of Weights & Biases; null: its own default")
    group: str | None = declare(
        None, "group of Weights & Biases; null: data, scale and tag, or the command"
    )
    tags: list[str] = declare(factory=list, help="tags of Weights & Biases")


@dataclass
class Log(Tracking):
    """What a training records beside metrics.csv."""

    send_pictures: bool = declare(
        False,
        "also send overlays of validation films to Weights & Biases; those of phantoms are "
        "sent unasked",
    )
    tensorboard: bool = declare(False, "also write TensorBoard files (extra `tensorboard`)")
    checkpoints: bool = declare(
        False, "keep last.ckpt and best.ckpt once a fit is finished; its weights stay anyway"
    )
    pictures: int = declare(4, "validation films shown as overlays; 0 for none")
    pictures_every: int = declare(5, "epochs")

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "log.pictures", self.pictures, "0 or more")
        require(self.pictures_every >= 1, "log.pictures_every", self.pictures_every, "at least 1")


def checked(raw: DictConfig) -> Any:
    """A composed configuration → its checked dataclass. Raises PneumoError that names the key."""
    for key in unknown(raw):
        raise PneumoError(no_such_setting(key, cast(type, OmegaConf.get_type(raw))))
    try:
        return OmegaConf.to_object(raw)
    except PneumoError:
        raise
    except OmegaConfBaseException as error:
        raise PneumoError(one_line(error)) from None
