"""``python -m pneumo.predict run=… on=val|test|<folder>``: probability maps of finished runs, with and without flip TTA."""

import dataclasses
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from pneumo import cache, command, config, data, files, model, predictions, runs, siim
from pneumo.config import Config, Data, Films, Machine, OnError, PhantomData
from pneumo.errors import PneumoError
from pneumo.predictions import Predictions

FLUSH = 16  # batches after which maps are sure to be on disk


@dataclass
class Part:
    """Films to predict: what is known of each, and its row in a cache at the network's resolution."""

    on: str
    cases: list[predictions.Case]
    films: cache.Cache
    rows: np.ndarray
    seen_in_training: int = 0


def task(raw: DictConfig) -> None:
    """The command."""
    settings = config.typed(raw)
    started = time.monotonic()
    for one in gather(settings, settings.batch_size):
        print(f"{len(one):,} films → {one.folder} ({time.monotonic() - started:.0f} s)")
        started = time.monotonic()
    folders = " ".join(sys.argv[1:])
    print(f"\nNext: python -m pneumo.evaluate {folders}")


def gather(settings: Films, batch_size: int = 16) -> list[Predictions]:
    """The predictions asked for, made where they are missing: one for a run or the mean of several on the same films; or,
    for runs whose validation parts have no film in common (the folds of a cross-validation), one for each.

    Raises:
        PneumoError: runs that are not finished, films that cannot be had, or runs whose films only partly agree.
    """
    folders = runs.find(settings.run)
    each = [predict(folder, settings, batch_size) for folder in folders]
    if len(each) == 1:
        return each
    ids = [set(one.ids) for one in each]
    if all(one.ids == each[0].ids for one in each):
        name = files.digest([str(folder) for folder in folders])[:12]
        place = Path(settings.runs_dir) / "ensembles" / name / each[0].folder.name
        return [predictions.average(each, place)]
    if sum(map(len, ids)) == len(set.union(*ids)):
        return each
    raise PneumoError(
        "these runs were validated on different films that overlap, so they can be neither averaged nor joined: "
        "give runs of one fold, or one run of each fold"
    )


def predict(folder: Path, settings: Films, batch_size: int = 16) -> Predictions:
    """One run's maps on one set of films, made unless they are there. Raises PneumoError."""
    record = runs.read_record(folder)
    declared = dataclasses.replace(config.recorded(record["config"]), runs_dir=str(folder.parents[2]))
    if declared.data.cache == f"{record['config']['runs_dir']}/cache":  # moved with the runs
        declared = dataclasses.replace(declared, data=dataclasses.replace(declared.data, cache=f"{declared.runs_dir}/cache"))
    weights = files.sha256(folder / runs.WEIGHTS)
    name = settings.on if settings.on in ("val", "test") else _name(Path(settings.on))
    place = folder / predictions.FOLDER / name
    if settings.on == "val":  # the run's record says which films these are, so that nothing need be looked at
        key = files.digest([predictions.VERSION, weights, record["data"]])
        if predictions.key_of(place) == key:
            return predictions.load(place)
    part = films(declared, record, settings)
    if settings.on != "val":
        key = files.digest([predictions.VERSION, weights, part.films.fingerprint, [dataclasses.asdict(case) for case in part.cases]])
    facts = {"on": settings.on, "run": str(folder), "weights": weights, "seen_in_training": part.seen_in_training}
    fill = _Filler(declared, folder, part, settings.machine, batch_size)
    return predictions.write(place, key, part.cases, declared.resolution.size, fill, facts)


def films(declared: Config, record: dict[str, Any], settings: Films) -> Part:
    """The films of ``settings.on``, cached at the run's resolution. Raises PneumoError."""
    if settings.on not in ("val", "test"):
        return _folder(declared, settings)
    test = _test(declared, settings) if settings.on == "test" else None
    training = data.FilmData(declared)
    training.prepare()
    if training.record()["parts"] != record["data"]["parts"]:
        raise PneumoError("the run's data changed since it was trained, so its validation part is not known any more")
    if test is None:
        items = {item.id: item for item in training.index.items}
        rows = training.parts.validation
        chosen = [dataclasses.replace(items[training.films.ids[row]], patient=training.patients[row]) for row in rows]
        return Part("val", predictions.cases_of(chosen, labelled=True), training.films, rows)
    seen = {training.films.ids[row] for row in training.parts.training}
    return dataclasses.replace(test, seen_in_training=sum(case.id in seen for case in test.cases))


