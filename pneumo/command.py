"""What every command line shares: Hydra's entry, one line for a user's mistake, the exit status."""

import errno
import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pneumo.errors import PneumoError
from pneumo.settings import CONF, keys


def run(
    task: Callable[[DictConfig], None], schema: type, config_name: str, folder: str = ""
) -> NoReturn:
    """Compose ``conf/<folder>/<config_name>.yaml`` with the command line's overrides, do the task for each job, and exit.

    Exit status 0, 1 for a mistake of the user's or a failed job (one line on stderr), 130 for Ctrl-C. Programming errors
    keep their traceback.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing pages
    # argparse refuses -m between settings
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda one: one not in ("-m", "--multirun"))
    sys.argv[1:] = [_quoted(one) for one in sys.argv[1:]]
    started = failed = False

    def job(raw: DictConfig) -> None:
        nonlocal started, failed
        started = True
        try:
            task(raw)
        except (PneumoError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_memory(error):
                raise
            # in a sweep the other jobs still run
            failed = True
            print(f"error: {explain(error)}", file=sys.stderr, flush=True)
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                print(
                    f"  (in job {HydraConfig.get().job.num}: {' '.join(HydraConfig.get().overrides.task)})",
                    file=sys.stderr,
                    flush=True,
                )

    try:
        hydra.main(
            version_base="1.3",
            config_path=os.path.join(CONF, folder).rstrip(os.sep),
            config_name=config_name,
        )(job)()
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from what is finished", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Hydra refuses what was typed with exceptions of many kinds; once a job has begun, others are our own mistakes
        if started and not isinstance(
            error, PneumoError | OSError | HydraException | OmegaConfBaseException
        ):
            raise
        print(f"error: {explain(error)}{_suggestion(error, schema)}", file=sys.stderr)
        sys.exit(1)
    sys.exit(1 if failed else 0)


PLACES = (
    *(
        "run",
        "input",
        "out",
        "model",
        "folder",
        "on",
        "ids",
        "root",
        "annotations",
        "patients",
        "sample",
        "against",
        "runs_dir",
        "init_from",
    ),
    *(f"data.{key}" for key in ("root", "annotations", "patients", "round1_test", "cache")),
)


def _quoted(one: str) -> str:
    """An override that names a place, quoted for Hydra's grammar where a file's name needs it (blanks, brackets, other alphabets)."""
    key, equals, value = one.partition("=")
    plain = re.fullmatch(r"[\w./:+%@?|*~,-]*", value, re.ASCII) is not None
    if not equals or key.lstrip("+") not in PLACES or plain or value[0] in "[{'\"" or "${" in value:
        return one
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def explain(error: BaseException) -> str:
    """An error in one line, with the next thing to try where we know it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or error.strerror
        return f"the disk is full ({where}); make room, or choose another place with runs_dir=<folder>; the same command then goes on"
    if isinstance(error, MemoryError) or _is_memory(error):
        return "not enough memory; try a smaller batch_size or resolution"
    text = " ".join(str(error).split()) or type(error).__name__
    cause = error.__cause__
    if isinstance(error, HydraException) and cause is not None:
        text += f" ({' '.join(str(cause).split()[:40])})"
    return text


def _is_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory; it says so with a RuntimeError."""
    return isinstance(error, RuntimeError) and (
        "out of memory" in str(error) or "DefaultCPUAllocator" in str(error)
    )


def _suggestion(error: BaseException, schema: type) -> str:
    """For a key that does not exist, the known key most like it."""
    text = str(error) + str(error.__cause__ or "")
    if "is not in struct" not in text and "not in" not in text:
        return ""
    unknown = re.search(r"Could not override '?([\w.@/]+)", text)
    near = get_close_matches(unknown[1].rstrip("."), keys(schema), n=1) if unknown else []
    return f"; did you mean {near[0]}?" if near else ""


def is_composing() -> bool:
    """Whether Hydra is set up in this process (it is, inside a job)."""
    return bool(GlobalHydra.instance().is_initialized())
