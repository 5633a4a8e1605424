"""Finished runs → probability maps of their validation part, of a test set, or of any folder of films."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pneumo import files, runs
from pneumo.data import cache
from pneumo.data.films import Item, read_folder
from pneumo.data.settings import Data, OnError, PhantomData
from pneumo.data.sources import phantom, siim
from pneumo.errors import PneumoError
from pneumo.inference import maps
from pneumo.inference.maps import Predictions
from pneumo.inference.settings import Films
from pneumo.settings import Machine
from pneumo.training import loader
from pneumo.training.device import torch_device
from pneumo.training.network import build_network
from pneumo.training.settings import Config, recorded_config
from pneumo.training.weights import load_weights

FLUSH = 16  # batches after which maps are sure to be on disk


@dataclass
class Part:
    """Films to predict: what is known of each, and its row in a cache at the network's resolution."""

    cases: list[maps.Case]
    films: cache.Cache
    rows: np.ndarray
    left_out: list[str] = field(
        default_factory=list
    )  # films asked for that are not there or cannot be read, with reasons


def asked_for(settings: Films) -> dict[str, str]:
    """The settings that choose runs and films, as typed, without those left at their defaults."""
    run = settings.run if isinstance(settings.run, str) else f"[{','.join(map(str, settings.run))}]"
    rest = {key: getattr(settings, key) for key in ("on", "ids", "root", "annotations", "patients")}
    return {"run": run, **{key: str(value) for key, value in rest.items() if value is not None}}


_gathered: dict[str, list[Predictions]] = {}


def gather(settings: Films, batch_size: int = 16) -> list[Predictions]:
    """The predictions asked for, made where they are missing: one for a run or the mean of several on the same films; or,
    for the folds of one cross-validation, one for each.

    Asked for again in one process (a sweep over thresholds), they are not looked for anew.

    Raises:
        PneumoError: runs that are not finished, films that cannot be had, or runs that can be neither averaged nor joined.
    """
    folders = runs.find(settings.run)
    key = files.digest([asked_for(settings), settings.runs_dir, os.getcwd()])
    if key not in _gathered:
        _gathered[key] = _gather(folders, settings, batch_size)
    return _gathered[key]


def _gather(folders: list[Path], settings: Films, batch_size: int) -> list[Predictions]:
    each = [predict(folder, settings, batch_size) for folder in folders]
    if len(each) == 1:
        return each
    if all(one.ids == each[0].ids for one in each):
        for one in each:
            if any(
                a.annotations != b.annotations
                for a, b in zip(one.cases, each[0].cases, strict=True)
            ):
                raise PneumoError(
                    f"{one.contents['run']} and {each[0].contents['run']} were judged by different truths of the same films"
                )
        name = files.digest([str(folder.resolve()) for folder in folders])[:12]
        return [
            maps.average(each, Path(settings.runs_dir) / "ensembles" / name / each[0].folder.name)
        ]
    _check_folds(folders)
    return each


def _check_folds(folders: list[Path]) -> None:
    """Refuse to join runs that are not different folds of one cross-validation."""
    records = [runs.read_record(folder)["config"] for folder in folders]
    same = [
        {key: record[key] for key in ("experiment", "variant", "seed", "split", "data")}
        for record in records
    ]
    numbers = [record["fold"] for record in records]
    if (
        records[0]["split"]["kind"] != "kfold"
        or len(set(numbers)) < len(numbers)
        or any(one != same[0] for one in same)
    ):
        raise PneumoError(
            "these runs were judged on different films, and are not the folds of one cross-validation (same experiment, seed, data and "
            "split=kfold5, another fold each), so they can be neither averaged nor joined"
        )