def _test(declared: Config, settings: Films) -> Part:
    """The round-1 test set; for phantoms, films that no run has seen."""
    source = declared.data
    if isinstance(source, PhantomData):
        limit = min(source.images, declared.scale.images or source.images)
        fresh = dataclasses.replace(source, images=max(4, limit // 4), seed=source.seed + 1_000_000)
        fresh = dataclasses.replace(fresh, root=f"{source.root}-test" if source.root else None)
        source = data.phantom_in_place(fresh, declared.runs_dir, declared.scale)
        wanted = None
    else:
        listed = settings.ids or source.round1_test
        if not listed:
            raise PneumoError("on=test needs the ids of the round-1 test set: ids=<stage_1_sample_submission.csv>")
        wanted = set(siim.read_ids(Path(listed)))
    index = siim.read_index(dataclasses.replace(source, round=2))
    items = [item for item in index.items if wanted is None or item.id in wanted]
    if not items:
        raise PneumoError(f"{source.root}: none of the films of {settings.ids or source.round1_test} is there")
    return _part("test", items, declared, source.on_error, labelled=True)


def _folder(declared: Config, settings: Films) -> Part:
    """Any folder of films, with its table of run lengths if there is one."""
    if settings.annotations:
        source = Data("folder", settings.on, settings.annotations, settings.patients, on_error=settings.on_error)
        return _part(settings.on, siim.read_index(source).items, declared, settings.on_error, labelled=True)
    return _part(settings.on, siim.read_folder(Path(settings.on)), declared, settings.on_error, labelled=False)


def _part(on: str, items: list[siim.Item], declared: Config, on_error: OnError, labelled: bool) -> Part:
    limit = declared.data.max_megapixels * 1_000_000
    made = cache.build(items, declared.resolution.size, Path(declared.data.cache), on_error, limit)
    for reason in made.left_aside:
        print(f"left out: {reason}")
    kept = {item.id: item for item in items}
    cases = predictions.cases_of([kept[image] for image in made.ids], labelled)
    return Part(on, cases, made, np.arange(len(made.ids)))


def _name(folder: Path) -> str:
    """A folder's predictions are kept under its name and a digest of its place."""
    if not folder.is_dir():
        raise PneumoError(f"on={folder}: must be val, test, or a folder of films that exists")
    return f"{folder.resolve().name}-{files.digest(str(folder.resolve()))[:8]}"


class _Filler:
    """Writes the maps of a part, batch by batch; the network is loaded when it is needed."""

    def __init__(self, declared: Config, run: Path, part: Part, machine: Machine, batch_size: int):
        self.declared, self.run, self.part, self.machine, self.batch_size = declared, run, part, machine, batch_size

    @torch.inference_mode()
    def __call__(self, plain: np.ndarray, flip: np.ndarray, begin: int) -> Iterator[int]:
        if self.machine.threads:
            torch.set_num_threads(self.machine.threads)
        device = device_of(self.machine)
        network = model.build(self.declared.model, pretrained=False)
        model.load_weights(network, self.run / runs.WEIGHTS, "run")
        network.eval().to(device)
        title, rows = f"Predicting {self.part.on}", self.part.rows
        with tqdm(total=len(rows), initial=begin, desc=title, unit="film", disable=not sys.stderr.isatty()) as bar:
            for start in range(begin, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                for row in batch.tolist():
                    self.part.films.verify(row)
                stop = start + len(batch)
                plain[start:stop], flip[start:stop] = maps(network, self.part.films.images[batch], device)
                bar.update(len(batch))
                if start // self.batch_size % FLUSH == FLUSH - 1 or stop == len(rows):
                    yield stop


def device_of(machine: Machine) -> torch.device:
    """The device of ``machine.accelerator``. Raises PneumoError if this machine has none."""
    names = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    wanted = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")}.get(machine.accelerator, (machine.accelerator,))
    for name in wanted:
        if names[name]:
            return torch.device(name)
    raise PneumoError(f"machine.accelerator={machine.accelerator}: not on this machine")


def maps(network: torch.nn.Module, films: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Films uint8 (n, H, W) → probabilities without and with flip TTA, uint8 levels (n, H, W) each.

    TTA is the mean of the probabilities of the film and of its mirror image, mirrored back (paper, section "Testing").
    """
    x = torch.from_numpy(np.ascontiguousarray(films))[:, None].to(device)
    plain, mirrored = network(torch.cat([x, x.flip(-1)])).float().sigmoid().chunk(2)
    both = (plain + mirrored.flip(-1)) / 2
    as_levels = [(p[:, 0] * 255).round().to(torch.uint8).cpu().numpy() for p in (plain, both)]
    return as_levels[0], as_levels[1]


if __name__ == "__main__":
    sys.argv[0] = "pneumo.predict"
    command.run(task, "predict")
