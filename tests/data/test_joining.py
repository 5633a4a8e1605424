"""Ids of tables find their films; what does not fit is one line with counts and an example."""

import numpy as np
import pytest
from conftest import write_film, write_picture

from pneumo.data import joining
from pneumo.data.films import Item
from pneumo.data.settings import OnError, TableData
from pneumo.errors import PneumoError


def settings(root, **options):
    return TableData(
        name="own", format="", root=str(root), annotations=str(root / "table.csv"), **options
    )


def names(joined, root):
    return {image: str(path.relative_to(root)) for image, path in joined.films.items()}


def test_an_id_is_a_name_the_end_of_a_path_or_a_longer_path(tmp_path):
    write_picture(tmp_path / "p1" / "study1" / "view1.jpg")
    write_picture(tmp_path / "p2" / "study1" / "view1.jpg")
    write_picture(tmp_path / "p2" / "plain.png")
    ids = ["set/valid/p1/study1/view1", "p2/study1/view1", "plain"]
    assert names(joining.join(settings(tmp_path), ids), tmp_path) == {
        "set/valid/p1/study1/view1": "p1/study1/view1.jpg",
        "p2/study1/view1": "p2/study1/view1.jpg",
        "plain": "p2/plain.png",
    }


def test_a_longer_path_does_not_find_another_patients_film_of_the_same_name(tmp_path):
    write_picture(tmp_path / "p1" / "view1.jpg")
    joined = joining.join(
        settings(tmp_path, on_missing=OnError.skip), ["set/p1/view1", "set/p2/view1"]
    )
    assert list(joined.films) == ["set/p1/view1"]
    assert joined.left_aside == {joining.ABSENT: ["set/p2/view1"]}


def test_dicom_films_are_found_by_their_uid(tmp_path):
    path = write_film(tmp_path / "IM0001.dcm", np.zeros((8, 8), np.uint8), SOPInstanceUID="1.2.3")
    assert joining.join(settings(tmp_path), ["1.2.3"]).films == {"1.2.3": path}


def test_films_without_a_row_are_left_aside_and_not_those_whose_row_is(tmp_path):
    for name in "abc":
        write_picture(tmp_path / f"{name}.png")
    joined = joining.join(settings(tmp_path), ["a"], aside=["b"])
    assert joined.left_aside == {joining.UNANNOTATED: [str(tmp_path / "c.png")]}


def test_an_id_of_several_films_stops_with_counts_and_an_example_or_is_left_aside(tmp_path):
    for name in ("x/1", "y/1", "x/2", "y/2", "x/3"):
        write_picture(tmp_path / f"{name}.png")
    with pytest.raises(
        PneumoError,
        match=r"table\.csv: 2 ids that join to several films, e\.g\. 1 names x/1\.png and y/1\.png"
        r".*data\.on_error=skip",
    ):
        joining.join(settings(tmp_path), ["1", "2", "3"])
    joined = joining.join(settings(tmp_path, on_error=OnError.skip), ["1", "2", "3"])
    assert list(joined.films) == ["3"]
    assert len(joined.left_aside["ids that join to several films"]) == 2
    assert joining.UNANNOTATED not in joined.left_aside


def test_two_ids_of_one_film_are_refused(tmp_path):
    write_picture(tmp_path / "p" / "a.png")
    write_picture(tmp_path / "p" / "b.png")
    with pytest.raises(PneumoError, match=r"1 films that several ids join to, e\.g\. .*a\.png is"):
        joining.join(settings(tmp_path), ["a", "p/a", "b"])
    joined = joining.join(settings(tmp_path, on_error=OnError.skip), ["a", "p/a", "b"])
    assert list(joined.films) == ["b"]


def test_a_table_that_joins_to_none_is_an_error(tmp_path):
    write_picture(tmp_path / "a.png")
    with pytest.raises(PneumoError, match=r"none of its 1 films is in .*a\.png, ids such as z"):
        joining.join(settings(tmp_path), ["z"])
    with pytest.raises(PneumoError, match="tells of no film"):
        joining.join(settings(tmp_path), [])


def test_a_twentieth_of_a_table_may_be_missing_more_when_that_is_meant(tmp_path):
    for number in range(19):
        write_picture(tmp_path / f"{number}.png", (8, 8))
    ids = [str(number) for number in range(20)]
    assert joining.join(settings(tmp_path), ids).left_aside == {joining.ABSENT: ["19"]}
    (tmp_path / "18.png").unlink()
    with pytest.raises(PneumoError, match=r"2 of the 20 images .*on_missing=skip"):
        joining.join(settings(tmp_path), ids)
    assert len(joining.join(settings(tmp_path, on_missing=OnError.skip), ids).films) == 18


def test_patients_come_from_a_table_before_the_set_s_own(tmp_path):
    (tmp_path / "who.csv").write_text("film,patient,site\na,P1,North\n")
    items = [Item(name, tmp_path / name, [], f"own {name}") for name in "ab"]
    data = settings(tmp_path, patients=str(tmp_path / "who.csv"))
    told = joining.with_patients(data, items)
    assert [(item.patient, item.site) for item in told] == [("P1", "North"), ("own b", None)]
    with pytest.raises(PneumoError, match="names none of the images"):
        joining.with_patients(data, [items[1]])
    assert joining.with_patients(settings(tmp_path), items) == items


def test_a_size_that_cannot_be_its_films_is_named(tmp_path):
    path = write_picture(tmp_path / "a.png", (96, 128))
    assert joining.shape_fault(path, (96, 128)) is None
    assert joining.shape_fault(path, (480, 641)) is None  # shrunk
    assert "are rows and columns exchanged?" in joining.shape_fault(path, (128, 96))
    assert joining.shape_fault(path, (100, 100)).endswith("of 96 × 128")
