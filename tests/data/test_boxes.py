"""Boxes of VinDr-CXR, NIH and PadChest-GR: in which pixels, by which readers, what is unknown."""

import json

import numpy as np
import pytest
from conftest import write_film, write_picture

from pneumo.data import index, joining
from pneumo.data.settings import Agreement, BoxesData, OnError
from pneumo.data.sources import boxes, labels
from pneumo.errors import PneumoError
from pneumo.masks import rle
from pneumo.masks.truth import Truth

SHAPE = (40, 60)  # rows, columns


@pytest.fixture
def place(tmp_path):
    for name in "abcdef":
        write_picture(tmp_path / "films" / f"{name}.png", SHAPE)
    return tmp_path


def read(place, content, **options):
    path = place / ("reports.json" if isinstance(content, list) else "boxes.csv")
    path.write_text(json.dumps(content) if isinstance(content, list) else content)
    data = BoxesData(name="x", root=str(place / "films"), annotations=str(path), **options)
    return index.read(data, "runs")


def told(found):
    """Boxes (x_min, y_min, x_max, y_max) of each film."""
    every = {}
    for item in found.items:
        masks = [rle.decode(text, item.shape) for text in item.annotations]
        edges = [(np.flatnonzero(m.any(0)), np.flatnonzero(m.any(1))) for m in masks]
        every[item.id] = [(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1) for x, y in edges]
    return every


# --- VinDr-CXR

VINDR = """image_id,rad_id,class_name,x_min,y_min,x_max,y_max
a,R1,Pneumothorax,10,5,30,25
a,R2,Pneumothorax,12,6,31,24
a,R2,Pneumothorax,40,6,50,24
a,R3,No finding,,,,
b,R1,Pneumothorax,10,5,30,25
b,R2,No finding,,,,
b,R3,Cardiomegaly,1,1,20,20
c,R1,No finding,,,,
c,R2,No finding,,,,
c,R3,No finding,,,,
d,R1,Pneumothorax,10,5,30,25
d,R2,Pleural effusion,10,5,30,25
"""
OF_A = [(10, 5, 30, 25), (12, 6, 31, 24), (40, 6, 50, 24)]
OF_B = [(10, 5, 30, 25)]


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        (Agreement.any, {"a": OF_A, "b": OF_B, "c": [], "d": OF_B}),
        (Agreement.majority, {"a": OF_A, "b": [], "c": []}),
        (Agreement.all, {"a": [], "b": [], "c": [], "d": []}),
    ],
)
def test_several_readers_become_one_and_all_that_each_looked_at_is_known(place, readers, expected):
    found = read(place, VINDR, readers=readers)
    assert told(found) == expected
    assert {item.truth for item in found.items} == {Truth.boxes}
    assert found.left_aside.get(labels.UNDECIDED, []) == [i for i in "abcd" if i not in expected]
    assert len(found.left_aside[joining.UNANNOTATED]) == 2  # e and f: nobody looked at them


def test_vindr_s_boxes_count_the_film_s_own_pixels_or_the_stated_ones(place):
    write_film(place / "films" / "g.dicom", np.zeros((80, 120), np.uint8))
    head = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    row = "g,R1,Pneumothorax,100,5,120,80"
    (item,) = read(place, f"{head}\n{row}\n").items
    assert item.shape == (80, 120)
    (place / "films" / "g.dicom").unlink()
    write_picture(place / "films" / "g.png", SHAPE)  # shrunk
    with pytest.raises(PneumoError, match=r"1 films whose box is outside of them, .* 60 × 40"):
        read(place, f"{head}\n{row}\n")
    (item,) = read(place, f"{head},width,height\n{row},120,80\n").items
    assert item.shape == (80, 120)
    with pytest.raises(PneumoError, match="rows and columns exchanged"):
        read(place, f"{head},width,height\n{row},80,120\n")


def test_the_consensus_of_vindr_s_test_set_has_no_readers(place):
    text = (
        "image_id,class_name,x_min,y_min,x_max,y_max\na,Pneumothorax,10,5,30,25\nb,No finding,,,,\n"
    )
    assert told(read(place, text)) == {"a": OF_B, "b": []}


# --- NIH

NIH = """Image Index,Finding Label,"Bbox [x",y,w,h],,,
a.png,Pneumothorax,100.5,200,50,60,,,
a.png,Atelectasis,1,2,3,4,,,
b.png,Atelectasis,1,2,3,4,,,
"""


def test_nih_s_boxes_are_at_1024_and_all_other_films_unknown(place):
    text = NIH.replace('"Bbox [x"', "Bbox [x")
    found = read(place, text)
    assert told(found) == {"a": [(100, 200, 151, 260)]}
    assert found.items[0].shape == rle.SHAPE
    assert found.left_aside[boxes.OF_OTHERS] == ["b"]
    assert len(found.left_aside[joining.UNANNOTATED]) == 4


