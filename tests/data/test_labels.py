"""Labels of whole films: what says neither yes nor no is unknown, never negative."""

import pytest
from conftest import write_picture

from pneumo.data import cache, index, joining
from pneumo.data.settings import Agreement, LabelsData
from pneumo.data.sources import labels
from pneumo.errors import PneumoError
from pneumo.masks.truth import Truth


@pytest.fixture
def place(tmp_path):
    for name in "abcdef":
        write_picture(tmp_path / "films" / f"{name}.png")
    return tmp_path


def read(place, text, **options):
    (place / "labels.csv").write_text(text)
    data = LabelsData(
        name="x", root=str(place / "films"), annotations=str(place / "labels.csv"), **options
    )
    return index.read(data, "runs")


def told(found):
    return {item.id: item.positive for item in found.items}


DIALECTS = [("1", "0"), ("1.0", "0.0"), ("YES", "no"), ("True", "FALSE"), ("positive", "Negative")]


@pytest.mark.parametrize(("yes", "no"), DIALECTS)
def test_yes_and_no_in_every_dialect(place, yes, no):
    found = read(place, f"image_id,Pneumothorax\na,{yes}\nb,{no}\n")
    assert told(found) == {"a": True, "b": False}
    assert {item.truth for item in found.items} == {Truth.labels}


def test_what_says_neither_is_left_aside_as_unknown(place):
    found = read(place, "Image Index,Pneumothorax\na.png,1\nb.png,-1\nc.png,\nd.png,maybe\ne.png,0")
    assert told(found) == {"a": True, "e": False}
    assert found.left_aside[labels.UNKNOWN] == ["b", "c", "d"]
    assert found.left_aside[joining.UNANNOTATED] == [str(place / "films" / "f.png")]


def test_a_positive_film_is_positive_all_over_whatever_its_shape(place):
    found = read(place, "image_id,Pneumothorax\na,1\nb,0\n")
    films = cache.build(found.items, 32, place / "cache", workers=0)
    assert films.masks[0].all()
    assert not films.masks[1].any()


def test_chexpert_s_paths_and_another_column(place):
    for patient in ("patient1", "patient2"):
        write_picture(place / "films" / "valid" / patient / "study1" / "view1_frontal.jpg")
    head, tail = "CheXpert-v1.0/valid", "study1/view1_frontal.jpg"
    text = f"Path,Sex,Pneumothorax\n{head}/patient1/{tail},F,1.0\n{head}/patient2/{tail},M,\n"
    found = read(place, text)
    (item,) = found.items
    assert item.id == "CheXpert-v1.0-valid-patient1-study1-view1_frontal"
    assert item.patient == "patient1"
    assert told(read(place, "id,PTX\na,yes\n", column="ptx")) == {"a": True}


def test_films_from_the_side_are_left_aside(place):
    """CheXpert labels all films of a study alike."""
    text = "Path,Frontal/Lateral,Pneumothorax\na.png,Frontal,1.0\nb.png,Lateral,1.0\n"
    found = read(place, text)
    assert told(found) == {"a": True}
    assert found.left_aside[labels.LATERAL] == ["b"]


def test_google_s_table_as_published(second_readers):
    path = second_readers / "google2019_pneumothorax.csv"
    found = labels.read(path, "pneumothorax", Agreement.majority)
    assert (len(found.positive), sum(found.positive.values())) == (4376, 238)
    assert found.unknown == {}


def test_lists_of_findings_as_nih_has_them(place):
    text = "Image Index,Finding Labels\na,Effusion|Pneumothorax\nb,No Finding\nc,\n"
    found = read(place, text, column="Finding Labels")
    assert told(found) == {"a": True, "b": False}
    assert found.left_aside[labels.UNKNOWN] == ["c"]


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        (Agreement.any, {"a": True, "b": True, "c": False, "d": True}),
        (Agreement.majority, {"a": True, "b": False, "c": False}),
        (Agreement.all, {"a": True, "b": False, "c": False, "d": False}),
    ],
)
def test_several_readers_become_one(place, readers, expected):
    rows = {"a": "111", "b": "100", "c": "000", "d": "10"}
    lines = [f"{image},R{n},{vote}" for image in rows for n, vote in enumerate(rows[image])]
    found = read(place, "image_id,rad_id,Pneumothorax\n" + "\n".join(lines), readers=readers)
    assert told(found) == expected
    assert found.left_aside.get(labels.UNDECIDED, []) == [i for i in "abcd" if i not in expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,Effusion\na,1\n", r"no column Pneumothorax; it has image_id, effusion"),
        ("image_id,Pneumothorax\na,-1\nb,\n", "says yes or no of none of its 2 images"),
        ("image_id,Pneumothorax\n,1\n", r"line 2: no image id \(column image_id\)"),
        ("image_id,Pneumothorax\nz,1\n", "none of its 6 films is in"),
    ],
)
def test_a_table_that_tells_nothing_is_named(place, text, message):
    with pytest.raises(PneumoError, match=message):
        read(place, text)
