"""A data set made ready for a fit: which films it has, and which are validated."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import write_picture
from hydra import compose, initialize_config_dir

from pneumo.data import cache
from pneumo.data.settings import SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.masks.truth import Truth
from pneumo.settings import CONF
from pneumo.training import augmentation
from pneumo.training.loader import OF_WHOLE_FILMS, EpochSampler, FilmData, FilmDataset
from pneumo.training.options import Augmentation, Resolution, Sampling
from pneumo.training.sampling import EpochFilms
from pneumo.training.settings import load_config


def prepared(typed, recorded=None):
    with initialize_config_dir(CONF, version_base="1.3"):
        made = FilmData(load_config(compose("train", typed)))
    made.prepare(recorded)
    return made


@pytest.fixture(scope="module")
def masked(phantoms, tmp_path_factory):
    """What names the phantoms, and a folder for the caches of all tests."""
    data = ["data=siim", f"data.root={phantoms}", f"data.annotations={phantoms}/train-rle.csv"]
    runs = f"runs_dir={tmp_path_factory.mktemp('runs')}"
    return ["+experiment=exp2", *data, runs, "machine.workers=0"]


@pytest.fixture(scope="module")
def divided(masked):
    """The films of both parts under what is typed."""
    own = [*masked, "resolution.size=32"]
    return lambda *typed, recorded=None: prepared([*own, *typed], recorded).parts_by_id()


@pytest.mark.parametrize("fewer", [[], ["scale.images=8"]], ids=["all films", "some films"])
def test_seeds_share_films_and_parts_and_split_seeds_do_not(divided, fewer):
    first = divided(*fewer)
    assert divided(*fewer, "seed=1") == first
    assert divided(*fewer, "split.seed=1")["validation"] != first["validation"]


def test_a_recorded_division_is_kept_while_the_films_are_the_same(divided):
    fresh = divided()
    swapped = {"training": fresh["validation"], "validation": fresh["training"]}
    assert divided(recorded=swapped) == swapped
    fewer = {**swapped, "validation": dict(list(fresh["training"].items())[1:])}
    assert divided(recorded=fewer) == fresh


@pytest.fixture(scope="module")
def films(phantoms, tmp_path_factory):
    index = siim.read_index(
        SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    )
    return cache.build(index.items, 64, tmp_path_factory.mktemp("cache"), workers=0)


def test_training_films_are_windows_where_asked_and_validation_films_whole(masked):
    windows = ["augmentation=amirassov", "augmentation.window=32"]
    made = prepared([*masked, "resolution.size=64", *windows])
    for dataset, side in ((made.training, 32), (made.validation, 64)):
        film = dataset[0]
        assert film["image"].shape == film["mask"].shape == (1, side, side)


@pytest.mark.parametrize(("finished", "shown"), [(0, 0), (2, 2), (3, 2)])
def test_a_finished_fit_that_is_run_again_looks_at_its_last_epoch(masked, finished, shown):
    """So that batch norm is estimated on the films that an uninterrupted fit takes."""
    made = prepared([*masked, "resolution.size=32", "epochs=3", "averaging.epochs=1"])
    current = SimpleNamespace(started=finished, processed=finished)
    progress = SimpleNamespace(epoch_progress=SimpleNamespace(current=current))
    made.trainer = SimpleNamespace(global_rank=0, world_size=1, fit_loop=progress)
    assert made.train_dataloader().sampler.epoch == shown


def test_small_masks_are_left_out_of_training_but_not_of_validation(masked, caplog):
    own = [*masked, "resolution.size=64", "batch_size=2"]
    caplog.set_level("INFO")
    every = prepared(own)
    items = {item.id: item for item in every.index.items}
    areas = {image: item.mask((1024, 1024)).sum() for image, item in items.items()}
    training = [every.films.ids[row] for row in every.parts.training]
    positives = sorted(areas[image] for image in training if areas[image])
    assert min(positives[2] - positives[1], positives[1]) > 300  # of masks at 64² 256 are a pixel
    assert "Left out of training" not in caplog.text
    fewer = prepared([*own, f"sampling.least_px={(positives[1] + positives[2]) // 2}"])
    assert f"2 of {len(positives)} positive films" in caplog.text
    assert fewer.parts_by_id() == every.parts_by_id()
    assert fewer.facts() == every.facts()
    held = [training[place] for place in fewer.drawn.order(0)]
    assert sorted(held) == sorted(
        image for image in training if not areas[image] or areas[image] >= positives[2]
    )
    assert fewer.batches(0) == every.batches(0) - 1
    assert fewer.steps == every.steps - fewer.config.epochs
    assert len(fewer.validation) == len(every.validation)


def test_a_batch_is_its_films_in_their_order(films):
    transform = augmentation.build(Augmentation(flip=0.5, distortion=0.5, crop=0.5), Resolution(64))
    training = FilmDataset(films, np.arange(20, 4, -1), transform)
    for dataset in (training, FilmDataset(films, np.array([7, 3]))):
        places = list(range(len(dataset)))
        batch = dataset.collate(dataset.__getitems__(places))
        assert batch["row"].tolist() == dataset.rows.tolist()
        for place in places:
            film = dataset[place]
            assert all(
                torch.equal(batch[key][place], film[key]) for key in ("image", "mask", "row")
            )
    assert np.array_equal(batch["image"][1, 0], films.images[3])  # validation films are as cached
    assert np.array_equal(batch["mask"][1, 0], films.masks[3])


def test_ranks_share_an_epoch_evenly(films):
    dataset = FilmDataset(films, np.arange(23))
    drawn = EpochFilms(Sampling(), [False] * 23, 1, 0)
    shares = [list(EpochSampler(dataset, drawn, rank, 2)) for rank in range(2)]
    assert [len(share) for share in shares] == [11, 11]
    assert not set(shares[0]) & set(shares[1])
    judged = [list(EpochSampler(dataset, None, rank, 2)) for rank in range(2)]
    assert [len(share) for share in judged] == [12, 12]
    assert sorted(judged[0] + judged[1]) == [-1, *range(23)]  # the -1 fills up and does not count


def test_a_damaged_film_is_not_trained_on(films, tmp_path):
    import shutil

    folder = tmp_path / films.folder.name
    shutil.copytree(films.folder, folder)
    images = np.load(folder / "images.npy", mmap_mode="r+")
    images[7] = 0
    images.flush()
    with pytest.raises(PneumoError, match="damaged"):
        FilmDataset(cache._open(folder), np.arange(24))[7]


class Grey:
    """Stands in for a cache: film n has the grey level n."""

    def __init__(self, count):
        self.images = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
        self.masks = np.zeros_like(self.images)

    def verify(self, row):
        assert row < len(self.images)


def test_a_film_is_augmented_by_seed_epoch_and_its_own_place():
    """So that epochs and films differ, and a resumed fit draws what an uninterrupted one does."""
    keys = []

    class Noted:
        config = SimpleNamespace(window=0)

        def __call__(self, image, mask, key):
            keys.append([*key, int(image[0, 0])])
            return image, mask

    dataset = FilmDataset(Grey(6), np.array([4, 2, 5]), Noted(), seed=7)
    sampler = EpochSampler(dataset, EpochFilms(Sampling(), [False] * 3, 3, 7))
    for epoch in (0, 2):
        sampler.set_epoch(epoch)
        for place in sampler:
            dataset[place]
    assert sorted(keys) == [[7, epoch, film, film] for epoch in (0, 2) for film in (2, 4, 5)]


def test_processes_share_an_epoch_and_leave_none_out():
    dataset = FilmDataset(Grey(23), np.arange(23))
    drawn = EpochFilms(Sampling(), [False] * 23, 1, 0)
    shares = [list(EpochSampler(dataset, drawn, rank, 2)) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == sorted(drawn.order(0)[:22].tolist())
    whole = [list(EpochSampler(dataset, None, rank, 2)) for rank in range(2)]
    assert sorted(whole[0] + whole[1]) == [-1, *range(23)]
    assert dataset.batch(whole[1][-2:])["row"].tolist() == [21, -1]  # that counts for nothing


def test_the_batches_of_processes_together_are_those_of_one():
    dataset = FilmDataset(Grey(22), np.arange(22))
    for drawn in (EpochFilms(Sampling(), [False] * 22, 1, 0), None):
        alone = list(EpochSampler(dataset, drawn))
        shares = [list(EpochSampler(dataset, drawn, rank, 2)) for rank in range(2)]
        for batch in range(0, 20, 4):  # of four films, two a process
            own = [share[batch // 2 : batch // 2 + 2] for share in shares]
            assert np.stack(own, 1).flatten().tolist() == alone[batch : batch + 4]


@pytest.fixture
def labelled(tmp_path):
    """Twelve films of which only labels are known, and what is typed to train on them."""
    rows = ["id,Pneumothorax"]
    for number in range(12):
        write_picture(tmp_path / "films" / f"{number}.png", (64, 80))
        rows.append(f"{number},{number % 3 == 0:d}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = ["data=labels", f"data.root={tmp_path}/films", f"data.annotations={tmp_path}/labels.csv"]
    small = ["resolution.size=32", "split.validation=0.25", "machine.workers=0"]
    return [*data, f"runs_dir={tmp_path}", *small]


@pytest.mark.parametrize("experiment", OF_WHOLE_FILMS)
def test_experiments_of_whole_films_learn_from_labels(labelled, experiment):
    made = prepared([f"+experiment={experiment}", *labelled])
    assert made.truth is Truth.labels
    for dataset in (made.training, made.validation):
        present = [bool(dataset[i]["mask"].any()) for i in range(len(dataset))]
        assert present == [made.positive[row] for row in dataset.rows]


@pytest.mark.parametrize(("size", "batches"), [(4, [4, 4]), (8, [8]), (16, [9])])
def test_no_batch_of_training_is_smaller_than_others_and_validation_has_every_film(
    labelled, size, batches
):
    """A last batch of one would break batch norm; nine films are trained on, three validated."""
    made = prepared(["+experiment=goossen_cnn", f"batch_size={size}", *labelled])
    assert (len(made.training), len(made.validation)) == (9, 3)
    assert [len(batch["row"]) for batch in made.train_dataloader()] == batches
    assert made.batches(0) == len(batches)
    held = [row for batch in made.val_dataloader() for row in batch["row"].tolist()]
    assert held == made.parts.validation.tolist()


def test_split_seed_alone_decides_which_films_a_miniature_has(labelled):
    def films(*typed):
        made = prepared(["+experiment=goossen_cnn", "scale.images=8", *typed, *labelled])
        assert len(made.films.ids) == 8
        return made.parts_by_id()

    first = films()
    assert films("seed=1") == first
    other = films("split.seed=1")
    assert {*other["training"], *other["validation"]} != {*first["training"], *first["validation"]}


def test_positive_films_alone_teach_nothing(labelled, tmp_path):
    (tmp_path / "labels.csv").write_text("id,Pneumothorax\n0,1\n1,1\n2,1\n3,\n")
    with pytest.raises(PneumoError, match=r"3 of 3 are positive: there is nothing to tell apart"):
        prepared(["+experiment=goossen_cnn", *labelled])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ["+experiment=exp2"],
            r"data=labels: known of its films are labels of whole films alone, and loss=bce_dice "
            r"learns from masks; .*\+experiment=goossen_cnn or \+experiment=goossen_mil",
        ),
        (["+experiment=x5_cls_seresnext50"], "loss=x5_classifier learns from masks"),
        (["+experiment=goossen_cnn", "loss.own=a.b"], "loss=presence learns from masks"),
        (["+experiment=taylor"], "sampling.least_px=8630 cannot tell small masks"),
    ],
)
def test_masks_are_not_learnt_from_films_without(labelled, typed, message):
    with pytest.raises(PneumoError, match=message):
        prepared([*typed, *labelled])