def test_a_table_of_labels_says_which_of_nih_s_films_are_negative(place):
    (place / "labels.csv").write_text("Image Index,Pneumothorax\nb,NO\nc,NO\nd,YES\ne,\n")
    found = read(place, NIH, labels=str(place / "labels.csv"))
    assert told(found) == {"a": [(100, 200, 151, 260)], "b": [], "c": []}
    assert found.left_aside[boxes.WITHOUT_BOX] == ["d"]
    (place / "labels.csv").write_text("Image Index,Pneumothorax\na,NO\nb,NO\n")
    found = read(place, NIH, labels=str(place / "labels.csv"))
    assert told(found) == {"b": []}
    assert found.left_aside[boxes.CONTRARY] == ["a"]


def test_nih_s_names_tell_the_patient(place):
    write_picture(place / "films" / "00000001_002.png")
    text = "nih_name,x,y,w,h\n00000001_002.png,1,2,3,4\n"
    assert [item.patient for item in read(place, text).items] == ["00000001"]


def test_nih_s_table_as_published(second_readers):
    told = boxes._nih(second_readers / "nih_boxes_pneumothorax.csv", BoxesData(name="nih"))
    assert len(told.films) == 98
    assert told.malformed == {}
    for film in told.films.values():
        texts, shape = boxes._annotations(film, second_readers)
        assert (len(texts), shape) == (1, rle.SHAPE)


# --- PadChest-GR


def sentence(*boxes, labels=("pneumothorax",), **more):
    return {"labels": list(labels), "boxes": list(boxes), "abnormal": True, **more}


def test_padchest_s_boxes_are_shares_of_the_film_and_the_rest_of_its_films_negative(place):
    found = read(
        place,
        [
            {"ImageID": "a.png", "findings": [sentence([0.5, 0.25, 0.75, 0.5])]},
            {"ImageID": "b.png", "findings": [sentence([0, 0, 1, 1], labels=["nodule"])]},
            {"ImageID": "c.png", "findings": [{"sentence_en": "Normal.", "abnormal": False}]},
            {"ImageID": "d.png", "findings": [sentence()]},
            {
                "ImageID": "e.png",
                "findings": [sentence([0, 0, 0.5, 1], labels=["hydropneumothorax"])],
            },
            {"ImageID": "f.png", "findings": [sentence(abnormal=False)]},
        ],
    )
    assert told(found) == {
        "a": [(30, 10, 45, 20)],
        "b": [],
        "c": [],
        "e": [(0, 0, 30, 40)],
        "f": [],
    }
    assert found.left_aside == {boxes.WITHOUT_BOX: ["d"]}


# --- what is wrong


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VINDR.replace("b,R1,Pneumothorax,10", "b,R1,Pneumothorax,"), "1 .* malformed, .*line 6"),
        (VINDR.replace("a,R1,Pneumothorax,10,5,30", "a,R1,Pneumothorax,10,5,90"), "1 .* outside"),
        (VINDR.replace("a,R1,Pneumothorax,10,5,30", "a,R1,Pneumothorax,30,5,10"), "1 .* outside"),
        (NIH.replace("100.5", "1000.5"), r"outside of them, e\.g\. a: the box 1000\.5, 200"),
        (NIH.replace("100.5", "x"), r"malformed, .*expected a box x, y, w, h .* 'x' for x"),
        (
            [
                {"ImageID": "a.png", "findings": [sentence([0.5, 0.25, 1.2, 0.5])]},
                {"ImageID": "b.png", "findings": []},
            ],
            "outside",
        ),
        (
            [
                {"ImageID": "a.png", "findings": [sentence([0.5, 0.25, None, 0.5])]},
                {"ImageID": "b.png", "findings": []},
            ],
            "malformed",
        ),
    ],
)
def test_boxes_that_cannot_be_stop_or_are_left_aside(place, content, message):
    with pytest.raises(PneumoError, match=message + r".*data\.on_error=skip"):
        read(place, content)


def test_boxes_left_aside_leave_their_films_out(place):
    found = read(place, VINDR.replace("10,5,30", "10,5,90"), on_error=OnError.skip)
    assert told(found) == {"b": [], "c": []}
    assert len(found.left_aside["films whose box is outside of them"]) == 1


def test_a_box_rounded_beyond_its_film_is_cut_at_the_edge(place):
    text = VINDR.replace("a,R1,Pneumothorax,10,5,30,25", "a,R1,Pneumothorax,-0.2,5,60.4,40")
    assert told(read(place, text))["a"][0] == (0, 5, 60, 40)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("film,x,y\na,1,2\n", "expected those of VinDr-CXR .* or of NIH"),
        (["a"], "expected a list of films with ImageID and findings"),
    ],
)
def test_another_file_is_named(place, content, message):
    with pytest.raises(PneumoError, match=message):
        read(place, content)
