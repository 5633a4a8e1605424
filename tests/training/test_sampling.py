"""Which films an epoch of training holds."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import assume, given
from hypothesis import strategies as st

from pneumo.data import cache
from pneumo.data.settings import SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.settings import CONF
from pneumo.training.loader import EpochSampler, FilmDataset
from pneumo.training.options import FixedShare, LinearShare, Sampling, StepShares
from pneumo.training.sampling import EpochFilms, SharedSets
from pneumo.training.settings import load_config

FILMS = [place % 4 == 0 for place in range(40)]  # ten positive, thirty negative
POSITIVES = {place for place in range(40) if place % 4 == 0}


def drawn(config, positive=FILMS, epochs=10, seed=0):
    return EpochFilms(config, positive, epochs, seed)


def negatives(films, epoch):
    return sorted(set(films.order(epoch).tolist()) - POSITIVES)


def test_without_sampling_an_epoch_is_every_film_in_the_order_of_older_runs():
    films = drawn(Sampling(), seed=7)
    for epoch in range(3):
        order = np.random.default_rng([7, epoch]).permutation(40)
        assert films.order(epoch).tolist() == order.tolist()
        assert films.count(epoch) == 40


@pytest.mark.parametrize(
    ("share", "count"),
    # 10 * .75 / .25 = 30; 10 * .4 / .6 = 6.67; of 10 positives .8 leave 2.5; .22 leave 35.45
    [(1.0, 0), (0.8, 2), (0.6, 6), (0.5, 10), (0.25, 30), (0.22, 35)],
)
def test_an_epoch_is_every_positive_once_and_negatives_by_the_winners_formula(share, count):
    films = drawn(FixedShare(share=share))
    for epoch in range(3):
        order = films.order(epoch).tolist()
        assert sorted(set(order) & POSITIVES) == sorted(POSITIVES)
        assert sum(place in POSITIVES for place in order) == 10
        assert len(order) == films.count(epoch) == 10 + count


def test_the_share_of_the_challenges_films_is_met():
    """All 12,047 films of the challenge: 2,669 positive; .8 makes 1.25 films for each of them."""
    films = drawn(FixedShare(share=0.8), [True] * 2669 + [False] * 9378)
    assert films.count(0) == 2669 + 667
    assert (films.order(0) < 2669).mean() == pytest.approx(0.8, abs=1e-3)


def test_other_epochs_and_seeds_draw_other_negatives_and_the_same_ones_are_drawn_again():
    films = drawn(FixedShare(share=0.5))
    assert len({tuple(negatives(films, epoch)) for epoch in range(5)}) == 5
    assert negatives(drawn(FixedShare(share=0.5), seed=1), 0) != negatives(films, 0)
    assert drawn(FixedShare(share=0.5)).order(3).tolist() == films.order(3).tolist()


def test_positives_and_negatives_are_mixed():
    order = drawn(FixedShare(share=0.5)).order(0).tolist()
    first = sum(place in POSITIVES for place in order[:10])
    assert 0 < first < 10


def test_without_replacement_no_negative_comes_twice_and_there_are_no_more_than_all():
    twice = drawn(FixedShare(share=0.3)).order(0)
    assert len(twice) == 33
    assert len(set(twice.tolist())) < 33
    once = drawn(FixedShare(share=0.3, replacement=False)).order(0)
    assert len(set(once.tolist())) == len(once) == 33
    every = drawn(FixedShare(share=0.1, replacement=False))
    assert sorted(every.order(0).tolist()) == list(range(40))
    assert every.count(0) == 40


def test_a_linear_share_moves_by_equal_steps_from_its_start():
    """As released: 10 positives of .8, .6, .4 leave int(2.5), int(6.67) and 15 negatives."""
    films = drawn(LinearShare(start=0.8, end=0.2), epochs=3)
    assert [films.count(epoch) for epoch in range(3)] == [12, 16, 25]


def test_stepwise_shares_hold_from_their_epochs():
    films = drawn(StepShares(shares=[1.0, 0.5, 0.25], epochs=[0, 2, 3]), epochs=5)
    assert [films.count(epoch) for epoch in range(5)] == [10, 10, 20, 40, 40]


@pytest.mark.parametrize("config", [FixedShare(), LinearShare(), StepShares()])
def test_a_share_needs_films_of_both_kinds(config):
    epochs = 30
    with pytest.raises(PneumoError, match=f"sampling={config.name}: no training film is positive"):
        drawn(config, [False] * 8, epochs)
    with pytest.raises(PneumoError, match="no training film is negative; use sampling=all"):
        drawn(config, [True] * 8, epochs)
    assert drawn(FixedShare(share=1.0), [True] * 8).count(0) == 8


AREAS = [(place + 1) * 100 if place in POSITIVES else 0 for place in range(40)]
SMALL = {place for place in POSITIVES if AREAS[place] < 1300}  # of ten positives the first three


@pytest.mark.parametrize(
    ("config", "count"),
    # all 37; of seven positives .5 leaves 7, .25 leaves 21 negatives
    [
        (Sampling(least_px=1300), [37, 37]),
        (FixedShare(share=0.5, least_px=1300), [14, 14]),
        (LinearShare(start=0.5, end=0.25, least_px=1300), [14, 18]),
        (StepShares(shares=[0.5, 0.25], epochs=[0, 1], least_px=1300), [14, 28]),
    ],
    ids=["all", "share", "linear", "steps"],
)
def test_films_with_small_masks_are_in_no_epoch_of_any_sampling(config, count):
    films = EpochFilms(config, FILMS, 2, 0, AREAS)
    assert films.left_out == len(SMALL) == 3
    assert [films.count(epoch) for epoch in range(2)] == count
    for epoch, number in enumerate(count):
        order = films.order(epoch).tolist()
        assert len(order) == number
        assert set(order) & POSITIVES == POSITIVES - SMALL
        again = EpochFilms(config, FILMS, 2, 0, AREAS)
        assert again.order(epoch).tolist() == order
    if type(config) is Sampling:
        assert sorted(order) == sorted(set(range(40)) - SMALL)


def test_a_mask_of_just_the_least_area_is_trained_on_and_all_masks_cannot_be_too_small():
    just = EpochFilms(Sampling(least_px=AREAS[8]), FILMS, 1, 0, AREAS)
    assert just.left_out == 2
    with pytest.raises(PneumoError, match=r"sampling\.least_px=9999: .* all 10 positive .* lower"):
        EpochFilms(Sampling(least_px=9999), FILMS, 1, 0, AREAS)
    assert EpochFilms(Sampling(least_px=9999), [False] * 8, 1, 0, [0] * 8).count(0) == 8


samplings = st.sampled_from(
    [
        Sampling(),
        FixedShare(share=0.4),
        FixedShare(share=0.7, replacement=False),
        LinearShare(start=0.9, end=0.3),
        StepShares(shares=[1.0, 0.5, 0.25], epochs=[0, 2, 3]),
    ]
)


@given(samplings, st.lists(st.booleans(), min_size=2, max_size=40), st.integers(0, 9))
def test_any_epoch_holds_every_positive_once_and_as_many_films_as_it_says(config, labels, seed):
    assume(any(labels))
    assume(not all(labels))
    films, again = (EpochFilms(config, labels, 5, seed) for _ in range(2))
    positives = {place for place, positive in enumerate(labels) if positive}
    for epoch in range(5):
        order = films.order(epoch)
        own = order.tolist()
        assert order.dtype == np.int64
        assert len(own) == films.count(epoch)
        assert sorted(place for place in own if labels[place]) == sorted(positives)
        assert set(own) <= set(range(len(labels)))
        assert again.order(epoch).tolist() == own
        if not getattr(config, "replacement", False):
            assert len(set(own)) == len(own)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.data())
def test_any_sets_have_their_shares_of_an_epoch(sizes, data):
    shares = data.draw(st.lists(st.integers(1, 5), min_size=len(sizes), max_size=len(sizes)))
    each, begin = [], 0
    for size in sizes:
        drawn_alone = EpochFilms(Sampling(), [True] * size, 2, 0)
        each.append((np.arange(begin, begin + size), drawn_alone))
        begin += size
    drawn = SharedSets(each, shares)
    order = drawn.order(1)
    assert len(order) == drawn.count(1) == begin
    for (places, _), share in zip(each, shares, strict=True):
        times = np.bincount(order, minlength=begin)[places]
        assert abs(times.sum() - begin * share / sum(shares)) <= 1
        assert times.max() - times.min() <= 1  # none again before all were drawn


@pytest.fixture(scope="module")
def dataset(phantoms, tmp_path_factory):
    data = SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    films = cache.build(
        siim.read_index(data).items, 32, tmp_path_factory.mktemp("cache"), workers=0
    )
    return FilmDataset(films, np.arange(23))


def test_processes_share_the_draws_of_an_epoch_evenly(dataset):
    """Of 8 positives and 15 negatives .33 takes 8 + 16; .35 takes 8 + 14; .45 takes 8 + 9."""
    labels = [place < 8 for place in range(23)]
    config = StepShares(shares=[0.33, 0.35, 0.45], epochs=[0, 1, 2])
    films = EpochFilms(config, labels, 3, 0)
    for epoch, each in enumerate([12, 11, 8]):
        ranks = [EpochSampler(dataset, films, rank, 2) for rank in range(2)]
        for rank in ranks:
            rank.set_epoch(epoch)
        assert [len(rank) for rank in ranks] == [len(list(rank)) for rank in ranks] == [each, each]
        together = sorted([*ranks[0], *ranks[1]])
        assert together == sorted(films.order(epoch)[: 2 * each].tolist())


def loaded(*typed):
    with initialize_config_dir(CONF, version_base="1.3"):
        return load_config(compose("train", ["+experiment=exp5", *typed]))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["sampling=share", "sampling.share=0"], r"sampling\.share=0\.0: must be above 0"),
        (["sampling=share", "sampling.share=1.5"], r"sampling\.share=1\.5: .*at most 1"),
        (["sampling.least_px=-1"], r"sampling\.least_px=-1: must be 0 or more"),
        (["sampling=share", "sampling.least_px=-1"], r"sampling\.least_px=-1: must be 0"),
        (["sampling=linear", "sampling.least_px=-1"], r"sampling\.least_px=-1: must be 0"),
        (["sampling=steps", "sampling.least_px=-1"], r"sampling\.least_px=-1: must be 0"),
        (["sampling=linear", "sampling.end=0"], r"sampling\.end=0\.0: must be above 0"),
        (["sampling=steps", "sampling.shares=[0.5,2,0.1]"], r"sampling\.shares=.*at most 1"),
        (["sampling=steps", "sampling.shares=[0.5]"], r"sampling\.epochs=.*as many"),
        (["sampling=steps", "sampling.epochs=[0,9,5]"], r"sampling\.epochs=.*ascending"),
        (["sampling=steps", "sampling.epochs=[1,9,15]"], r"sampling\.epochs=.*the first 0"),
        (["sampling=steps", "epochs=24"], r"sampling\.epochs=\[0, 12, 24\]: .*below epochs=24"),
    ],
)
def test_impossible_shares_are_refused_by_name(typed, message):
    with pytest.raises(PneumoError, match=message):
        loaded(*typed)


def test_steps_shrink_with_the_epochs_unless_they_are_typed():
    """Of 70 epochs 6 remain: what begins at 35 begins at 3, at 69 with the last."""
    declared = loaded("sampling=steps", "scale=mini", "sampling.epochs=[0,35,69]")
    assert declared.scaled().sampling.epochs == [0, 3, 5]
    with pytest.raises(PneumoError, match=r"sampling\.epochs=\[0, 35, 69\]"):
        declared.scaled({"sampling.epochs"})


def test_sets_have_their_shares_whatever_their_sizes():
    """Of 90 and 10 films, half and half: the small set again and again, the large one in part."""
    config = Sampling(name="all")
    places = np.arange(90), np.arange(90, 100)
    each = [(own, EpochFilms(config, [True, False] * (len(own) // 2), 3, seed=1)) for own in places]
    drawn = SharedSets(each, [1, 1])
    assert drawn.count(0) == 100
    order = drawn.order(0)
    assert np.count_nonzero(order < 90) == 50
    assert len(set(order[order < 90])) == 50  # none twice
    assert np.bincount(order[order >= 90] - 90).tolist() == [5] * 10
    assert not np.array_equal(np.sort(drawn.order(1)), np.sort(order))
    assert np.array_equal(SharedSets(each, [2, 2]).order(0), order)
    assert (np.diff(order >= 90) != 0).sum() > 20  # mixed, not one set after the other
