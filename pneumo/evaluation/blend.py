"""The maps of several runs → one result, by a named way. Nothing is guessed from the films' ids.

mean        runs on the same films: the mean of their maps
folds       the folds of one cross-validation: each film from the fold that held it out
mean_folds  first the mean of the networks of each fold, then the folds joined
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pneumo import files, runs
from pneumo.errors import PneumoError
from pneumo.inference import mapping, maps
from pneumo.inference.maps import Predictions
from pneumo.inference.settings import Films
from pneumo.training import record
from pneumo.training.lineage import INCIDENTAL, NAMED, SHARED
from pneumo.training.record import Record
from pneumo.training.settings import Blend, System, system_of

_gathered: dict[str, list[Predictions]] = {}


def asked_for(settings: Films) -> dict[str, str]:
    """The settings that choose runs and films, as typed, without those left at their defaults."""
    asked: dict[str, str] = {}
    if settings.system is not None:
        asked["+system"] = settings.system
    elif isinstance(settings.run, str):
        asked["run"] = settings.run
    else:
        asked["run"] = f"[{','.join(map(str, settings.run))}]"
    if settings.blend is not None:
        asked["blend"] = settings.blend.name
    for key in ("setting", "on", "size", "ids", "root", "annotations", "patients"):
        value = getattr(settings, key)
        if value is not None:
            asked[key] = str(value)
    if settings.mask_size is not None:
        asked["mask_size"] = settings.mask_size.name
    return asked


def folders_of(settings: Films) -> list[Path]:
    """The finished runs that ``run`` or ``system`` names. Raises PneumoError."""
    if settings.system is None:
        return runs.find(settings.run)
    if settings.run is not None:
        raise PneumoError("run and system are both set; choose one")
    system = system_of(settings.system)
    return [
        _member(settings, system, experiment, fold)
        for fold in system.folds
        for experiment in system.experiments
    ]


def _member(settings: Films, system: System, experiment: str, fold: int) -> Path:
    """The finished run of one of a system's experiments and folds."""
    tag, variant = runs.tags(system.overrides, SHARED, NAMED, INCIDENTAL)
    candidates = []
    pattern = f"{experiment}/{settings.setting or '*'}/fold{fold}-seed*"
    for folder in sorted(Path(settings.runs_dir).glob(pattern)):
        # what the system itself overrides stands in the run's names, unless the user chose them
        tagged = bool(settings.setting) or not tag or folder.parent.name.endswith(f"-{tag}")
        if tagged and folder.name.endswith(variant) and runs.is_finished(folder):
            candidates.append(folder)
    if not candidates:
        raise PneumoError(
            f"system {system.name}: no finished run of {experiment}, fold {fold}, below "
            f"{settings.runs_dir}; make it with python -m pneumo.train +system={system.name} …"
        )
    if len(candidates) > 1:
        names = ", ".join(str(folder) for folder in candidates[:4])
        raise PneumoError(
            f"system {system.name}: several runs of {experiment}, fold {fold} ({names}); choose "
            "with setting=<data>-<scale>, or name the runs, run=[…] blend=…"
        )
    return candidates[0]


def gather(settings: Films, batch_size: int = 16) -> list[Predictions]:
    """The predictions asked for, made where they are missing; several where folds are joined.

    Asked for again in one process (a sweep over thresholds), they are not looked for anew.

    Raises:
        PneumoError: runs that are not finished, films that cannot be had, or runs that do not fit
            the blend.
    """
    folders = folders_of(settings)
    _way(settings, len(folders))
    key = files.digest([asked_for(settings), settings.runs_dir, os.getcwd()])
    if key not in _gathered:
        each = [mapping.predict(folder, settings, batch_size) for folder in folders]
        _gathered[key] = blend(each, folders, settings)
    return _gathered[key]


