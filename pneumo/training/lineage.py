"""An experiment and the ancestors it starts from.

Those that are missing are trained first, as ``make`` does.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pneumo import command, runs
from pneumo.data.settings import SplitKind
from pneumo.errors import PneumoError
from pneumo.settings import CONF, PLACES, keys
from pneumo.training import record
from pneumo.training.options import LastEpochs
from pneumo.training.settings import Config, System, load_config

log = logging.getLogger(__name__)

SHARED = keys(Config, "shared")
INCIDENTAL = keys(Config, "incidental")
NAMED = [*keys(Config, "named"), *keys(Config, "place")]


def name_run(raw: DictConfig, overrides: Sequence[str]) -> None:
    """Fill in tag and variant from what was typed. Raises PneumoError."""
    typed = {_key(override) for override in overrides}
    for name in raw.whole_chain:
        if not any(key.partition(".")[0] == name for key in typed):
            raise PneumoError(f"whole_chain=[{name}]: nothing of it is typed; add {name}=…")
    names = runs.tags(overrides, [*SHARED, *raw.whole_chain], NAMED, INCIDENTAL)
    for key, name in zip(("tag", "variant"), names, strict=True):
        if key not in typed:
            raw[key] = name


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]


def _of(sections: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides that belong to some sections of the settings."""
    return [one for one in overrides if _key(one).partition(".")[0] in sections]


def train(wanted: Config, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Train an experiment, after its ancestors; those that are finished are used as they are.

    Args:
        wanted: what the experiment and the command line say, not yet scaled.
        overrides: what the user typed; it is not scaled.

    Returns:
        A row for each fit of the chain, ancestors first: name, folder, whether it was trained now,
        seconds, scores.
    """
    fits = chain(wanted, overrides)
    finished = [place for place, one in enumerate(fits) if is_done(one, one.path)]
    # what led to a finished fit is not needed again
    last = finished[-1] if finished else -1
    missing = fits[last + 1 :]
    if missing:
        from pneumo.training.fit import check  # torch takes seconds

        for one in missing:  # before any folder is made and any film decoded
            check(one, starts_here=one is missing[0])
    return [make(one) for one in fits[max(last, 0) :]]


def train_system(system: System, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Train all experiments and folds of a system, parents first; a row for each fit.

    Args:
        system: what ``+system=<name>`` composed.
        overrides: everything typed, ``+system=`` among it.
    """
    rows = []
    for own in members_of(system, overrides):
        rows += train(declared(own), own)
    return rows


def members_of(system: System, overrides: Sequence[str]) -> list[list[str]]:
    """What each experiment of a system is typed with, on one fold after the other."""
    typed = [one for one in overrides if not one.startswith("+system=")]
    folds = folds_of(system, typed)
    log.info("%s", system.describe(folds))
    return [
        [*system.overrides, *typed, f"+experiment={experiment}", f"fold={fold}"]
        for fold in folds
        for experiment in system.members
    ]


def folds_of(system: System, overrides: Sequence[str]) -> list[int]:
    """The folds of a system that are trained: at most as many as the scale has."""
    one = [*system.overrides, *overrides, f"+experiment={system.experiments[0]}"]
    return system.folds[: _compose(one).scale.folds]


def declared(overrides: list[str]) -> Config:
    """What an experiment and what was typed say of a fit, named and not yet scaled.

    Raises PneumoError.
    """
    raw = _compose(overrides)
    name_run(raw, overrides)
    return load_config(raw)


def _compose(overrides: Sequence[str]) -> DictConfig:
    """A copy, which can be changed, of what Hydra composes: a seventh of a second each time."""
    places = tuple(str(Path(place).resolve()) for place in PLACES)
    return copy.deepcopy(_composed(tuple(overrides), places, command.is_composing()))


@functools.lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...], places: tuple[str, ...], in_job: bool) -> DictConfig:
    if in_job:
        return compose("train", list(overrides))
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", list(overrides))


def command_of(overrides: Sequence[str]) -> str:
    """The command that makes a fit, and its ancestors where they are missing."""
    return shlex.join(["python", "-m", "pneumo.train", *overrides])


