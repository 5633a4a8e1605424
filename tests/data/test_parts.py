import hashlib
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pneumo.data import csv_files
from pneumo.data.parts import divide, restore
from pneumo.data.settings import Grouping, Split, SplitKind
from pneumo.data.sources import siim
from pneumo.errors import PneumoError

RNG = np.random.default_rng(0)
PATIENTS = [f"p{n}" for n in RNG.integers(0, 300, 1000)]
POSITIVE = [
    bool(RNG.random() < (0.7 if hash_ % 5 == 0 else 0.1))
    for hash_ in (int(p[1:]) for p in PATIENTS)
]
UNKNOWN = [None] * 1000


@pytest.mark.parametrize("share", [0.1, 0.2])
@pytest.mark.parametrize("patients", [PATIENTS, UNKNOWN], ids=["patients", "images"])
def test_holdout_has_its_share_of_films_and_positives(share, patients):
    parts = divide(POSITIVE, patients, Split(validation=share), 0)
    assert sorted([*parts.training, *parts.validation]) == list(range(1000))
    assert abs(len(parts.validation) - 1000 * share) < 1
    assert abs(sum(POSITIVE[i] for i in parts.validation) - sum(POSITIVE) * share) < 1


@pytest.mark.parametrize("patients", [PATIENTS, UNKNOWN], ids=["patients", "images"])
def test_folds_partition_the_films(patients):
    every = [
        divide(POSITIVE, patients, Split(SplitKind.kfold), fold).validation for fold in range(5)
    ]
    assert sorted(np.concatenate(every)) == list(range(1000))
    assert {len(part) for part in every} == {200}
    positives = [sum(POSITIVE[i] for i in part) for part in every]
    assert all(abs(count - sum(POSITIVE) / 5) < 1 for count in positives)


def test_no_patient_in_two_parts():
    for fold in range(5):
        parts = divide(POSITIVE, PATIENTS, Split(SplitKind.kfold), fold)
        assert not {PATIENTS[i] for i in parts.training} & {PATIENTS[i] for i in parts.validation}
        assert parts.shared == 0
        assert "0.0% of validation positives" in parts.describe(POSITIVE)


def test_by_image_the_leak_is_measured():
    parts = divide(POSITIVE, PATIENTS, Split(group=Grouping.image), 0)
    seen = {PATIENTS[i] for i in parts.training}
    held = [i for i in parts.validation if POSITIVE[i]]
    assert parts.shared == pytest.approx(np.mean([PATIENTS[i] in seen for i in held]))
    assert parts.shared > 0.5


def test_films_of_unknown_patients_are_counted_and_each_is_a_group_of_its_own():
    some = [patient if i % 2 else None for i, patient in enumerate(PATIENTS)]
    for fold in range(5):
        parts = divide(POSITIVE, some, Split(SplitKind.kfold), fold)
        assert parts.grouped
        assert "not counting 500 films of unknown patients" in parts.describe(POSITIVE)
        # as one group, all 500 would be in one fold
        assert sum(some[i] is None for i in parts.validation) == pytest.approx(100, abs=30)


labelled = st.tuples(st.booleans(), st.none() | st.integers(0, 9).map("p{}".format))


@given(st.lists(labelled, min_size=3, max_size=40), st.integers(2, 5), st.integers(0, 99))
def test_any_films_are_divided_into_folds_that_share_none_and_no_patient(films, folds, seed):
    positive, patients = map(list, zip(*films, strict=True))
    groups = {patient or place for place, patient in enumerate(patients)}
    assume(len(groups) >= folds)
    split = Split(SplitKind.kfold, folds=folds, seed=seed)
    every = [divide(positive, patients, split, fold) for fold in range(folds)]
    held = [parts.validation.tolist() for parts in every]
    assert sorted(place for part in held for place in part) == list(range(len(films)))
    for parts, own in zip(every, held, strict=True):
        assert sorted([*parts.training.tolist(), *own]) == list(range(len(films)))
        ours, theirs = ({patients[i] for i in part} for part in (own, parts.training.tolist()))
        assert not ours & theirs - {None}
        assert not parts.shared
    if len(groups) == len(films):
        for part in held:
            assert abs(len(part) - len(films) / folds) < 1
            assert abs(sum(positive[i] for i in part) - sum(positive) / folds) < 1


@given(st.lists(labelled, min_size=3, max_size=40), st.floats(0.05, 0.6), st.integers(0, 99))
def test_any_films_are_divided_into_a_hold_out_and_the_rest(films, share, seed):
    positive, patients = map(list, zip(*films, strict=True))
    assume(len({patient or place for place, patient in enumerate(patients)}) >= 3)
    parts = divide(positive, patients, Split(validation=share, seed=seed), 0)
    training, held = parts.training.tolist(), parts.validation.tolist()
    assert training
    assert held
    assert sorted([*training, *held]) == list(range(len(films)))
    assert not {patients[i] for i in training} & {patients[i] for i in held} - {None}
    assert parts.unknown == (patients.count(None) if any(patients) else 0)


def agreement(positive, divisions):
    """Share of validation positives that two divisions have in common, the mean over all pairs;
    and share of positives that no division validates.
    """
    held = [{i for i in parts.validation if positive[i]} for parts in divisions]
    common = np.mean([len(one & other) / len(one) for one, other in combinations(held, 2)])
    return common, 1 - len(set().union(*held)) / sum(positive)


