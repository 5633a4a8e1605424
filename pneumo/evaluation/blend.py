"""What several runs say of the same films → one result, by a named way.

Nothing is guessed from the films' ids.

mean        runs on the same films: the mean of their maps
folds       the folds of one cross-validation: each film from the fold that held it out
mean_folds  first the mean of the networks of each fold, then the folds joined

The films' presence scores are averaged alike, or stacked: told by a classifier of what the networks
say, which never judges a film that it was fitted on.
"""

import contextlib
import dataclasses
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pneumo import files
from pneumo.errors import PneumoError
from pneumo.evaluation.apart import apart
from pneumo.evaluation.members import Member as Member
from pneumo.evaluation.members import (
    asked_for,
    by_fold,
    members_of,
    presence_of,
    typed_besides,
    way,
)
from pneumo.evaluation.settings import Tune
from pneumo.inference import mapping, maps, stack
from pneumo.inference.maps import Predictions
from pneumo.inference.seen import Trained
from pneumo.inference.settings import Films, Predict, Seen
from pneumo.inference.shards import NotJoined, Shard
from pneumo.inference.stack import Stack
from pneumo.training.settings import Blend, Presence, system_of

log = logging.getLogger(__name__)

RECORD = "blend.json"  # what went in, how it was fitted, on which films

_gathered: dict[str, list[Predictions]] = {}


@dataclasses.dataclass
class Said:
    """What the networks that tell of presence say of films, in numbers."""

    names: list[str]
    x: np.ndarray  # float64 (n, names)
    positive: np.ndarray  # bool (n,)
    ids: list[str]


def gather(settings: Films, batch_size: int = 16) -> list[Predictions]:
    """The predictions asked for, made where they are missing; several where folds are joined.

    Asked for again in one process (a sweep over thresholds), they are not looked for anew.

    Raises:
        PneumoError: runs that are not finished, films that cannot be had, or runs that do not fit
            the blend.
    """
    members = members_of(settings)
    way(settings, len(members))
    tune = getattr(settings, "tune", None) is Tune.optimistic
    key = files.digest([asked_for(settings), settings.runs_dir, os.getcwd(), tune])
    if key not in _gathered:
        with contextlib.ExitStack() as out:
            _warn_of_others(settings, members)
            if len(members) > 1:
                out.enter_context(without_news())
            without = None
            if settings.seen is Seen.exclude:
                without = _trained(members)
            each = [predict(member, settings, batch_size, without) for member in members]
            _gathered[key] = blend(each, members, settings)
    return _gathered[key]


def _warn_of_others(settings: Films, members: Sequence[Member]) -> None:
    """Say where a system's runs were trained with more than it says."""
    if settings.system is None:
        return
    if others := typed_besides(system_of(settings.system), members):
        log.warning(
            "system %s: trained with more than it says (%s)", settings.system, "; ".join(others)
        )


def predict(
    member: Member,
    settings: Films,
    batch_size: int = 16,
    without: Trained | None = None,
    shard: Shard | None = None,
) -> Predictions:
    """What one member says, see ``mapping.predict``. Raises PneumoError."""
    asked = dataclasses.replace(settings, checkpoints=member.checkpoints)
    try:
        return mapping.predict(member.folder, asked, batch_size, without, shard)
    except NotJoined as found:
        typed = [f"{key}={value}" for key, value in {**asked_for(settings), **found.typed}.items()]
        command = shlex.join(["python", "-m", "pneumo.predict", *typed])
        raise NotJoined(found.folder, found.faults, command) from None


def predict_shard(settings: Predict) -> list[NotJoined]:
    """Make a part of the films' maps by each of the runs asked for.

    Returns what keeps those runs' maps from being joined whose shards are not all there. Raises
    PneumoError.
    """
    members = members_of(settings)
    way(settings, len(members))
    without = _trained(members) if settings.seen is Seen.exclude else None
    left = []
    for member in members:
        try:
            predict(member, settings, settings.batch_size, without, settings.part)
        except NotJoined as missing:
            left.append(missing)
    return left


def _trained(members: Sequence[Member]) -> Trained:
    """What any of the members was trained on. Raises PneumoError."""
    each = []
    for member in members:
        known = mapping.trained_by(member.folder)
        if known is None:
            raise PneumoError(
                f"seen=exclude: what {member.folder} was trained on is not known; use seen=keep"
            )
        each.append(known)
    return Trained.join(each)


def blend(
    each: Sequence[Predictions], members: Sequence[Member], settings: Films
) -> list[Predictions]:
    """What several runs say, as one, by ``settings`` or their system. Raises PneumoError."""
    groups = by_fold(members, way(settings, len(each)))
    folder = Path(settings.runs_dir) / "ensembles"
    parts = [
        united([each[i] for i in places], [members[i] for i in places], folder) for places in groups
    ]
    _check_disjoint(parts)
    if presence_of(settings) is Presence.stack:
        return _stacked(parts, each, members, groups, settings)
    return parts


