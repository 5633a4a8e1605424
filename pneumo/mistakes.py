"""What Hydra, the system or torch say of a mistake → one line: what is wrong and what to do."""

import errno
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException

from pneumo import files
from pneumo.errors import PneumoError, brief, one_line
from pneumo.settings import CONF, OPTIONS, PLACES, fields, files_of, no_such_setting

# what torch says where processes share tensors, and no room for them is left
SHARED = re.compile("file </torch_|out of shared memory")
KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def check_typed(command: str, arguments: Sequence[str], groups: Sequence[str]) -> None:
    """Refuse what is no setting before Hydra sees it, whose own words would be a page.

    Notes the folder of ``--config-dir``, where a user's own options lie.

    Args:
        command: its name, without ``pneumo.``.
        arguments: what was typed behind it.
        groups: the config groups it chooses from.

    Raises:
        PneumoError: the argument, and how it is written.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    known, strange = parser.parse_known_args(arguments)
    PLACES[1:] = [known.config_dir] if known.config_dir else []
    if known.config_dir and not Path(known.config_dir).is_dir():
        raise PneumoError(f"--config-dir {known.config_dir}: no such folder")
    if known.config_dir:
        _check_own_files(Path(known.config_dir))
    for one in strange:
        key = one.lstrip("-").partition("=")[0]
        raise PneumoError(f"{one}: settings are written without dashes, {key}=<value>")
    for one in known.overrides:
        key, equals, value = one.partition("=")
        if not equals and not one.startswith("~"):
            raise PneumoError(
                f"{one!r} is no setting: write key=value; a value with blanks in quotation marks, "
                "lists without blanks, [1,2]"
            )
        try:
            parsed = OverridesParser.create().parse_override(one)
        except (OverrideParseException, HydraException):
            raise PneumoError(
                f"{one}: cannot be understood; a list is [1,2] without blanks, and a value with "
                f"blanks or brackets stands in two kinds of quotation marks, \"{key}='a b'\""
            ) from None
        if parsed.is_sweep_override() and not known.multirun:
            raise PneumoError(
                f"{one}: several values need a sweep, python -m pneumo.{command} -m {one} …"
            )
        if parsed.is_delete():
            raise PneumoError(f"{one}: settings can be set, not removed")
        group = key.lstrip("+")
        if group in groups and "," not in value:
            files = files_of(group)
            if value not in files:
                raise PneumoError(f"{one}: no such choice; {_choices(key, value, list(files))}")
            if group == "experiment":
                _check_experiment(files[value])


def _check_own_files(folder: Path) -> None:
    """Refuse options of ``--config-dir`` that would run programs, or fill the memory.

    Settings of Hydra itself name what it imports and calls, so an option's file that sets them runs
    whatever its author likes.
    """
    if (folder / "hydra").exists():
        raise PneumoError(
            f"{folder / 'hydra'}: settings of Hydra itself can run programs; remove it"
        )
    for path in sorted(folder.rglob("*.yaml")):
        if Path(CONF).resolve() in path.resolve().parents:
            continue  # the project's own
        try:
            text = path.read_text(encoding="utf-8")
            # deeper there may be anything, such as the records of runs; an escape may hide the word
            if len(path.relative_to(folder).parts) > 2 and not re.search(r"hydra|\\", text, re.I):
                continue
            values = files.parse_yaml(text)
        except files.NotYaml:
            continue  # Hydra cannot read it either, and says so if it is asked to
        except (OSError, ValueError) as error:
            raise PneumoError(f"{path}: not YAML ({brief(error)})") from None
        header = re.search(r"^\s*#\s*@package\s+(\S+)", text, re.MULTILINE)
        names = [header[1]] if header else []
        if isinstance(values, dict):
            defaults = values.get("defaults")
            names += [*values, *(defaults if isinstance(defaults, list) else [defaults])]
        if any("hydra" in str(name).lower() for name in names):
            raise PneumoError(
                f"{path}: sets Hydra itself, which can run programs; leave that to the command line"
            )


def _choices(key: str, value: str, names: list[str]) -> str:
    near = [name for name in names if value and value in name]
    near = near or get_close_matches(value, names, n=1)
    hint = f"did you mean {key}={near[0]}? There are" if near else "choose one of"
    return f"{hint} {', '.join(names)}"


def _check_experiment(path: Path) -> None:
    """Refuse an experiment's file that Hydra would read as something else."""
    try:
        text = path.read_text(encoding="utf-8")
        values = files.parse_yaml(text)
    except (OSError, ValueError) as error:
        raise PneumoError(f"{path}: not YAML ({brief(error)})") from None
    if not re.match(r"\s*#\s*@package\s+_global_\s", text):
        raise PneumoError(f"{path}: its first line must be `# @package _global_`")
    name = values.get("experiment") if isinstance(values, dict) else None
    if name != path.stem:
        said = f"says {name}" if name else "has none"
        raise PneumoError(
            f"{path}: needs the line `experiment: {path.stem}`, the name of its runs' folder "
            f"({said})"
        )


def _refuse(message: str) -> NoReturn:
    raise PneumoError(f"{message} (--help lists what can be set)")


def explain(error: BaseException, schema: type) -> str:
    """An error in one line, with the next thing to try where we know it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or error.strerror
        return (
            f"the disk is full ({where}); make room, or choose another place with "
            "runs_dir=<folder>; the same command then goes on"
        )
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return (
            f"{error.filename}: nothing can be written there ({error.strerror}); choose another "
            "place with runs_dir=<folder> or out=<place>"
        )
    if is_memory(error) and SHARED.search(str(error)):
        return (
            "the disk is full (that of shared memory, /dev/shm); make room there, give a container "
            "more of it (docker run --shm-size=8g), or use machine.workers=0"
        )
    if isinstance(error, MemoryError) or is_memory(error):
        return "not enough memory; try a smaller batch_size or resolution"
    text = one_line(error)
    if not isinstance(error, HydraException):
        return text
    cause = one_line(error.__cause__) if error.__cause__ is not None else ""
    unknown = re.search(r"Could not override '?([\w.@/]+)", text)
    if unknown:
        return _not_here(unknown[1].rstrip("."), schema)
    wrong = re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", cause)
    typed = re.search(r"Error merging override (\S+)", text)
    if wrong and typed:
        return f"{typed[1]}: must be {KINDS.get(wrong[2], wrong[2])}"
    if typed and cause:
        return f"{typed[1]}: {cause.partition(' full_key:')[0]}"
    in_file = re.search(r"In '([\w/]+)'.*Key '\w+' not in '\w+' full_key: ([\w.]+)", text)
    if in_file:
        return f"conf/{in_file[1]}.yaml: {_not_here(in_file[2], schema)}"
    missing = re.search(r"Could not find '([\w/]+)'", text)
    if missing:
        return f"{missing[1]}: no such file below conf/ ({text.partition(' Config search')[0]})"
    return text + (f" ({' '.join(cause.split()[:40])})" if cause else "")


def _not_here(key: str, schema: type) -> str:
    """A key that the chosen options do not have; others may."""
    group, _, name = key.partition(".")
    having = [
        option
        for option, node in OPTIONS.get(group, {}).items()
        if name in {one for one, _ in fields(node)}
    ]
    if having:
        return f"{key}: no setting of the chosen {group}; it belongs to {group}={'|'.join(having)}"
    return no_such_setting(key, schema)


def is_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, also of shared; it says so with a RuntimeError."""
    kinds = ("out of memory", "DefaultCPUAllocator")
    return isinstance(error, RuntimeError) and (
        any(kind in str(error) for kind in kinds) or SHARED.search(str(error)) is not None
    )
