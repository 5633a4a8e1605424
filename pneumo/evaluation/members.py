"""The finished runs that are asked for, and what each of them is in the blend."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import get_gh_backup, restore_gh_from_backup

from pneumo import runs
from pneumo.data.settings import Data
from pneumo.errors import PneumoError
from pneumo.inference.settings import ELSEWHERE, Films, Seen
from pneumo.settings import CONF, PLACES
from pneumo.training import record
from pneumo.training.lineage import INCIDENTAL, NAMED, SHARED
from pneumo.training.record import Record
from pneumo.training.settings import (
    Blend,
    Checkpoints,
    Config,
    Presence,
    System,
    load_config,
    system_of,
)


@dataclass(frozen=True)
class Member:
    """A finished run and its part in a blend."""

    folder: Path
    record: Record
    weight: float = 1.0  # of its maps in the mean; 0: they are left out
    tells: bool = True  # whether its presence scores count, if it has any
    checkpoints: Checkpoints = Checkpoints.final

    @property
    def fold(self) -> int:
        """Of its cross-validation."""
        return self.record.config.fold


def asked_for(settings: Films) -> dict[str, str]:
    """The settings that choose runs and films, as typed, without those left at their defaults."""
    asked: dict[str, str] = {}
    model = getattr(settings, "model", None)
    if model is not None:
        asked["model"] = model
    elif settings.system is not None:
        asked["+system"] = settings.system
    elif isinstance(settings.run, str):
        asked["run"] = settings.run
    else:
        asked["run"] = f"[{','.join(map(str, settings.run))}]"
    for key in ("blend", "checkpoints"):
        chosen = getattr(settings, key)
        if chosen is not None:
            asked[key] = chosen.name
    if settings.data is not None:
        asked |= _typed_data(settings.data)
        if settings.seen is not Seen.keep:
            asked["seen"] = settings.seen.name
    for key in ("setting", "on", "size", "ids", "root", "annotations", "patients"):
        value = getattr(settings, key)
        if value is not None and value != ELSEWHERE:
            asked[key] = str(value)
    for key in ("mask_size", "on_error"):
        chosen = getattr(settings, key)
        if chosen is not None:
            asked[key] = chosen.name
    return asked


def _typed_data(data: Data) -> dict[str, str]:
    """A data set as it would be typed, without what is left at its default."""
    typed = {"data": data.format}
    if data.name != data.format:
        typed["data.name"] = data.name
    for one in dataclasses.fields(data):
        value = getattr(data, one.name)
        if one.name in ("name", "format", "cache") or value is None or value == one.default:
            continue
        if isinstance(value, dict):  # of names of the user's
            typed |= {f"+data.{one.name}.{key}": _hydra(told) for key, told in value.items()}
        else:
            typed[f"data.{one.name}"] = value.name if isinstance(value, Enum) else str(value)
    return typed


def _hydra(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(told)}" for key, told in value.items()) + "}"
    return f"'{value}'" if isinstance(value, str) else str(value)


def members_of(settings: Films) -> list[Member]:
    """The finished runs that ``run`` or ``system`` names, with their parts. Raises PneumoError."""
    checkpoints = settings.checkpoints or Checkpoints.final
    if settings.system is None:
        folders = runs.find(settings.run)
        return [Member(one, record.read(one), checkpoints=checkpoints) for one in folders]
    if settings.run is not None:
        raise PneumoError("run and system are both set; choose one")
    system = system_of(settings.system)
    members = [
        member_of(system, experiment, _run(settings, system, experiment, fold))
        for fold in _folds(settings, system)
        for experiment in system.members
    ]
    if settings.checkpoints is None:
        return members
    return [dataclasses.replace(one, checkpoints=settings.checkpoints) for one in members]


def member_of(system: System, experiment: str, folder: Path) -> Member:
    """A finished run of one of a system's experiments, with its part in the system's blend."""
    weights = dict(zip(system.experiments, system.weights, strict=False))
    averaged = experiment in system.experiments
    weight = weights.get(experiment, 1.0) if averaged else 0.0
    tells = not system.presence_from or experiment in system.presence_from
    return Member(folder, record.read(folder), weight, tells, system.checkpoints)


def way(settings: Films, count: int) -> Blend | None:
    """How so many runs become one: as asked for, or as the system says. Raises PneumoError.

    A system that joins folds is their mean on films that none of them held out.
    """
    how = settings.blend
    if how is None and settings.system is not None:
        how = system_of(settings.system).blend
        if how is not None and settings.on != "val":
            how = Blend.mean
    if how is None and count > 1:
        raise PneumoError(
            f"run names {count} runs: say how they become one, blend=mean (runs on the same "
            "films), blend=folds (join a cross-validation) or blend=mean_folds; to compare methods "
            "over several fits, name several runs of each, run=[…] against=[…]"
        )
    return how


def presence_of(settings: Films) -> Presence:
    """How presence scores become one."""
    return Presence.mean if settings.system is None else system_of(settings.system).presence


def _folds(settings: Films, system: System) -> list[int]:
    """The folds of a system that its scale has, as the runs of the first one say."""
    first = _run(settings, system, system.experiments[0], system.folds[0])
    return system.folds[: record.read(first).config.scale.folds]


def _run(settings: Films, system: System, experiment: str, fold: int) -> Path:
    """The finished run of one of a system's experiments and folds."""
    pattern = f"{experiment}/{settings.setting or '*'}/fold{fold}-seed*"
    found = [one for one in sorted(Path(settings.runs_dir).glob(pattern)) if runs.is_finished(one)]
    able = [one for one in found if _is_of(system, experiment, record.read(one).config)]
    candidates = [one for one in able if not _typed(system, record.read(one).config)] or able
    if not candidates:
        others = f" (of other settings: {', '.join(map(str, found[:3]))})" if found else ""
        raise PneumoError(
            f"system {system.name}: no finished run of {experiment}, fold {fold}, below "
            f"{settings.runs_dir}{others}; make it with python -m pneumo.train "
            f"+system={system.name} …"
        )
    if len(candidates) > 1:
        names = ", ".join(str(folder) for folder in candidates[:4])
        raise PneumoError(
            f"system {system.name}: several runs of {experiment}, fold {fold} ({names}); choose "
            "with setting=<data>-<scale>, or name the runs, run=[…] blend=…"
        )
    return candidates[0]


