"""Cached films → batches.

The ``LightningDataModule`` reads, divides and serves a data set; batches travel as uint8.
"""

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pneumo import files, pool
from pneumo.data import cache, index, likeness
from pneumo.data.films import KNOWN, Item, patients_from_films
from pneumo.data.likeness import Look
from pneumo.data.parts import divide, restore
from pneumo.data.settings import PhantomData, SeveralData
from pneumo.errors import PneumoError
from pneumo.masks.truth import Truth, least
from pneumo.training import augmentation, augmentation_device
from pneumo.training.device import uses_cuda
from pneumo.training.record import DataFacts
from pneumo.training.sampling import SIDE, EpochFilms, SharedSets
from pneumo.training.settings import Config

log = logging.getLogger(__name__)
Batch = dict[str, torch.Tensor]
OF_WHOLE_FILMS = ("goossen_cnn", "goossen_mil")  # experiments whose loss compares no masks


class FilmDataset(Dataset[Batch]):
    """Films of one part as dicts.

    ``image`` and ``mask`` uint8 (1, size, size), mask of 0 and 1, of the side of the augmentation's
    window, where it has one; ``row`` int64, its place in the cache, or -1 where the film counts for
    nothing (index -1).
    """

    def __init__(
        self,
        films: cache.Cache,
        rows: np.ndarray,
        transform: augmentation.Augment | None = None,
        seed: int = 0,
        on_device: augmentation_device.DeviceAugment | None = None,
    ):
        self.films, self.rows, self.transform, self.seed = films, rows, transform, seed
        self.on_device = on_device
        # persistent workers hold copies of all but this
        self.epoch: torch.Tensor = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._verified: set[int] = set()

    @property
    def side(self) -> int:
        """Of the films as they are served."""
        window = self.transform.config.window if self.transform else 0
        return window or self.films.images.shape[-1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Batch:
        return {key: values[0] for key, values in self.batch([index]).items()}

    def __getitems__(self, indices: list[int]) -> list[Batch]:
        """What a ``DataLoader`` collates: here one batch, made whole; see ``collate``."""
        return [self.batch(indices)]

    @staticmethod
    def collate(batches: list[Batch]) -> Batch:
        """The one batch of ``__getitems__``."""
        return batches[0]

    def batch(self, indices: list[int]) -> Batch:
        """Some of the films, in one array each of images and masks. Raises PneumoError: damage."""
        rows = self.rows[indices]
        images, masks = np.empty((2, len(rows), 1, self.side, self.side), np.uint8)
        for place, row in enumerate(rows.tolist()):
            images[place, 0], masks[place, 0] = self._film(row)
        batch = {
            "image": torch.from_numpy(images),
            "mask": torch.from_numpy(masks),
            "row": torch.from_numpy(np.where(np.less(indices, 0), -1, rows).astype(np.int64)),
        }
        if self.on_device is not None:
            keys = [self._key(row) for row in rows.tolist()]
            batch |= self.on_device.draw(images[:, 0], keys)
        return batch

    def _key(self, row: int) -> list[int]:
        """What decides every random choice of a film in this epoch."""
        return [self.seed, int(self.epoch), row]

    def _film(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and mask of a film, which may be views of the cache."""
        if row not in self._verified:
            self.films.verify(row)
            self._verified.add(row)
        # as plain arrays: what is done with memory maps makes memory maps, which takes longer
        image, mask = np.asarray(self.films.images[row]), np.asarray(self.films.masks[row])
        if self.transform is None:
            return image, mask
        return self.transform(image, mask, self._key(row))


class EpochSampler(Sampler[int]):
    """The films that training draws for an epoch; without a draw, every film in its order.

    Lightning calls ``set_epoch``. With several processes each takes its share of the one order: one
    film after the other in turn, so that their batches together are those of a single process.
    Where every film is served, some may get one more that counts for nothing, index -1.
    """

    def __init__(
        self,
        dataset: FilmDataset,
        drawn: EpochFilms | SharedSets | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.dataset, self.drawn = dataset, drawn
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.begun = 0  # films of the epoch that were drawn before it was broken off

    def set_epoch(self, epoch: int) -> None:
        """Choose the order, and the augmentations of the data set, of an epoch (from 0)."""
        self.epoch = epoch
        self.dataset.epoch.fill_(epoch)

    def __iter__(self) -> Iterator[int]:
        order = np.arange(len(self.dataset))
        if self.drawn is not None:
            order = self.drawn.order(self.epoch)
            # equal shares, or processes would wait for each other for ever
            order = order[: len(self) * self.world_size]
        else:
            order = np.pad(order, (0, -len(order) % self.world_size), constant_values=-1)
        own = order[self.rank :: self.world_size].tolist()
        begun, self.begun = self.begun, 0
        return iter(own[begun:])

    def __len__(self) -> int:
        if self.drawn is not None:
            return self.drawn.count(self.epoch) // self.world_size
        return math.ceil(len(self.dataset) / self.world_size)


class FilmData(pl.LightningDataModule):
    """A data set made ready: indexed, cached at the resolution, divided.

    ``prepare`` does it; the loaders serve it.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    def prepare(self, recorded: dict[str, dict[str, str | None]] | None = None) -> None:
        """Draw phantoms if asked for, index, cache and divide.

        Logs what was left aside and why. Raises PneumoError.

        Args:
            recorded: a division, as ``parts_by_id`` gives it, that is kept if it is of these films.
        """
        config, data = self.config, self.config.data
        if isinstance(data, PhantomData):
            data = config.scale.of(data)
        if isinstance(data, SeveralData):
            data = data.scaled(config.scale.of)
        self.index = index.read(data, config.runs_dir)
        self.truth = least(item.truth for item in self.index.items)
        self._check_truth()
        items = self._fewer(self.index.items)
        patients = {item.id: item.patient for item in items}
        if not any(patients.values()):
            patients.update(patients_from_films(items))
        folder = Path(data.cache)
        limit = data.max_megapixels * 1_000_000
        self.films = cache.build(items, config.resolution.size, folder, data.on_error, limit)
        labels = {item.id: item.positive for item in items}
        self.positive = [labels[image] for image in self.films.ids]
        self.patients = [patients[image] for image in self.films.ids]
        films = (self.positive, self.patients, config.split)
        kept = restore(recorded, self.films.ids, *films) if recorded else None
        self.parts = kept or divide(*films, config.fold)
        if self.films.left_aside:
            self.index.left_aside["films that could not be read"] = self.films.left_aside
        for reason, cases in self.index.left_aside.items():
            log.info("Left aside, %s: %s, e.g. %s", reason, f"{len(cases):,}", cases[0])
        changes = (config.augmentation, config.resolution)
        self.on_device = augmentation_device.build(*changes)
        transform = None if self.on_device else augmentation.build(*changes)
        positive = [self.positive[row] for row in self.parts.training]
        sampling = config.sampling
        areas = self._areas() if sampling.least_px else []
        self.drawn = self._epochs(positive, areas)
        if sampling.least_px:
            log.info(
                "Left out of training, masks of fewer than %s px at 1024² (sampling.least_px): "
                "%s of %s positive films",
                f"{sampling.least_px:,}",
                f"{self.drawn.left_out:,}",
                f"{sum(positive):,}",
            )
        self._check_enough()
        self.training = FilmDataset(
            self.films, self.parts.training, transform, config.seed, self.on_device
        )
        self.validation = FilmDataset(self.films, self.parts.validation)

    def _epochs(self, positive: list[bool], areas: list[float]) -> EpochFilms | SharedSets:
        """The films of each epoch, by the shares of data sets where they are stated."""
        config = self.config
        shares = config.data.shares if isinstance(config.data, SeveralData) else {}
        if not shares:
            return EpochFilms(config.sampling, positive, config.epochs, config.seed, areas)
        sets = np.array([self.index.set_of[self.films.ids[row]] for row in self.parts.training])
        each, told = [], []
        for name in sorted(set(sets)):
            places = np.flatnonzero(sets == name)
            own = [positive[place] for place in places]
            if not any(own) or all(own):
                raise PneumoError(
                    f"data.shares: the training films of {name} are all "
                    f"{'positive' if all(own) else 'negative'}, so they have no share of their own"
                )
            small = [areas[place] for place in places] if areas else []
            drawn = EpochFilms(config.sampling, own, config.epochs, config.seed, small)
            each.append((places, drawn))
            told.append(shares[name])
        return SharedSets(each, told)

    def _check_truth(self) -> None:
        """Refuse to learn masks from films of which none is known."""
        if self.truth is Truth.masks:
            return
        loss, sampling = self.config.loss, self.config.sampling
        known = f"data={self.config.data.format}: known of its films are {KNOWN[self.truth]}"
        if loss.needs_masks:
            raise PneumoError(
                f"{known}, and loss={loss.name} learns from masks; to learn from whole films: "
                f"{' or '.join(f'+experiment={name}' for name in OF_WHOLE_FILMS)}"
            )
        if sampling.least_px:
            raise PneumoError(
                f"{known}, so that sampling.least_px={sampling.least_px} cannot tell small masks; "
                "use sampling.least_px=0"
            )
        positives = sum(item.positive for item in self.index.items)
        if positives in (0, len(self.index.items)):
            raise PneumoError(
                f"{known}, and {positives:,} of {len(self.index.items):,} are positive: there is "
                "nothing to tell apart; a table of labels can say which others are negative "
                "(data.labels of data=boxes)"
            )

    def facts(self) -> DataFacts:
        """What a run's record keeps of the data: fingerprints and counts, no paths."""
        parts = (self.parts.training, self.parts.validation)
        ids = [[self.films.ids[i] for i in part] for part in parts]
        truth = sorted((item.id, item.annotations) for item in self.index.items)
        return DataFacts(
            films=self.films.fingerprint,
            parts=files.digest(ids),
            annotations=files.digest(truth),
            training=len(ids[0]),
            validation=len(ids[1]),
            validation_positive=sum(self.positive[i] for i in self.parts.validation),
            by_patient=self.parts.grouped,
            validation_positives_sharing_a_patient=self.parts.shared,
            left_aside={reason: len(cases) for reason, cases in self.index.left_aside.items()},
        )

    def look(self) -> Look:
        """What the training films look like."""
        rows = likeness.sample(self.parts.training)
        return likeness.look(self.films.images[row] for row in rows)

    def parts_by_id(self) -> dict[str, dict[str, str | None]]:
        """The films of each part, with their patients: what a run was trained and judged on."""
        return {
            name: {self.films.ids[i]: self.patients[i] for i in part}
            for name, part in (
                ("training", self.parts.training),
                ("validation", self.parts.validation),
            )
        }

    def _fewer(self, items: list[Item]) -> list[Item]:
        """At most ``scale.images`` films, chosen by ``split.seed``.

        They have the data's share of positives, or ``scale.positive_rate``.
        """
        scale = self.config.scale
        limit = scale.images
        if limit is None or len(items) <= limit:
            return items
        sets = sorted(set(self.index.set_of.values()))
        if len(sets) > 1:  # each set keeps its share
            of_set = [[one for one in items if self.index.set_of[one.id] == name] for name in sets]
            limits = [max(4, round(limit * len(own) / len(items))) for own in of_set]
            chosen = [self._drawn(own, most) for own, most in zip(of_set, limits, strict=True)]
            return [one for own in chosen for one in own]
        return self._drawn(items, limit)

    def _drawn(self, items: list[Item], limit: int) -> list[Item]:
        """So many of the films, see ``_fewer``."""
        scale = self.config.scale
        if len(items) <= limit:
            return items
        drawn = np.random.default_rng([self.config.split.seed, len(items)])
        order = drawn.permutation(len(items))
        positive = [i for i in order if items[i].positive]
        negative = [i for i in order if not items[i].positive]
        rate = scale.positive_rate or len(positive) / len(items)
        share = min(round(limit * rate), len(positive))
        return [items[i] for i in sorted([*positive[:share], *negative[: limit - share]])]

    def _areas(self) -> list[float]:
        """Pixels at 1024² of each training film's mask, by the mask that training sees.

        Shrinking keeps areas to half a pixel of the cached film.
        """
        scale = (SIDE / self.config.resolution.size) ** 2
        return [
            float(np.count_nonzero(self.films.masks[row])) * scale if self.positive[row] else 0.0
            for row in self.parts.training
        ]

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.training, self.drawn)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.validation)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a training batch on its device, where ``augmentation.on_device`` asks for it."""
        return self.on_device(batch) if self.on_device else batch

    def batches(self, epoch: int) -> int:
        """How many batches an epoch (from 0) of training has."""
        return max(1, self.drawn.count(epoch) // self.config.batch_size)

    @property
    def epochs_differ(self) -> bool:
        """Whether some epochs of training hold more films than others."""
        return len({self.drawn.count(epoch) for epoch in range(self.config.epochs)}) > 1

    def _check_enough(self) -> None:
        least = min(self.drawn.count(epoch) for epoch in range(self.config.epochs))
        processes = self.config.machine.processes
        if least < 2 * processes:
            raise PneumoError(
                f"sampling={self.config.sampling.name}: films of an epoch: {least}; batch norm "
                "needs two on each device, so add films or lower the share of positives"
            )
        if len(self.parts.validation) < processes:
            raise PneumoError(
                f"validation films: {len(self.parts.validation)}; {self.config.machine.shared} "
                "needs one for each, so use fewer or raise split.validation"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole fit."""
        each = (self.batches(epoch) for epoch in range(self.config.epochs))
        return sum(math.ceil(batches / self.config.optimizer.accumulate) for batches in each)

    def _loader(
        self, dataset: FilmDataset, drawn: EpochFilms | SharedSets | None = None
    ) -> DataLoader[Batch]:
        rank, world_size = 0, 1
        if self.trainer:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        sampler = EpochSampler(dataset, drawn, rank, world_size)
        if self.trainer and drawn:
            # Lightning starts the workers before it calls set_epoch, and counts the batches here
            progress = self.trainer.fit_loop.epoch_progress.current
            # and a fit whose epochs are all done looks at the last one again, for batch norm
            epoch = min(progress.processed, self.config.epochs - 1)  # type: ignore[attr-defined]
            sampler.set_epoch(epoch)
        batch_size = self.config.batch_size // world_size
        if self.trainer and drawn:
            sampler.begun = batch_size * _steps_begun(self.trainer)
        workers = self.config.machine.workers
        cuda = uses_cuda(self.config.machine)
        if workers < 0:  # a GPU waits for films, so decode beside it; a CPU has nothing to spare
            workers = min(max(1, pool.cores() // self.config.machine.devices), 8) if cuda else 0
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=dataset.collate,
            # a last batch of one would break batch norm
            drop_last=drawn is not None and len(sampler) >= batch_size,
            pin_memory=cuda,
            persistent_workers=workers > 0,
        )


def _steps_begun(trainer: pl.Trainer) -> int:
    """Batches of the current epoch that were done before a fit was broken off within it."""
    loop = trainer.fit_loop
    epochs = loop.epoch_progress.current
    if epochs.started == epochs.processed:  # type: ignore[attr-defined]
        return 0
    return loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
