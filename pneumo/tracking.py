"""Weights & Biases: opened the same way by training and judging; it never stops either.

No torch.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pneumo.errors import brief
from pneumo.settings import Tracking, Wandb

logger = logging.getLogger(__name__)
ANSWER = 20.0  # seconds to wait for the server's first answer
FINISH = 60.0  # seconds at the end for what is not sent yet; it stays on disk, for `wandb sync`
_away = False  # whether the server was not to be reached in this process


def start(log: Tracking, folder: Path, **about: Any) -> Any | None:
    """A run of Weights & Biases, online when logged in, else offline with one line.

    None if it is disabled or not to be had. ``about`` is what ``wandb.init`` takes: ``group``,
    ``name``, ``job_type``, ``config``. Entity, tags and, if it is set, group are those of ``log``.
    A server that refuses, fails or does not answer is waited for once in a process, for about
    ``ANSWER`` seconds; that run and later ones are recorded offline.
    """
    global _away
    if log.wandb is Wandb.disabled or os.environ.get("WANDB_MODE") == "disabled":
        return None
    # its reports of its own errors are unasked, and say so on the screen where they cannot be sent
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        _give_a_cache(folder)
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            x_disable_stats=True,
            x_disable_meta=True,  # paths, arguments, host and user of this machine
            x_disable_machine_info=True,
            x_save_requirements=False,
            disable_git=True,
            disable_code=True,
            init_timeout=ANSWER,
            finish_timeout=FINISH,
            finish_timeout_raises=True,
        )
        if log.group is not None:
            about["group"] = log.group
        told = {
            "project": log.project,
            "entity": log.entity,
            "tags": list(log.tags),
            "dir": folder,
            "settings": settings,
            "reinit": "create_new",  # two fits in one process are two runs
            **about,
        }
        sync = f"`wandb sync {folder}/wandb/offline-run-*`"
        mode = os.environ.get("WANDB_MODE")
        try:
            if mode is None:
                wanted = log.wandb is Wandb.auto and not _away
                mode = "online" if wanted and _logged_in() else "offline"
                if mode == "offline" and wanted:
                    logger.info(
                        "Weights & Biases: not logged in, so recorded offline; `wandb login`, "
                        "then %s",
                        sync,
                    )
            return wandb.init(mode=cast(Any, mode), **told)
        except Exception as error:  # whatever its client may raise
            if mode == "offline":
                raise
            _away = True
            logger.warning(
                "Weights & Biases cannot be reached, so recorded offline; later %s (%s)",
                sync,
                brief(error),
            )
            return wandb.init(mode="offline", **told)
    except Exception as error:
        logger.warning("Weights & Biases is not available and is left out (%s)", brief(error))
        return None


def record(
    log: Tracking,
    folder: Path,
    summary: Mapping[str, Any] | None = None,
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] | None = None,
    figures: Mapping[str, Any] | None = None,
    **about: Any,
) -> None:
    """One whole run of Weights & Biases: final numbers, tables (head, rows) and plotly figures.

    Never raises.
    """
    run = start(log, folder, **about)
    if run is None:
        return
    try:
        import wandb

        run.summary.update(dict(summary or {}))
        shown = {
            name: wandb.Table(list(head), [list(row) for row in rows])
            for name, (head, rows) in (tables or {}).items()
        }
        run.log({**shown, **(figures or {})})
        finish(run)
    except Exception as error:  # whatever its client may raise
        logger.warning("Weights & Biases failed and is left out (%s)", brief(error))


def finish(run: Any) -> None:
    """End a run; a server that does not answer is waited for ``FINISH`` seconds."""
    try:
        run.finish()
    except TimeoutError:
        logger.warning(
            "Weights & Biases does not answer, so a part of the run is not sent; later "
            "`wandb sync %s`",
            run.settings.sync_dir,
        )


def _give_a_cache(folder: Path) -> None:
    """Without a home it may write to, its client would write its own log to the screen."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(home, "wandb")
        cache.mkdir(parents=True, exist_ok=True)
        writable = os.access(cache, os.W_OK)
    except (OSError, RuntimeError):  # no such place, or no home at all
        writable = False
    if not writable:
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / "wandb" / "cache"))


def _logged_in() -> bool:
    """Whether there is a key that the server takes; raises whatever the client may if not."""
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    return bool(wandb.login(prompt=False, verify=True))
