"""Films that were in training are known by digests of their ids."""

import json

from pneumo.inference.maps import Case
from pneumo.inference.seen import Trained


def case(image, patient=None):
    return Case(image, f"{image}.png", [], (8, 8), patient=patient)


TRAINED = Trained.on({"a": "00000001", "b": "smith", "c": None}, "ours")


def test_films_are_known_by_their_ids_and_patients_within_one_data_set():
    assert TRAINED.has(case("a"))
    assert not TRAINED.has(case("d", "smith"))
    assert TRAINED.has_patient(case("d", "smith"), "ours")
    assert not TRAINED.has_patient(case("d", "smith"), "theirs")  # another Smith, for all we know
    assert not TRAINED.has_patient(case("d", "jones"), "ours")
    assert not TRAINED.has_patient(case("c"), "ours")


def test_patients_of_nih_are_the_same_in_every_set():
    assert TRAINED.has_patient(case("d", "00000001"), "theirs")
    assert not TRAINED.has_patient(case("d", "00000002"), "theirs")


def test_films_and_patients_of_several_sets_are_known_by_their_own():
    """In a training on several sets a set's name stands before patients, and may before films."""
    trained = Trained.on({"coco/1": "coco: 5", "2": "patient64541"}, "both")
    assert trained.has(case("1"))
    assert trained.has(case("siim/2"))
    assert trained.has_patient(case("9", "5"), "coco")
    assert trained.has_patient(case("9", "coco: 5"), "both")  # judged on both again
    assert not trained.has_patient(case("9", "5"), "candid")
    assert trained.has_patient(case("9", "patient64541"), "chexlocalize")


def test_several_trainings_know_what_any_of_them_saw():
    both = Trained.join([TRAINED, Trained.on({"x": "jones"}, "theirs")])
    assert both.has(case("a"))
    assert both.has(case("x"))
    assert both.has_patient(case("d", "jones"), "theirs")


def test_what_is_written_names_nobody():
    text = json.dumps(TRAINED.to_dict())
    assert "smith" not in text
    assert "00000001" not in text
    assert Trained.from_dict(json.loads(text)) == TRAINED
