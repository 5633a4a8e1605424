"""Several data sets in one: films, patients and sets are told apart."""

import dataclasses
from pathlib import Path

import pytest

from pneumo.data import index
from pneumo.data.films import Index, Item
from pneumo.data.settings import PhantomData, SeveralData, SiimData
from pneumo.data.sources import several
from pneumo.errors import PneumoError

SETS = {"ours": {"format": "siim"}, "theirs": {"format": "folder"}, "nih": {"format": "boxes"}}
FILMS = {
    "ours": [Item("1", Path("a"), ["0 1"], "00000001"), Item("2", Path("b"), [], "smith", "north")],
    "theirs": [Item("1", Path("c"), [], "smith"), Item("3", Path("d"), [])],
    "nih": [Item("4", Path("e"), [], "00000001")],
}


def data(**more):
    return SeveralData(name="all", cache="cache", **{"sets": SETS, **more})


def read(**more):
    return several.read_index(
        data(**more), lambda one: Index(FILMS[one.name], {"unreadable": [one.name]})
    )


def test_films_of_the_same_name_bear_their_sets():
    found = read()
    assert [item.id for item in found.items] == ["ours/1", "2", "theirs/1", "3", "4"]
    assert found.set_of["theirs/1"] == "theirs"
    assert found.set_of["2"] == "ours"
    assert [str(item.path) for item in found.items] == ["a", "b", "c", "d", "e"]


def test_patients_are_of_one_set_but_for_nih_s_who_are_the_same_in_all():
    patients = [item.patient for item in read().items]
    assert patients == ["00000001", "ours: smith", "theirs: smith", None, "00000001"]


def test_the_set_is_the_site_or_stands_before_it():
    sites = [item.site for item in read().items]
    assert sites == ["ours", "ours north", "theirs", "theirs", "nih"]


def test_what_was_left_aside_says_of_which_set():
    assert read().left_aside["unreadable (nih)"] == ["nih"]


def test_a_set_that_is_left_out_is_not_read():
    found = read(leave_out="ours")
    assert [item.id for item in found.items] == ["1", "3", "4"]
    assert set(found.set_of.values()) == {"theirs", "nih"}


def test_each_set_has_its_own_settings(tmp_path):
    made = data(sets={"a": {"format": "siim", "root": "x", "round": 2}, "b": {"format": "phantom"}})
    one, other = made.each.values()
    assert isinstance(one, SiimData)
    assert isinstance(other, PhantomData)
    assert (one.name, one.root, one.cache, other.name) == ("a", "x", "cache", "b")
    assert made.formats == ["siim", "phantom"]


def test_a_film_that_stands_in_two_sets_is_refused():
    films = {name: Index([Item(name, Path("x.png"), [])]) for name in SETS}
    with pytest.raises(PneumoError, match=r"2 films stand in two sets.*x\.png in ours and theirs"):
        several.read_index(data(), lambda one: films[one.name])


def test_drawn_sets_are_as_large_as_the_scale_says():
    made = data(sets={"a": {"format": "phantom", "images": 900}, "b": {"format": "siim"}})
    small = made.scaled(lambda one: dataclasses.replace(one, images=7, positive_rate=0.5))
    assert small.each["a"].images == 7
    assert small.each["b"] == made.each["b"]


def test_drawn_sets_are_read_for_real(tmp_path):
    sets = {name: {"format": "phantom", "images": 4, "seed": n} for n, name in enumerate("ab")}
    found = index.read(data(sets=sets), str(tmp_path))
    assert len(found.items) == 8
    assert set(found.set_of.values()) == {"a", "b"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sets": {}}, "data.sets is not set"),
        ({"sets": {"a": {"root": "x"}}}, r"data\.sets\.a: needs its format, one of siim"),
        ({"sets": {"a": {"format": "several"}}}, r"data\.sets\.a: needs its format"),
        ({"sets": {"a": {"format": "siim", "rot": "x"}}}, r"data\.sets\.a: .*rot"),
        ({"sets": {"a": {"format": "siim", "cache": "x"}}}, "said once for all sets"),
        ({"sets": {"a": {"format": "siim"}}}, r"data\.sets\.a: data.root is not set"),
        ({"leave_out": "other"}, r"data\.leave_out=other: must be one of ours, theirs, nih"),
        ({"shares": {"ours": 0.5}}, "a share above 0 for each of nih, ours, theirs"),
    ],
)
def test_sets_that_cannot_be_used(given, told):
    with pytest.raises(PneumoError, match=told):
        data(**given).check_places()
