import numpy as np
import pytest

from pneumo.data import csv_files
from pneumo.data.parts import divide
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
    parts = divide(POSITIVE, patients, Split(validation=share), fold=0, seed=0)
    assert sorted([*parts.training, *parts.validation]) == list(range(1000))
    assert len(parts.validation) == pytest.approx(1000 * share, abs=12)
    assert sum(POSITIVE[i] for i in parts.validation) == pytest.approx(sum(POSITIVE) * share, abs=6)


def test_folds_partition_the_films():
    every = [
        divide(POSITIVE, PATIENTS, Split(SplitKind.kfold), fold, 0).validation for fold in range(5)
    ]
    assert sorted(np.concatenate(every)) == list(range(1000))
    assert {len(part) for part in every} <= set(range(190, 211))


def test_no_patient_in_two_parts():
    for fold in range(5):
        parts = divide(POSITIVE, PATIENTS, Split(SplitKind.kfold), fold, 0)
        assert not {PATIENTS[i] for i in parts.training} & {PATIENTS[i] for i in parts.validation}
        assert parts.shared == 0
        assert "0.0% of validation positives" in parts.describe(POSITIVE)


def test_by_image_the_leak_is_measured():
    parts = divide(POSITIVE, PATIENTS, Split(group=Grouping.image), 0, 0)
    seen = {PATIENTS[i] for i in parts.training}
    held = [i for i in parts.validation if POSITIVE[i]]
    assert parts.shared == pytest.approx(np.mean([PATIENTS[i] in seen for i in held]))
    assert parts.shared > 0.5


def test_unknown_patients_are_counted():
    some = [patient if i % 2 else None for i, patient in enumerate(PATIENTS)]
    assert "not counting 500 films of unknown patients" in divide(
        POSITIVE, some, Split(), 0, 0
    ).describe(POSITIVE)


def test_deterministic_and_varied():
    def validation(fold, seed):
        return tuple(divide(POSITIVE, PATIENTS, Split(), fold, seed).validation)

    assert validation(0, 0) == validation(0, 0)
    assert len({validation(0, 0), validation(1, 0), validation(0, 1)}) == 3


def test_patients_asked_for_but_unknown():
    with pytest.raises(PneumoError, match=r"data\.patients"):
        divide(POSITIVE, UNKNOWN, Split(group=Grouping.patient), 0, 0)


def test_too_few_films():
    with pytest.raises(PneumoError, match="too few"):
        divide([True, False], ["a", "a"], Split(), 0, 0)


def test_the_challenge_leaks_as_measured(real_data):
    """reference: 93.4 % of validation positives in a random 90/10 division of round 1 share their
    patient.
    """
    table = siim.read_table(real_data / "siim" / "stage_2_train.csv.gz")
    patients = csv_files.read_patients(real_data / "siim" / "nih_id.csv")
    positive = [bool(table.masks(image)) for image in table.rows]
    known = [patients[image] for image in table.rows]
    leaky = divide(positive, known, Split(group=Grouping.image), 0, 0)
    assert 0.90 < leaky.shared < 0.97
    clean = divide(positive, known, Split(), 0, 0)
    assert clean.shared == 0
    assert sum(positive[i] for i in clean.validation) == pytest.approx(267, abs=3)
    assert len(clean.validation) == pytest.approx(1205, abs=10)