def blend(each: list[Predictions], folders: list[Path], settings: Films) -> list[Predictions]:
    """The maps of several runs by ``settings.blend``, or the system's. Raises PneumoError."""
    how = _way(settings, len(each))
    if len(each) == 1:
        return each
    ensembles = Path(settings.runs_dir) / "ensembles"
    if how is Blend.mean:
        return [mean(each, folders, ensembles)]
    records = [record.read(folder) for folder in folders]
    groups: dict[int, list[int]] = {}
    for place, about in enumerate(records):
        groups.setdefault(about.config.fold, []).append(place)
    if how is Blend.folds and len(groups) < len(each):
        raise PneumoError(
            "blend=folds: two of these runs are of the same fold; blend=mean_folds averages the "
            "networks of each fold first"
        )
    _check_folds(records, same_experiment=how is Blend.folds)
    if len({len(places) for places in groups.values()}) > 1:
        raise PneumoError("blend=mean_folds: every fold needs the same number of networks")
    joined = []
    for places in groups.values():
        members = [each[place] for place in places]
        several = len(members) > 1
        names = [folders[place] for place in places]
        joined.append(mean(members, names, ensembles) if several else members[0])
    _check_disjoint(joined)
    return joined


def one_by_one(settings: Films) -> list[Predictions]:
    """The predictions of each run for itself. Raises PneumoError."""
    return [mapping.predict(folder, settings) for folder in folders_of(settings)]


def on_validation(settings: Films) -> list[Predictions]:
    """The predictions of the same runs on their own validation films; folds are joined.

    Raises PneumoError.
    """
    folders = folders_of(settings)
    asked = Films(
        run=[str(folder) for folder in folders],
        blend=settings.blend,
        runs_dir=settings.runs_dir,
        machine=settings.machine,
    )
    if settings.system is not None:
        asked.blend = system_of(settings.system).blend
    if len({record.read(folder).config.fold for folder in folders}) > 1:
        asked.blend = Blend.mean_folds  # each network knows its own validation films only
    if settings.on == "test":  # films of the same data set, which may lie elsewhere now
        asked.root, asked.annotations = settings.root, settings.annotations
        asked.patients = settings.patients
    return gather(asked)


def _way(settings: Films, count: int) -> Blend | None:
    """How so many runs become one: as asked for, or as the system says. Raises PneumoError."""
    how = settings.blend
    if how is None and settings.system is not None:
        how = system_of(settings.system).blend
    if how is None and count > 1:
        raise PneumoError(
            f"run names {count} runs: say how they become one, blend=mean (runs on the same "
            "films), blend=folds (join a cross-validation) or blend=mean_folds; to compare methods "
            "over several fits, name several runs of each, run=[…] against=[…]"
        )
    return how


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


def _check_disjoint(parts: Sequence[Predictions]) -> None:
    ids = [image for part in parts for image in part.ids]
    if len(set(ids)) < len(ids):
        raise PneumoError(
            "several folds were judged on the same films, so they cannot be joined; blend=mean "
            "averages them"
        )


def mean(members: list[Predictions], folders: list[Path], ensembles: Path) -> Predictions:
    """The mean of several runs' maps on the same films, at the largest of their sizes, in levels.

    Raises PneumoError if films or their truth differ.
    """
    first = members[0]
    for other in members[1:]:
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
    name = files.digest([str(folder.resolve()) for folder in folders])[:12]
    folder = ensembles / name / first.folder.name
    size = max(member.contents["size"] for member in members)
    key = files.digest([maps.VERSION, *(member.contents["key"] for member in members)])

    def fill(arrays: maps.Arrays, begin: int) -> Iterator[int]:
        told = [member.scores for member in members if member.scores is not None]
        if told:
            arrays.presence[:] = np.mean(told, axis=0)
        count = len(arrays.plain)
        for row in range(begin, count):
            for out, tta in ((arrays.plain, False), (arrays.flip, True)):
                maps_of_film = [member.map(row, tta, size) for member in members]
                out[row] = np.mean(maps_of_film, axis=0).round()
            if row % 256 == 255 or row == count - 1:
                yield row + 1

    facts = {
        "on": members[0].contents["on"],
        "run": "mean of " + ", ".join(str(member.contents["run"]) for member in members),
        "members": [member.contents["weights"] for member in members],
        "weights": files.digest([member.contents["weights"] for member in members]),
        "left_out": members[0].contents["left_out"],
        **{
            key: _most([member.contents[key] for member in members])
            for key in ("seen_in_training", "patients_in_training")
        },
    }
    return maps.write(folder, key, members[0].cases, size, fill, facts)


def _most(counts: Sequence[int | None]) -> int | None:
    """The largest count, None if one is unknown.

    Of an ensemble, at least so many films were in some member's training data.
    """
    if any(count is None for count in counts):
        return None
    return max(count or 0 for count in counts)