def one_by_one(settings: Films) -> list[Predictions]:
    """The predictions of each run for itself. Raises PneumoError."""
    return [predict(member, settings) for member in members_of(settings)]


def of_validation(settings: Films) -> Films:
    """The settings that ask the same runs for their own validation films; folds are joined.

    Raises PneumoError.
    """
    asked = Films(
        run=settings.run,
        system=settings.system,
        setting=settings.setting,
        blend=settings.blend,
        checkpoints=settings.checkpoints,
        size=settings.size,
        runs_dir=settings.runs_dir,
        machine=settings.machine,
    )
    members = members_of(settings)
    if len({member.fold for member in members}) > 1:
        asked.blend = Blend.mean_folds  # each network knows its own validation films only
    if settings.on == "test":  # films of the same data set, which may lie elsewhere now
        asked.root, asked.annotations = settings.root, settings.annotations
        asked.patients = settings.patients
    return asked


def on_validation(settings: Films) -> list[Predictions]:
    """The predictions of the same runs on their own validation films. Raises PneumoError."""
    return gather(of_validation(settings))


def stack_of(settings: Films, tta: bool = True) -> Stack:
    """The classifier of a system that stacks, fitted on all its validation films.

    Raises PneumoError.
    """
    asked = of_validation(settings)
    members = members_of(asked)
    each = [predict(member, asked) for member in members]
    said = _joined(each, members, by_fold(members, way(asked, len(each))), tta)
    return stack.fit(said.names, said.x, said.positive)


def _stacked(
    parts: list[Predictions],
    each: Sequence[Predictions],
    members: Sequence[Member],
    groups: list[list[int]],
    settings: Films,
) -> list[Predictions]:
    """The same maps with presence scores by a classifier that was not fitted on these films.

    On validation films it is one of the other folds, or of the other half by patient; on other
    films one of all validation films. Films that it would be fitted on are refused, or, with
    tune=optimistic, marked.
    """
    if settings.on == "val":
        columns = []
        group, how = apart(parts, 0)
        how = how.replace("chosen", "fitted").replace("scored", "used")
        for tta in (False, True):
            said = _joined(each, members, groups, tta)
            probability, fitted = stack.out_of_group(said.names, said.x, said.positive, group)
            columns.append(probability)
        fitted_on = [np.array(said.ids)[group != number].tolist() for number in np.unique(group)]
        optimistic = False
    else:
        how = "fitted on all validation films"
        fitted = [stack_of(settings, tta) for tta in (False, True)]
        fitted_on = [[image for part in on_validation(settings) for image in part.ids]]
        seen = set(fitted_on[0]) & {image for part in parts for image in part.ids}
        optimistic = bool(seen)
        tune = getattr(settings, "tune", Tune.optimistic)  # other commands score nothing
        if seen and tune is not Tune.optimistic:
            raise PneumoError(
                f"on={settings.on}: {len(seen):,} of these films are among those that the stack "
                "was fitted on; judge them with on=val, where none is, or with tune=optimistic, "
                "which marks the result"
            )
        columns = [fitted[tta](_joined(each, members, groups, bool(tta)).x) for tta in range(2)]
    scores = np.column_stack(columns).astype(np.float32)
    about = {
        "presence": "stack",
        "how": how,
        "optimistic": optimistic,
        "members": [_told(member, one) for member, one in zip(members, each, strict=True)],
        "stacks": [one.to_dict() for one in fitted],
        "fitted_on": fitted_on,
    }
    files.write_json(_record(parts, settings), about)
    ends = np.cumsum([len(part) for part in parts])
    blended = []
    for part, own in zip(parts, np.split(scores, ends[:-1]), strict=True):
        contents = {**part.contents, "optimistic": optimistic, "presence_by": how}
        blended.append(dataclasses.replace(part, scores=own, contents=contents))
    return blended


def _record(parts: Sequence[Predictions], settings: Films) -> Path:
    """Where it is written what a stack was made of."""
    name = files.digest([str(part.folder) for part in parts])[:12]
    return Path(settings.runs_dir) / "ensembles" / f"stack-{name}" / RECORD


def _told(member: Member, part: Predictions) -> dict[str, Any]:
    """A member as a blend's record has it."""
    return {
        "run": str(member.folder),
        "weights": part.contents["weights"],
        "checkpoints": member.checkpoints.name,
        "weight": member.weight,
        "tells": member.tells,
    }


def _joined(
    each: Sequence[Predictions],
    members: Sequence[Member],
    groups: Sequence[Sequence[int]],
    tta: bool = True,
) -> Said:
    """What the telling members of all groups say, one group after the other."""
    said = [_said([each[i] for i in own], [members[i] for i in own], tta) for own in groups]
    if any(one.names != said[0].names for one in said):
        raise PneumoError("a stack needs the same networks in every fold")
    return Said(
        said[0].names,
        np.concatenate([one.x for one in said]),
        np.concatenate([one.positive for one in said]),
        [image for one in said for image in one.ids],
    )