def many_patients():
    """As in the challenge, a few patients have many films and many have one."""
    rng = np.random.default_rng(1)
    films = np.repeat(np.arange(800), np.minimum(rng.zipf(1.9, 800), 40))
    ill = rng.random(800) < 0.3
    return (ill[films] & (rng.random(len(films)) < 0.7)).tolist(), [f"p{one}" for one in films]


@pytest.mark.parametrize("group", [Grouping.patient, Grouping.image])
@pytest.mark.parametrize("other", ["fold", "seed"])
def test_two_holdouts_share_as_many_positives_as_chance_gives(group, other):
    positive, patients = many_patients()
    divisions = []
    for number in range(40):
        seed, fold = (number, 0) if other == "seed" else (0, number)
        divisions.append(divide(positive, patients, Split(group=group, seed=seed), fold))
    common, never = agreement(positive, divisions)
    assert common == pytest.approx(0.1, abs=0.01)
    assert never < 0.03  # 0.9 ** 40 is .015


def test_other_seeds_of_a_k_fold_are_other_divisions():
    positive, patients = many_patients()
    divisions = [
        divide(positive, patients, Split(SplitKind.kfold, seed=seed), 0) for seed in range(20)
    ]
    assert agreement(positive, divisions)[0] == pytest.approx(0.2, abs=0.02)


def test_few_films_of_few_patients_are_divided_as_well_as_they_can():
    """13 patients, of whom one has seven negative and one five positive films."""
    patients = [*"aaaaaaabbbbbccdefghijklm"]
    positive = [one in "befg" for one in patients]
    for seed in range(10):
        split = Split(validation=0.25, seed=seed)
        held = divide(positive, patients, split, 0).validation
        assert len(held) == 6
        assert sum(positive[i] for i in held) == 2
        folds = [
            divide(positive, patients, Split(SplitKind.kfold, folds=3, seed=seed), fold).validation
            for fold in range(3)
        ]
        assert max(map(len, folds)) <= 9
        assert all(any(positive[i] for i in fold) for fold in folds)


def test_both_parts_have_films_whatever_the_sizes_of_groups():
    two = ["a"] * 10 + ["b"] * 10
    positive = [i % 2 == 0 for i in range(20)]
    assert len(divide(positive, two, Split(), 0).validation) == 10
    assert len(divide(positive, two, Split(SplitKind.kfold, folds=2), 1).validation) == 10


def test_a_rare_label_is_in_both_parts():
    positive = [True, True, *[False] * 98]
    parts = divide(positive, [None] * 100, Split(), 0)
    assert sum(positive[i] for i in parts.validation) == 1


def test_a_division_is_the_same_for_ever():
    patients = [f"p{i * i % 97}" for i in range(500)]
    positive = [i * i % 97 % 4 == 0 or i % 11 == 0 for i in range(500)]
    holdout = divide(positive, patients, Split(seed=1), 2).validation
    folds = [divide(positive, patients, Split(SplitKind.kfold), n).validation for n in range(5)]
    text = " ".join(map(str, np.concatenate([holdout, *folds])))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9be1796e310e5072"


def test_what_a_run_recorded_is_restored_if_it_is_of_the_same_films():
    ids = [f"film{i}" for i in range(1000)]
    training, validation = ids[::2], ids[1::2]  # no division that is dealt today
    recorded = {"training": training, "validation": validation}
    parts = restore(recorded, ids, POSITIVE, PATIENTS, Split())
    assert [ids[i] for i in parts.validation] == validation
    assert [ids[i] for i in parts.training] == training
    assert parts.shared > 0.5
    assert restore(recorded, ["new", *ids[1:]], POSITIVE, PATIENTS, Split()) is None


def test_patients_asked_for_but_unknown():
    with pytest.raises(PneumoError, match=r"data\.patients"):
        divide(POSITIVE, UNKNOWN, Split(group=Grouping.patient), 0)


def test_too_few_films():
    with pytest.raises(PneumoError, match="too few"):
        divide([True, False], ["a", "a"], Split(), 0)


@pytest.fixture(scope="module")
def challenge(real_data):
    """Label and patient of each film of the challenge's table."""
    table = siim.read_table(real_data / "siim" / "stage_2_train.csv.gz")
    patients = csv_files.read_patients(real_data / "siim" / "nih_id.csv")
    positive = [bool(table.masks(image)) for image in table.rows]
    return positive, [patients[image] for image in table.rows]


def test_the_challenge_leaks_as_measured(challenge):
    """Of the validation positives of 40 random permutations, 95.4 % share their patient."""
    leaky = [divide(*challenge, Split(group=Grouping.image), fold).shared for fold in range(8)]
    assert np.mean(leaky) == pytest.approx(0.954, abs=0.015)
    assert divide(*challenge, Split(), 0).shared == 0


def test_divisions_of_the_challenge_are_random_and_balanced(challenge):
    """Of 12,047 films 2,669 are positive: a tenth are 1,204.7 and 266.9."""
    positive, _ = challenge
    divisions = [divide(*challenge, Split(), fold) for fold in range(40)]
    for parts in divisions:
        assert len(parts.validation) in (1204, 1205)
        assert sum(positive[i] for i in parts.validation) in (266, 267)
    common, never = agreement(positive, divisions)
    assert common == pytest.approx(0.1, abs=0.01)
    assert never < 0.03