def predict(folder: Path, settings: Films, batch_size: int = 16) -> Predictions:
    """One run's maps on one set of films, made unless they are there. Raises PneumoError."""
    record = runs.read_record(folder)
    declared = _declared(folder, record, settings)
    weights = files.sha256(folder / runs.WEIGHTS)
    name = settings.on if settings.on in ("val", "test") else _name(Path(settings.on))
    place = folder / maps.FOLDER / name
    if (
        settings.on == "val"
    ):  # the run's record says which films these are, so that nothing need be looked at
        key = files.digest([maps.VERSION, weights, record["data"]])
        if maps.key_of(place) == key:
            with contextlib.suppress(PneumoError):  # damaged ones are made anew
                return maps.load(place)
        part = _validation(declared, record)
    else:
        part = _test(declared, settings) if settings.on == "test" else _folder(declared, settings)
        known = [{**vars(case), "path": ""} for case in part.cases]  # wherever they lie
        key = files.digest([maps.VERSION, weights, part.films.fingerprint, known])
    facts = {
        "on": settings.on,
        "run": str(folder),
        "weights": weights,
        "left_out": part.left_out,
        **_seen(folder, record, part, settings.on),
    }
    fill = _Filler(declared, folder, part, settings.machine, batch_size)
    return maps.write(place, key, part.cases, declared.resolution.size, fill, facts)


def _declared(folder: Path, record: dict[str, Any], settings: Films) -> Config:
    """The run's configuration, with the places where its runs folder, cache and data lie now."""
    declared = recorded_config(record["config"])
    here = folder.resolve()
    known = len(here.parts) > 3 and here.parts[-3] == declared.experiment
    declared = dataclasses.replace(
        declared, runs_dir=str(here.parents[2]) if known else settings.runs_dir
    )
    moved = {
        key: getattr(settings, key)
        for key in ("root", "annotations", "patients", "on_error")
        if getattr(settings, key) is not None
    }
    if settings.on not in ("val", "test"):
        moved = {}
    if declared.data.cache == f"{record['config']['runs_dir']}/cache":  # it moves with the runs
        moved["cache"] = f"{declared.runs_dir}/cache"
    return dataclasses.replace(declared, data=dataclasses.replace(declared.data, **moved))


def _seen(folder: Path, record: dict[str, Any], part: Part, on: str) -> dict[str, Any]:
    """How many of the films, and how many films of their patients, these weights were trained on; None if it is not known."""
    trained = runs.trained_on(folder, record)
    if trained is None:
        return {"seen_in_training": None if on != "val" else 0, "patients_in_training": None}
    patients = {patient for patient in trained.values() if patient}
    known = any(case.patient for case in part.cases) and bool(patients)
    return {
        "seen_in_training": sum(case.id in trained for case in part.cases),
        "patients_in_training": sum(case.patient in patients for case in part.cases)
        if known
        else None,
    }


def _validation(declared: Config, record: dict[str, Any]) -> Part:
    """The run's own validation part. Raises PneumoError if the data is not what it was trained on any more."""
    made = loader.FilmData(declared)
    made.prepare()
    now = made.record()
    for key, what in (("parts", "films"), ("annotations", "annotations")):
        if record["data"].get(key) not in (None, now[key]):
            raise PneumoError(
                f"the {what} of {declared.data.root} are not those this run was trained on; its validation part is not known any more"
            )
    items = {item.id: item for item in made.index.items}
    rows = made.parts.validation
    chosen = [
        dataclasses.replace(items[made.films.ids[row]], patient=made.patients[row]) for row in rows
    ]
    return Part(maps.cases_of(chosen, labelled=True), made.films, rows)