def _said(each: Sequence[Predictions], members: Sequence[Member], tta: bool) -> Said:
    """What the telling members of one group say: the mean over the runs of each experiment."""
    by_experiment: dict[str, list[tuple[list[str], np.ndarray]]] = {}
    for part, member in zip(each, members, strict=True):
        if member.tells:
            told = stack.features(part.histograms(tta), part.presence(tta))
            by_experiment.setdefault(member.record.config.experiment, []).append(told)
    names, columns = [], []
    for experiment, runs_of_it in by_experiment.items():
        names += [f"{experiment}: {name}" for name in runs_of_it[0][0]]
        columns.append(np.mean([x for _, x in runs_of_it], axis=0))
    cases = each[0].cases
    positive = np.array([bool(case.annotations) for case in cases])
    return Said(names, np.concatenate(columns, axis=1), positive, [case.id for case in cases])


def _check_disjoint(parts: Sequence[Predictions]) -> None:
    ids = [image for part in parts for image in part.ids]
    if len(set(ids)) < len(ids):
        raise PneumoError(
            "several folds were judged on the same films, so they cannot be joined; blend=mean "
            "averages them"
        )


def united(each: Sequence[Predictions], members: Sequence[Member], ensembles: Path) -> Predictions:
    """The weighted mean of maps on the same films, in levels, at the largest of their sizes.

    Presence is the mean of the members that tell it. Raises PneumoError if films or their truth
    differ.
    """
    if len(each) == 1:
        return each[0]
    first = each[0]
    for other in each[1:]:
        if other.ids != first.ids:
            raise PneumoError(
                f"{other.contents['run']} and {first.contents['run']} were judged on different "
                "films, so their maps cannot be averaged; blend=folds joins a cross-validation"
            )
        pairs = zip(other.cases, first.cases, strict=True)
        if any(ours.annotations != theirs.annotations for ours, theirs in pairs):
            raise PneumoError(
                f"{other.contents['run']} and {first.contents['run']} were judged by different "
                "truths of the same films"
            )
    averaged = [
        (one, member.weight) for one, member in zip(each, members, strict=True) if member.weight > 0
    ]
    weights = [weight for _, weight in averaged]
    told = [
        one.scores
        for one, member in zip(each, members, strict=True)
        if member.tells and one.scores is not None
    ]
    parts_played = [(member.weight, member.tells, member.checkpoints.name) for member in members]
    plain_mean = len(set(parts_played)) == 1 and parts_played[0] == (1.0, True, "final")
    how = [] if plain_mean else [parts_played]  # so that plain means keep their places
    name = files.digest([str(member.folder.resolve()) for member in members] + how)[:12]
    size = max(one.contents["size"] for one, _ in averaged)
    key = files.digest([maps.VERSION, *(one.contents["key"] for one in each), *how])

    def fill(arrays: maps.Arrays, begin: int) -> Iterator[int]:
        if told:
            arrays.presence[:] = np.mean(told, axis=0)
        count = len(arrays.plain)
        for row in range(begin, count):
            for out, tta in ((arrays.plain, False), (arrays.flip, True)):
                maps_of_film = [one.map(row, tta, size) for one, _ in averaged]
                out[row] = np.average(maps_of_film, axis=0, weights=weights).round()
            if row % 256 == 255 or row == count - 1:
                yield row + 1

    names = [str(one.contents["run"]) for one, _ in averaged]
    if len(names) > 3:
        names = [f"{len(names)} runs: {names[0]}", "…", names[-1]]
    facts = {
        "on": first.contents["on"],
        "run": f"mean of {', '.join(names)}",
        "members": [one.contents["weights"] for one in each],
        "weights": files.digest([one.contents["weights"] for one in each]),
        "left_out": first.contents["left_out"],
        "excluded": first.contents.get("excluded", 0),
        **{
            key: _most([one.contents[key] for one in each])
            for key in ("seen_in_training", "patients_in_training")
        },
    }
    return maps.write(ensembles / name / first.folder.name, key, first.cases, size, fill, facts)


def _most(counts: Sequence[int | None]) -> int | None:
    """The largest count, None if one is unknown.

    Of an ensemble, at least so many films were in some member's training data.
    """
    if any(count is None for count in counts):
        return None
    return max(count or 0 for count in counts)


@contextlib.contextmanager
def without_news() -> Iterator[None]:
    """Leave out what preparing data says: it was said when the run was trained. Warnings stay."""
    talkative = [logging.getLogger(f"pneumo.{name}") for name in ("training.loader", "pool")]
    levels = [logger.level for logger in talkative]
    for logger in talkative:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(talkative, levels, strict=True):
            logger.setLevel(level)
