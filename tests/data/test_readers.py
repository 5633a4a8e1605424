"""What other readers said of the films, read from hand-made tables and from the published ones."""

import gzip
import json

import numpy as np
import pytest

from pneumo.data import csv_files
from pneumo.data.settings import OnError
from pneumo.data.sources import readers
from pneumo.data.sources.readers import Box
from pneumo.errors import PneumoError
from pneumo.masks import rle

# three films of ChestX-Det by its serial numbers, and image ids that stand for them here
NIH = {"a": "00000003_003", "b": "00000004_000", "c": "00000005_006"}
SERIAL = {"a": "36199.png", "b": "36200.png", "c": "36201.png"}
SQUARE = [[10, 20], [13, 20], [13, 24], [10, 24]]


def film(name, *polygons, finding="Pneumothorax"):
    return {"file_name": name, "syms": [finding] * len(polygons), "polygons": list(polygons)}


def written(path, films):
    path.write_text(json.dumps(films))
    return path


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_polygons_become_run_lengths_under_the_challenges_ids(tmp_path):
    other = film(SERIAL["b"], SQUARE, finding="Mass")
    path = written(tmp_path / "films.json", [film(SERIAL["a"], SQUARE, [[5, 5]] * 3), other])
    reader = readers.chestx_det([path], NIH)
    mask = np.zeros((1024, 1024), np.uint8)
    mask[20:25, 10:14] = 1  # with the outline
    mask[5, 5] = 1
    assert np.array_equal(rle.decode(reader.readings["a"].runs), mask)
    assert reader.readings["a"].positive
    # the radiologists looked for pneumothorax in every film and drew something else in this one
    assert not reader.readings["b"].positive
    assert reader.readings["b"].runs == rle.EMPTY
    assert set(reader.readings) == {"a", "b"}


def test_gzipped_files_are_read_and_what_does_not_join_is_counted(tmp_path):
    films = [film(SERIAL["a"], SQUARE), film("36202.png"), film("99999.png")]
    path = tmp_path / "films.json.gz"
    path.write_bytes(gzip.compress(json.dumps(films).encode()))
    reader = readers.chestx_det([path], NIH)
    assert list(reader.readings) == ["a"]
    assert reader.left_aside == {
        "films whose NIH name is not known": ["99999"],
        "films that are not the challenge's": ["00000005_007"],
    }


def test_the_table_of_names_is_one_to_one():
    names = csv_files.read_names(readers.NAMES)
    assert len(names) == len(set(names.values())) == 3543
    assert names["36199"] == "00000003_003"


@pytest.mark.parametrize(
    ("polygon", "why"),
    [
        ([[10, 20], [1025, 20], [10, 24]], r"reaches \(1025, 20\), outside the film of 1024²"),
        ([[10, 20], [12, -1], [10, 24]], r"reaches \(12, -1\), outside"),
        ([[10, 20], [float("nan"), 3], [10, 24]], r"reaches \(nan, 3\), outside"),
        ([[10, 20], [12, 20]], "three or more points"),
        ([[10, 20], [12], [10, 24]], "three or more points"),
        ("square", "three or more points"),
    ],
)
def test_a_polygon_that_cannot_be_stops_or_leaves_its_film_unknown(tmp_path, polygon, why):
    path = written(tmp_path / "films.json", [film(SERIAL["a"], polygon), film(SERIAL["b"], SQUARE)])
    with pytest.raises(PneumoError, match=rf"1 films whose.*36199\.png: .*{why}.*on_error=skip"):
        readers.chestx_det([path], NIH)
    reader = readers.chestx_det([path], NIH, OnError.skip)
    assert list(reader.readings) == ["b"]
    assert len(reader.left_aside["films whose reading is malformed"]) == 1


def test_every_finding_needs_its_polygon(tmp_path):
    wrong = film(SERIAL["a"], SQUARE) | {"syms": ["Pneumothorax", "Mass"]}
    with pytest.raises(PneumoError, match="2 findings, 1 polygons"):
        readers.chestx_det([written(tmp_path / "films.json", [wrong])], NIH)


@pytest.mark.parametrize("text", ["{", "{}", '[{"file_name": "1.png"}]', "[1]"])
def test_a_file_that_is_no_chestx_det_is_refused(tmp_path, text):
    path = table(tmp_path / "films.json", text)
    with pytest.raises(PneumoError, match=r"films\.json: (not a readable|expected a list)"):
        readers.chestx_det([path], NIH)
    with pytest.raises(PneumoError, match="absent: no such file"):
        readers.chestx_det([tmp_path / "absent"], NIH)