def scaled(wanted: Config, overrides: Sequence[str]) -> Config:
    """The fit that is really made: what was typed is taken as it is, the rest is scaled."""
    return wanted.scaled({_key(one) for one in overrides})


def chain(wanted: Config, overrides: Sequence[str]) -> list[Config]:
    """The fits that lead to an experiment, scaled, the first ancestor first."""
    child = scaled(wanted, overrides)
    if not child.parent or child.init_from != str(_handed_on(child)):
        return [child]
    handed_up = _of([*SHARED, *child.whole_chain], overrides)
    return [*chain(parent_of(wanted, handed_up), handed_up), child]


def parent_of(child: Config, overrides: Sequence[str] = ()) -> Config:
    """The declared configuration of a child's parent.

    It is the parent's own recipe on the child's data, fold, seed, scale and machine, with those of
    the ``overrides`` that are meant for the whole chain.
    """
    given = [
        f"+experiment={child.parent}",
        f"data.name={child.data.name}",
        f"runs_dir={json.dumps(child.runs_dir)}",
        f"fold={child.fold}",
        f"seed={child.seed}",
        f"scale.name={child.scale.name}",
        f"tag='{child.tag}'",
    ]
    parent = load_config(_compose([*given, *_of(child.whole_chain, overrides)]))
    if parent.experiment == child.experiment:
        raise PneumoError(f"experiment {child.experiment} is its own parent")
    shared = {key: getattr(child, key) for key in SHARED if "." not in key}
    return dataclasses.replace(parent, **shared)


def _handed_on(child: Config) -> Path:
    return dataclasses.replace(child, experiment=child.parent or "", variant="").path / runs.WEIGHTS


def make(one: Config) -> dict[str, Any]:
    """Train one fit unless it is finished, holding its folder's lock."""
    folder, started = one.path, time.monotonic()
    with runs.lock(folder), contextlib.ExitStack() as out:
        trained = not is_done(one, folder)
        if trained:
            out.enter_context(runs.logged(folder))
            log.info("\n%s\n  → %s", _describe(one), folder)
            from pneumo.training.fit import fit  # torch takes seconds, and help needs none

            fit(one, folder)
        else:
            runs.check(folder)
            log.info("%s: finished before, used as it is (%s)", one.experiment, folder)
            # it may have been killed once it was finished, before it had tidied up
            runs.tidy(folder, record.read(folder).config.log.checkpoints)
        return row(one, trained, time.monotonic() - started)


def row(one: Config, trained: bool, seconds: float) -> dict[str, Any]:
    """A finished fit in the table that ends a training. Raises PneumoError."""
    folder = one.path
    return {
        "experiment": one.experiment,
        "setting": folder.parent.name,
        "fold": one.fold,
        "seed": one.seed,
        "variant": one.variant,
        "of_folds": one.split.kind is SplitKind.kfold,
        "folder": str(folder),
        "trained": trained,
        "seconds": seconds,
        **runs.scores(folder),
    }


def _describe(one: Config) -> str:
    """A fit in one line."""
    averaging = ""
    if isinstance(one.averaging, LastEpochs):
        averaging = f", averaging the last {one.averaging.epochs}"
    elif one.averaging.name != "none":
        averaging = f", averaging: {one.averaging.name}"
    start = f"encoder weights: {one.model.encoder_weights}"
    if one.init_from:
        start = f"from {one.init_from}"
    return (
        f"{one.experiment}: {one.resolution.size}², batch {one.batch_size}, "
        f"{one.epochs} epochs{averaging}; {start}"
    )


def is_done(one: Config, folder: Path) -> bool:
    """Whether a folder holds this very fit, finished. Raises PneumoError if it holds another."""
    if not runs.is_begun(folder):
        return False
    found = runs.differences(record.read(folder).config.to_dict(), one.to_dict(), INCIDENTAL)
    if found:
        shown = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        raise PneumoError(
            f"{folder} holds a run with other settings (recorded → wanted: {shown}); "
            "keep both with tag=<name> or runs_dir=<folder>, or delete that folder"
        )
    return runs.is_finished(folder)
