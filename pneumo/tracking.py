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


def start(log: Tracking, folder: Path, **about: Any) -> Any | None:
    """A run of Weights & Biases, online when logged in, else offline with one line.

    None if it is disabled or not to be had. ``about`` is what ``wandb.init`` takes: ``group``,
    ``name``, ``job_type``, ``config``. Entity, tags and, if it is set, group are those of ``log``.
    """
    if log.wandb is Wandb.disabled or os.environ.get("WANDB_MODE") == "disabled":
        return None
    try:
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            x_disable_stats=True,
            x_disable_meta=True,  # paths, arguments, host and user of this machine
            x_disable_machine_info=True,
            x_save_requirements=False,
            disable_git=True,
            disable_code=True,
            init_timeout=30,
        )
        mode = os.environ.get("WANDB_MODE") or (
            "online" if log.wandb is Wandb.auto and _logged_in() else "offline"
        )
        if mode == "offline" and log.wandb is Wandb.auto:
            logger.info(
                "Weights & Biases: not logged in, so recorded offline; `wandb login`, then "
                "`wandb sync %s/wandb/offline-run-*`",
                folder,
            )
        folder.mkdir(parents=True, exist_ok=True)
        if log.group is not None:
            about["group"] = log.group
        # two fits in one process are two runs
        return wandb.init(
            project=log.project,
            entity=log.entity,
            tags=list(log.tags),
            dir=folder,
            settings=settings,
            mode=cast(Any, mode),
            reinit="create_new",
            **about,
        )
    except Exception as error:  # whatever its client may raise
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
        run.finish()
    except Exception as error:  # whatever its client may raise
        logger.warning("Weights & Biases failed and is left out (%s)", brief(error))


def _logged_in() -> bool:
    import wandb

    return bool(wandb.login(prompt=False, verify=False))
