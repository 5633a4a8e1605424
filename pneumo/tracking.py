"""Weights & Biases: one run opened the same way by training and judging; it never stops either. No torch."""

import os
from pathlib import Path
from typing import Any, cast

from pneumo.config import Log, Wandb


def start(log: Log, folder: Path, quiet: bool = False, **about: Any) -> Any | None:
    """A run of Weights & Biases, online when logged in, else offline with one line; None if disabled or not to be had.

    ``about`` is what ``wandb.init`` takes: ``group``, ``name``, ``job_type``, ``config``.
    """
    if log.wandb is Wandb.disabled or os.environ.get("WANDB_MODE") == "disabled":
        return None
    try:
        import wandb

        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True, init_timeout=30)
        mode = os.environ.get("WANDB_MODE") or ("online" if log.wandb is Wandb.auto and _logged_in() else "offline")
        if mode == "offline" and log.wandb is Wandb.auto and not quiet:
            print(
                f"Weights & Biases: not logged in, so recorded offline; `wandb login`, then `wandb sync {folder}/wandb/offline-run-*`",
                flush=True,
            )
        folder.mkdir(parents=True, exist_ok=True)
        # two fits in one process are two runs
        return wandb.init(project=log.project, dir=folder, settings=settings, mode=cast(Any, mode), reinit="create_new", **about)
    except Exception as error:  # whatever its client may raise
        print(f"Weights & Biases is not available and is left out ({' '.join(str(error).split())[:120]})", flush=True)
        return None


def _logged_in() -> bool:
    import wandb

    return bool(wandb.login(prompt=False, verify=False))
