"""An experiment and the ancestors it starts from: those that are missing are trained first, as ``make`` does."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from pneumo import command, runs
from pneumo.errors import PneumoError
from pneumo.settings import CONF
from pneumo.training.settings import SHARED, Config, load_config

# in a run's path already, or where things lie and how they are done: another data set there is refused, not kept apart
NAMED = {
    "experiment",
    "data",
    "scale",
    "fold",
    "seed",
    "tag",
    "variant",
    "runs_dir",
    "machine",
    "log",
    "hydra",
}


NAMED |= {
    f"data.{key}"
    for key in ("root", "annotations", "patients", "round1_test", "cache", "max_megapixels")
}


def train(declared: Config, typed: set[str]) -> list[dict[str, Any]]:
    """Train an experiment, after its ancestors; those that are finished are used as they are.

    Args:
        declared: what the experiment and the command line say, not yet scaled.
        typed: keys the user set on the command line; they are not scaled.

    Returns:
        A row for each fit of the chain, ancestors first: name, folder, whether it was trained now, seconds, scores.
    """
    fits = chain(declared, typed)
    finished = [place for place, one in enumerate(fits) if _already(one, one.path)]
    return [
        _make(one) for one in fits[finished[-1] if finished else 0 :]
    ]  # what led to a finished fit is not needed again


def chain(declared: Config, typed: set[str]) -> list[Config]:
    """The fits that lead to an experiment, scaled, the first ancestor first."""
    child = declared.scaled(typed)
    if not child.parent or child.init_from != str(_handed_on(child)):
        return [child]
    shared = {key for key in typed if key.partition(".")[0] in SHARED}
    return [*chain(parent_of(declared), shared), child]


def parent_of(child: Config) -> Config:
    """The declared configuration of a child's parent: its own recipe on the child's data, fold, seed, scale and machine."""
    overrides = [
        f"+experiment={child.parent}",
        f"data.name={child.data.name}",
        f"runs_dir={json.dumps(child.runs_dir)}",
        f"fold={child.fold}",
    ]
    overrides += [f"seed={child.seed}", f"scale.name={child.scale.name}", f"tag='{child.tag}'"]
    if command.is_composing():
        raw = compose("train", overrides)
    else:
        with initialize_config_dir(CONF, version_base="1.3"):
            raw = compose("train", overrides)
    parent = load_config(raw)
    if parent.experiment == child.experiment:
        raise PneumoError(f"experiment {child.experiment} is its own parent")
    return dataclasses.replace(parent, **{key: getattr(child, key) for key in SHARED})


def _handed_on(child: Config) -> Path:
    return dataclasses.replace(child, experiment=child.parent or "", variant="").path / runs.WEIGHTS


def _make(one: Config) -> dict[str, Any]:
    """Train one fit unless it is finished, holding its folder's lock."""
    folder, started = one.path, time.monotonic()
    with runs.lock(folder), contextlib.ExitStack() as out:
        trained = not _already(one, folder)
        if trained:
            for left in folder.glob(".*.partial"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            out.enter_context(runs.logged(folder))
            swa = f", averaging the last {one.swa.epochs}" if hasattr(one.swa, "epochs") else ""
            start = (
                f"from {one.init_from}"
                if one.init_from
                else f"encoder weights: {one.model.encoder_weights}"
            )
            print(
                f"\n{one.experiment}: {one.resolution.size}², batch {one.batch_size}, {one.epochs} epochs{swa}; {start}\n  → {folder}",
                flush=True,
            )

            from pneumo.training.fit import fit  # torch takes seconds, and help needs none

            fit(one, folder)
        else:
            print(f"{one.experiment}: finished before, used as it is ({folder})", flush=True)
        scores = {
            key: value
            for key, value in runs.read_metrics(folder).items()
            if isinstance(value, float)
        }
    return {
        "experiment": one.experiment,
        "folder": str(folder),
        "trained": trained,
        "seconds": time.monotonic() - started,
        **scores,
    }


def _already(one: Config, folder: Path) -> bool:
    """Whether a folder holds this very fit, finished. Raises PneumoError if it holds another."""
    if not runs.is_begun(folder):
        return False
    found = runs.differences(runs.read_record(folder)["config"], one.to_dict())
    if found:
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        raise PneumoError(
            f"{folder} holds a run with other settings (recorded → wanted: {shown}); "
            "keep both with tag=<name> or runs_dir=<folder>, or delete that folder"
        )
    return runs.is_finished(folder)