def _test(declared: Config, settings: Films) -> Part:
    """The round-1 test set; for phantoms, films that no run has seen."""
    source = declared.data
    if isinstance(source, PhantomData):
        limit = min(source.images, declared.scale.images or source.images)
        fresh = dataclasses.replace(source, images=max(4, limit // 4), seed=source.seed + 1_000_000)
        fresh = dataclasses.replace(fresh, root=f"{source.root}-test" if source.root else None)
        source = phantom.in_place(declared.scale.of(fresh), declared.runs_dir)
        return _part(siim.read_index(source).items, declared, OnError.stop, labelled=True)
    listed = settings.ids or source.round1_test
    if not listed:
        raise PneumoError(
            "on=test needs the ids of the round-1 test set: ids=<stage_1_sample_submission.csv>"
        )
    wanted = siim.read_ids(Path(listed))
    items = {item.id: item for item in siim.read_index(dataclasses.replace(source, round=2)).items}
    absent = [
        f"{image}: not below {source.root}, or not in its table"
        for image in wanted
        if image not in items
    ]
    if len(absent) == len(wanted):
        raise PneumoError(f"{source.root}: none of the films of {listed} is there")
    part = _part(
        [items[image] for image in wanted if image in items],
        declared,
        source.on_error,
        labelled=True,
    )
    return dataclasses.replace(part, left_out=absent + part.left_out)


def _folder(declared: Config, settings: Films) -> Part:
    """Any folder of films, with its table of run lengths if there is one."""
    on_error = settings.on_error or OnError.stop
    if not settings.annotations:
        return _part(read_folder(Path(settings.on)), declared, on_error, labelled=False)
    index = siim.read_index(
        Data("folder", settings.on, settings.annotations, settings.patients, on_error=on_error)
    )
    part = _part(index.items, declared, on_error, labelled=True)
    reasons = [f"{case}: {reason}" for reason, cases in index.left_aside.items() for case in cases]
    return dataclasses.replace(part, left_out=reasons + part.left_out)


def _part(items: list[Item], declared: Config, on_error: OnError, labelled: bool) -> Part:
    limit = declared.data.max_megapixels * 1_000_000
    made = cache.build(items, declared.resolution.size, Path(declared.data.cache), on_error, limit)
    if not any(item.patient for item in items):
        found = siim.patients_from_films(items)
        items = [dataclasses.replace(item, patient=found.get(item.id)) for item in items]
    kept = {item.id: item for item in items}
    cases = maps.cases_of([kept[image] for image in made.ids], labelled)
    return Part(cases, made, np.arange(len(made.ids)), made.left_aside)


def _name(folder: Path) -> str:
    """A folder's predictions are kept under its name and a digest of its place."""
    if not folder.is_dir():
        raise PneumoError(f"on={folder}: must be val, test, or a folder of films that exists")
    return f"{folder.resolve().name}-{files.digest(str(folder.resolve()))[:8]}"


class _Filler:
    """Writes the maps of a part, batch by batch; the network is loaded when it is needed."""

    def __init__(self, declared: Config, run: Path, part: Part, machine: Machine, batch_size: int):
        self.declared, self.run, self.part, self.machine, self.batch_size = (
            declared,
            run,
            part,
            machine,
            batch_size,
        )

    @torch.inference_mode()
    def __call__(self, plain: np.ndarray, flip: np.ndarray, begin: int) -> Iterator[int]:
        if self.machine.threads:
            torch.set_num_threads(self.machine.threads)
        device = torch_device(self.machine)
        network = build_network(self.declared.model, pretrained=False)
        load_weights(network, self.run / runs.WEIGHTS, "run")
        network.eval().to(device)
        title, rows = "Predicting films", self.part.rows
        with tqdm(
            total=len(rows), initial=begin, desc=title, unit="film", disable=not sys.stderr.isatty()
        ) as bar:
            for start in range(begin, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                for row in batch.tolist():
                    self.part.films.verify(row)
                stop = start + len(batch)
                plain[start:stop], flip[start:stop] = predict_batch(
                    network, self.part.films.images[batch], device
                )
                bar.update(len(batch))
                if start // self.batch_size % FLUSH == FLUSH - 1 or stop == len(rows):
                    yield stop


def predict_batch(
    network: torch.nn.Module, films: np.ndarray, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Films uint8 (n, H, W) → probabilities without and with flip TTA, uint8 levels (n, H, W) each.

    TTA is the mean of the probabilities of the film and of its mirror image, mirrored back (paper, section "Testing").
    """
    x = torch.from_numpy(np.ascontiguousarray(films))[:, None].to(device)
    plain, mirrored = network(torch.cat([x, x.flip(-1)])).float().sigmoid().chunk(2)
    both = (plain + mirrored.flip(-1)) / 2
    as_levels = [(p[:, 0] * 255).round().to(torch.uint8).cpu().numpy() for p in (plain, both)]
    return as_levels[0], as_levels[1]