def typed_besides(system: System, members: Sequence[Member]) -> list[str]:
    """What was typed for these runs beside the system's own settings, each of them once.

    What parents share (data, scale, network) may differ: the setting chooses among such runs.
    """
    told = []
    for member in members:
        config = member.record.config
        if typed := _typed(system, config):
            told.append(f"{config.experiment}: {typed}")
    return list(dict.fromkeys(told))


def _typed(system: System, config: Config) -> str:
    """What was typed for a run beside a system's own settings, as its name has it."""
    _, variant = runs.tags(system.overrides, SHARED, NAMED, INCIDENTAL)
    return "" if config.variant == variant else config.variant or "none of the system's own"


def _is_of(system: System, experiment: str, config: Config) -> bool:
    """Whether a run has what a system's own settings make of an experiment."""
    if not system.overrides:
        return True
    typed = {one.lstrip("+").partition("=")[0] for one in system.overrides}
    plain, changed = (
        runs.leaves(dataclasses.replace(one, scale=config.scale).scaled(typed).to_dict())
        for one in _overridden(tuple(system.overrides), experiment)
    )
    recorded = runs.leaves(config.to_dict())
    # a division is one whole: folds that happen to be the default are part of it, its draw is not
    divided = any(key.partition(".")[0] == "split" for key in typed)
    wanted = {
        key: value
        for key, value in changed.items()
        if plain.get(key) != value or (divided and key.startswith("split.") and key != "split.seed")
    }
    return all(recorded.get(key) == value for key, value in wanted.items())


@functools.cache
def _overridden(overrides: tuple[str, ...], experiment: str) -> tuple[Config, Config]:
    """An experiment as it is, and with a system's own settings; not yet scaled."""
    asked = [f"+experiment={experiment}"]
    if own := PLACES[1:]:
        folders = ",".join(f"file://{Path(one).resolve()}" for one in own)
        asked.append(f"hydra.searchpath=[{folders}]")
    command = get_gh_backup()  # composes from the folder of the commands
    GlobalHydra.instance().clear()
    with initialize_config_dir(CONF, version_base="1.3"):
        plain = load_config(compose("train", asked))
        changed = load_config(compose("train", [*asked, *overrides]))
    restore_gh_from_backup(command)
    return plain, changed


def by_fold(members: Sequence[Member], how: Blend | None) -> list[list[int]]:
    """The places of the members that are averaged with one another. Raises PneumoError.

    All of them, or, where folds are joined, those of each fold.
    """
    if how in (None, Blend.mean):
        return [list(range(len(members)))]
    groups: dict[int, list[int]] = {}
    for place, member in enumerate(members):
        groups.setdefault(member.fold, []).append(place)
    if how is Blend.folds and len(groups) < len(members):
        raise PneumoError(
            "blend=folds: two of these runs are of the same fold; blend=mean_folds averages the "
            "networks of each fold first"
        )
    _check_folds([member.record for member in members], same_experiment=how is Blend.folds)
    if len({len(places) for places in groups.values()}) > 1:
        raise PneumoError("blend=mean_folds: every fold needs the same number of networks")
    return list(groups.values())


def _check_folds(records: Sequence[Record], same_experiment: bool) -> None:
    """Refuse to join runs that are not folds of one cross-validation."""
    divisions = []
    for about in records:
        config = about.config.to_dict()
        keys = ["split", "data"]
        if same_experiment:
            keys += ["experiment", "variant", "seed"]
        divisions.append({key: config[key] for key in keys})
    if divisions[0]["split"]["kind"] != "kfold" or any(one != divisions[0] for one in divisions):
        raise PneumoError(
            "these runs are not the folds of one cross-validation (same experiment, seed, data and "
            "split=kfold5, another fold each), so they cannot be joined"
        )
