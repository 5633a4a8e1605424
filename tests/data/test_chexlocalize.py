"""CheXlocalize: sizes are [H, W], run lengths COCO's; its files differ in what they leave out."""

import json

import numpy as np
import pytest
from conftest import write_picture

from pneumo.data import index, joining
from pneumo.data.settings import ChexlocalizeData, OnError
from pneumo.data.sources import chexlocalize
from pneumo.errors import PneumoError
from pneumo.masks import coco

SHAPE = (40, 60)  # rows, columns
NAMES = [f"patient{number}_study1_view1_frontal" for number in (1, 2, 3)]


def square():
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:30, 40:55] = 1
    return mask


def encoded(mask, size=SHAPE):
    return {"size": list(size), "counts": coco.compressed(coco.to_counts(mask))}


@pytest.fixture
def place(tmp_path):
    for name in NAMES:
        write_picture(tmp_path / "valid" / (name.replace("_", "/", 2) + ".jpg"), SHAPE)
    return tmp_path


def read(place, told, **options):
    (place / "truth.json").write_text(json.dumps(told))
    data = ChexlocalizeData(
        name="x", root=str(place / "valid"), annotations=str(place / "truth.json"), **options
    )
    return index.read(data, "runs")


def test_run_lengths_are_of_rows_and_columns_and_a_film_without_is_unknown(place):
    empty = encoded(np.zeros(SHAPE, np.uint8))
    told = {
        NAMES[0]: {"Edema": empty, "Pneumothorax": encoded(square())},
        NAMES[1]: {"Pneumothorax": empty},
        NAMES[2]: {"Edema": empty},
    }
    found = read(place, told)
    assert [(item.id, item.positive, item.patient, item.shape) for item in found.items] == [
        (NAMES[0], True, "patient1", SHAPE),
        (NAMES[1], False, "patient2", SHAPE),
    ]
    assert np.array_equal(found.items[0].mask(SHAPE), square())
    assert found.left_aside == {chexlocalize.UNKNOWN: [NAMES[2]]}


def test_polygons_are_of_rows_and_columns_and_a_film_without_is_negative(place):
    corners = [[40, 5], [54, 5], [54, 29], [40, 29]]
    told = {
        NAMES[0]: {"img_size": list(SHAPE), "Pneumothorax": [corners]},
        NAMES[1]: {"img_size": list(SHAPE), "Support Devices": [corners]},
    }
    found = read(place, told)
    assert [item.positive for item in found.items] == [True, False]
    assert np.array_equal(found.items[0].mask(SHAPE), square())
    assert len(found.left_aside[joining.UNANNOTATED]) == 1


def test_films_of_the_small_edition_keep_the_size_of_their_truth(place):
    for path in (place / "valid").rglob("*.jpg"):
        write_picture(path, (20, 30))
    item, *_ = read(place, {NAMES[0]: {"Pneumothorax": encoded(square())}}).items
    assert item.shape == SHAPE
    assert np.array_equal(item.mask((20, 30)), square())


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"Pneumothorax": encoded(square().T, SHAPE[::-1])}, "are rows and columns exchanged"),
        ({"Pneumothorax": {"counts": "T3"}}, r"its size is not known .*\[H, W\]"),
        ({"Pneumothorax": {"size": list(SHAPE), "counts": [1, 2]}}, "count 3 pixels"),
        ({"img_size": None, "Pneumothorax": []}, "its size is not known"),
        (
            {"img_size": list(SHAPE), "Pneumothorax": [[[0, 0], [60, 41], [3, 3]]]},
            r"reaches \(60, 41\), outside the film of 60 × 40",
        ),
    ],
)
def test_masks_that_cannot_be_their_films_stop_or_are_left_aside(place, told, message):
    films = {NAMES[0]: told, NAMES[1]: {"Pneumothorax": encoded(square())}}
    with pytest.raises(PneumoError, match=rf"1 films whose mask is malformed, e\.g\. .*{message}"):
        read(place, films)
    assert [item.id for item in read(place, films, on_error=OnError.skip).items] == [NAMES[1]]


def test_another_file_is_named(place):
    with pytest.raises(PneumoError, match=r"truth\.json: expected films by name"):
        read(place, [1, 2])