def test_two_readers_under_one_name_are_refused(tmp_path):
    one = written(tmp_path / "one.json", [film(SERIAL["a"], SQUARE)])
    two = written(tmp_path / "two.json", [film(SERIAL["a"])])
    with pytest.raises(PneumoError, match=r"36199.*one\.json and in .*two\.json.*two readers"):
        readers.chestx_det([one, two], NIH)
    labels = table(
        tmp_path / "l.csv", "nih_name,pneumothorax", "00000003_003.png,YES", "00000003_003.png,NO"
    )
    with pytest.raises(PneumoError, match="Google: the film 00000003_003 stands more than once"):
        readers.google_labels([labels], NIH)
    boxes = table(
        tmp_path / "b.csv", "nih_name,x,y,w,h", "00000003_003,1,2,3,4", "00000003_003,1,2,3,4"
    )
    with pytest.raises(PneumoError, match="NIH boxes: the film 00000003_003 stands more than once"):
        readers.nih_boxes([boxes], NIH)


def test_a_name_that_joins_to_several_films_stops_or_is_left_aside(tmp_path):
    path = written(tmp_path / "films.json", [film(SERIAL["a"]), film(SERIAL["b"])])
    ids = {**NIH, "again": NIH["a"]}
    with pytest.raises(PneumoError, match=r"1 films that join.*00000003_003 to a and again"):
        readers.chestx_det([path], ids)
    assert list(readers.chestx_det([path], ids, OnError.skip).readings) == ["b"]


def test_a_table_that_joins_to_none_is_refused(tmp_path):
    path = written(tmp_path / "films.json", [film(SERIAL["a"]), film(SERIAL["b"])])
    with pytest.raises(PneumoError, match=r"none of the 2 films.*such as 00000003_003.*patients="):
        readers.chestx_det([path], {"a": "someone else"})


def test_boxes_are_of_pneumothorax_and_films_without_one_are_unknown(tmp_path):
    published = table(
        tmp_path / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000003_003.png,Pneumothorax,10.5,20,30,40,,,",
        "00000003_003.png,Pneumothorax,100,200,30,40,,,",
        "00000004_000.png,Atelectasis,10,20,30,40,,,",
    )
    reader = readers.nih_boxes([published], NIH)
    assert set(reader.readings) == {"a"}
    assert reader.readings["a"].positive
    assert reader.readings["a"].boxes == [Box(10.5, 20, 30, 40), Box(100, 200, 30, 40)]


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ("1000,20,30,40", "not inside the film"),
        ("10,20,0,40", "not inside the film"),
        ("10,wide,30,40", "got 'wide' for y"),
        ("10,20", "got '' for w"),
    ],
)
def test_a_box_that_cannot_be_leaves_its_film_unknown(tmp_path, numbers, why):
    path = table(
        tmp_path / "b.csv",
        *("nih_name,x,y,w,h", "00000003_003,1,2,3,4"),
        *(f"00000003_003,{numbers}", "00000004_000,1,2,3,4"),
    )
    with pytest.raises(PneumoError, match=rf"line 3 \(00000003_003\): .*{why}"):
        readers.nih_boxes([path], NIH)
    assert list(readers.nih_boxes([path], NIH, OnError.skip).readings) == ["b"]


def test_labels_are_yes_no_or_unknown(tmp_path):
    path = table(
        tmp_path / "google.csv",
        "Image Index,Patient ID,Pneumothorax,Set Id",
        *("00000003_003.png,3,YES,test", "00000004_000.png,4,NO,test", "00000005_006.png,5,,test"),
    )
    reader = readers.google_labels([path], NIH)
    assert {image: one.positive for image, one in reader.readings.items()} == {
        "a": True,
        "b": False,
    }
    assert reader.left_aside == {
        "films without YES or NO (unknown, so not negative)": ["00000005_006"]
    }


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("Image Index,Mass", "no column Pneumothorax"),
        ("film,pneumothorax", "column Image Index or nih_name"),
        ("00000004_000.png,NO", "its first line must name its columns"),
    ],
)
def test_a_table_needs_its_columns(tmp_path, head, why):
    path = table(tmp_path / "google.csv", head, "00000003_003.png,YES")
    with pytest.raises(PneumoError, match=why):
        readers.google_labels([path], NIH)


def test_the_published_files_join_to_the_challenge(real_data, second_readers):
    nih = csv_files.read_names(real_data / "siim" / "nih_id.csv")
    google = readers.google_labels([second_readers / "google2019_pneumothorax.csv"], nih)
    boxes = readers.nih_boxes([second_readers / "nih_boxes_pneumothorax.csv"], nih)
    assert (len(google.readings), len(boxes.readings)) == (488, 76)
