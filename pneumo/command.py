"""What every command line shares: Hydra's entry, one line for a user's mistake, the exit status."""

import dataclasses
import inspect
import json
import logging
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pneumo import __version__, mistakes
from pneumo.errors import PneumoError, visible
from pneumo.settings import CONF, NAMED, default_of, fields, keys, options_of


def run(
    task: Callable[[DictConfig], None],
    schema: type,
    config_name: str,
    folder: str = "",
    end: Callable[[], None] | None = None,
) -> NoReturn:
    """Compose ``conf/<folder>/<config_name>.yaml`` with what was typed, do the task, and exit.

    ``end`` is called once after the task, or after all tasks of a sweep, unless one failed.

    Exit status 0, 1 for a mistake of the user's or a failed job (one line on stderr), 130 for
    Ctrl-C. Programming errors keep their traceback. ``--help`` is made from the settings' fields.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(schema, config_name))
        sys.exit(0)
    if "--version" in sys.argv[1:]:
        print(f"pneumo {__version__}")
        sys.exit(0)
    talk()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing pages
    # argparse refuses -m between settings
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda one: one not in ("-m", "--multirun"))
    if folder:  # there a system is a name; for a training, Hydra composes it
        sys.argv[1:] = [re.sub(r"^\+system=", "system=", one) for one in sys.argv[1:]]
    # Hydra wants pluses before keys that a dictionary does not hold yet
    sys.argv[1:] = [re.sub(r"^(?=search\.space[.=])", "++", one) for one in sys.argv[1:]]
    places = keys(schema, "place")
    sys.argv[1:] = [_quoted(one, places) for one in sys.argv[1:]]
    try:
        mistakes.check_typed(config_name, sys.argv[1:], list(groups_of(schema, config_name)))
    except PneumoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if folder:  # Hydra would take the name of a system for an option of a group of that folder
        sys.argv[1:] = [
            re.sub(r"^data=", f"+{NAMED}@data=", one) for one in _without_config_dir(sys.argv[1:])
        ]
    started = failed = False

    def job(raw: DictConfig) -> None:
        nonlocal started, failed
        started = True
        try:
            task(raw)
            sys.stdout.flush()  # a broken pipe shows here, not while Python ends
        except BrokenPipeError:  # of `| head`: whoever reads has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        except (PneumoError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not mistakes.is_memory(error):
                raise
            # in a sweep the other jobs still run
            failed = True
            reason = visible(mistakes.explain(error, schema))
            print(f"error: {reason}", file=sys.stderr, flush=True)
            if is_sweeping():
                print(
                    f"  (in job {HydraConfig.get().job.num}: "
                    f"{' '.join(HydraConfig.get().overrides.task)})",
                    file=sys.stderr,
                    flush=True,
                )

    try:
        hydra.main(
            version_base="1.3",
            config_path=str(Path(CONF, folder)),
            config_name=config_name,
        )(job)()
        if end is not None and started and not failed:
            end()
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from what is finished", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Hydra refuses what was typed with exceptions of many kinds; once a job has begun, others
        # are our own mistakes
        if started and not isinstance(
            error, PneumoError | OSError | HydraException | OmegaConfBaseException
        ):
            raise
        print(f"error: {visible(mistakes.explain(error, schema))}", file=sys.stderr)
        sys.exit(1)
    sys.exit(1 if failed else 0)


class _Screen(logging.Handler):
    """What modules log, for people: the message alone, wherever standard output goes now."""

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(record.getMessage()), flush=True)


def talk() -> None:
    """Show what the package logs; modules themselves never print."""
    logger = logging.getLogger("pneumo")
    logger.handlers = [_Screen()]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def help_text(schema: type, config_name: str) -> str:
    """What a command does, every setting with its default, and the choices of every group."""
    about = inspect.getdoc(sys.modules["__main__"]) or ""
    settings: list[str] = []
    for key, one in fields(schema):
        default = "" if dataclasses.is_dataclass(one.type) else default_of(one)
        settings.append(f"  {key:<36} {default:<14} {one.metadata['help']}".rstrip())
    groups = groups_of(schema, config_name)
    lines = [about, "", "Settings (key=value); ??? is what a group's option chooses:", ""]
    lines += dict.fromkeys(settings)
    if groups:
        lines += ["", "Groups (group=option):", ""]
        lines += [
            f"  {'+' * (group in ADDED)}{group}={'|'.join(names)}"
            for group, names in groups.items()
        ]
    lines += ["", "Add --cfg job to print the configuration; --hydra-help for Hydra's own options."]
    return "\n".join(lines)


FITS = ("train", "submit", "search", "plan", "doctor")  # commands that take what a fit takes
ADDED = ("experiment", "search", "study", "sweep", "system")  # groups that are chosen with a +


def groups_of(schema: type, config_name: str) -> dict[str, list[str]]:
    """The groups whose options a command chooses from, and the options' names."""
    names = [
        key for key, one in fields(schema) if dataclasses.is_dataclass(one.type) or key == "data"
    ]
    if config_name not in (*FITS, "study"):  # others have no presets to choose from
        names = [name for name in names if name != "machine"]
    whole = [key for key, _ in fields(schema) if key in ("system", "study")]
    if config_name == "study":  # its arms name its systems
        whole = ["study"]
    names += whole
    if config_name in FITS:
        names += ["experiment", "sweep"]
    return {name: options_of(name) for name in names if options_of(name)}


def _without_config_dir(arguments: list[str]) -> list[str]:
    """What was typed, without ``--config-dir``, which is noted in ``settings.PLACES``."""
    kept: list[str] = []
    for place, one in enumerate(arguments):
        before = arguments[place - 1] if place else ""
        if before not in CONFIG_DIR and one.partition("=")[0] not in CONFIG_DIR:
            kept.append(one)
    return kept


CONFIG_DIR = ("--config-dir", "-cd")


def _quoted(one: str, places: Collection[str]) -> str:
    """An override that names a place, quoted for Hydra's grammar where its characters need it.

    Blanks, brackets and other alphabets do.
    """
    key, equals, value = one.partition("=")
    plain = re.fullmatch(r"[\w./:+%@?|*~,-]*", value, re.ASCII) is not None
    if not equals or key.lstrip("+") not in places or plain or value[0] in "[{'\"" or "${" in value:
        return one
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


JOBS = "jobs.jsonl"  # in a sweep's folder: a row of each job that finished


def is_sweeping() -> bool:
    """Whether this Hydra job is one of a sweep."""
    return bool(HydraConfig.get().mode is RunMode.MULTIRUN)


def keep_row(row: dict[str, Any]) -> None:
    """Keep what a sweep's job came to, for the end of the sweep."""
    with open(Path(HydraConfig.get().sweep.dir) / JOBS, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


class SweepEnd(Callback, ABC):
    """Hydra's callback that ends a sweep, by any launcher, with what its jobs have kept."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Call ``end`` with the rows of the jobs that finished, if there are any."""
        folder = Path(config.hydra.sweep.dir)
        if (folder / JOBS).is_file():
            lines = (folder / JOBS).read_text(encoding="utf-8").splitlines()
            self.end(config, folder, [json.loads(line) for line in lines])

    @abstractmethod
    def end(self, config: DictConfig, folder: Path, rows: list[dict[str, Any]]) -> None:
        """What is shown and written at the end."""


def is_composing() -> bool:
    """Whether Hydra is set up in this process (it is, inside a job)."""
    return bool(GlobalHydra.instance().is_initialized())
