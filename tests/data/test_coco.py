"""Instances in COCO's layout: polygons, run lengths of both kinds, and boxes."""

import json

import numpy as np
import pytest
from conftest import write_picture

from pneumo.data import index, joining
from pneumo.data.settings import CocoData, OnError
from pneumo.errors import PneumoError
from pneumo.masks import coco
from pneumo.masks.truth import Truth

SHAPE = (40, 60)  # rows, columns
CORNERS = [40, 5, 54, 5, 54, 29, 40, 29]


def square():
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:30, 40:55] = 1
    return mask


@pytest.fixture
def place(tmp_path):
    for name in "abcd":
        write_picture(tmp_path / "films" / f"{name}.png", SHAPE)
    return tmp_path


def told(*annotations, **image):
    """Annotations of film a; b has one of another category, c none, and d is not listed."""
    size = {"height": SHAPE[0], "width": SHAPE[1], **image}
    images = [{"id": i, "file_name": f"{name}.png", **size} for i, name in enumerate("abc")]
    return {
        "images": images,
        "categories": [{"id": 7, "name": "Pneumothorax"}, {"id": 8, "name": "Tube"}],
        "annotations": [
            *({"image_id": 0, "category_id": 7, **one} for one in annotations),
            {"image_id": 1, "category_id": 8, "segmentation": [CORNERS], "bbox": [1, 1, 2, 2]},
        ],
    }


def read(place, content, **options):
    (place / "instances.json").write_text(json.dumps(content))
    data = CocoData(
        name="x", root=str(place / "films"), annotations=str(place / "instances.json"), **options
    )
    return index.read(data, "runs")


COUNTS = coco.to_counts(square())


@pytest.mark.parametrize(
    "segmentation",
    [
        [CORNERS],
        {"size": list(SHAPE), "counts": COUNTS},
        {"size": list(SHAPE), "counts": coco.compressed(COUNTS)},
    ],
    ids=["polygon", "numbers", "string"],
)
def test_every_kind_of_segmentation_gives_the_same_mask(place, segmentation):
    found = read(place, told({"segmentation": segmentation}))
    assert [(item.id, item.positive) for item in found.items] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]
    assert np.array_equal(found.items[0].mask(SHAPE), square())
    assert found.items[0].truth is Truth.masks
    assert list(found.left_aside) == [joining.UNANNOTATED]  # d: not listed, so not negative


def test_several_annotations_of_a_film_stay_apart(place):
    other = {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    item, *_ = read(place, told({"segmentation": [CORNERS]}, other)).items
    assert len(item.annotations) == 2


def test_boxes_alone_are_a_truth_of_boxes(place):
    found = read(place, told({"bbox": [40, 5, 15, 25]}))
    assert {item.truth for item in found.items} == {Truth.boxes}
    assert np.array_equal(found.items[0].mask(SHAPE), square())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (told({"segmentation": [[0, 0, 61, 3, 3, 3]]}), r"a: a polygon reaches \(61, 3\)"),
        (told({"segmentation": [[0, 0, 61]]}), "a polygon must be a list"),
        (told({"segmentation": [CORNERS]}, height=None), "a: its size is not known"),
        (told({"segmentation": [CORNERS]}, height=60, width=40), "rows and columns exchanged"),
        (told({"segmentation": {"size": [60, 40], "counts": COUNTS}}), "its sizes differ"),
        (told({"bbox": [40, 5, None, 25]}), "a: "),
        (told({"segmentation": 5}), "a: "),
        (told({"bbox": [40, 5, 25, 25]}), "box 40, 5, 25, 25 .* is not inside"),
    ],
)
def test_annotations_that_cannot_be_stop_or_are_left_aside(place, content, message):
    with pytest.raises(PneumoError, match=rf"films whose annotations are malformed, .*{message}"):
        read(place, content)
    found = read(place, {**content, "images": content["images"][:2]}, on_error=OnError.skip)
    assert "a" not in [item.id for item in found.items]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [{"id": 7, "name": "Air"}]}, r"no category pneumothorax .* it has Air"),
        ({"images": "none"}, "expected a list images with id, file_name"),
        ({"images": [{"id": 0, "file_name": "a.png"}] * 2}, "2 images, but 1 file names and 1 ids"),
    ],
)
def test_another_file_is_named(place, change, message):
    with pytest.raises(PneumoError, match=rf"instances\.json: .*{message}"):
        read(place, {**told(), **change})


def test_some_annotations_without_a_mask_and_some_of_no_image_are_counted(place):
    content = told({"segmentation": [CORNERS]}, {"bbox": [1, 1, 2, 2]})
    with pytest.raises(PneumoError, match=r"1 of 2 annotations .* have no segmentation"):
        read(place, content)
    content = told({"segmentation": [CORNERS], "image_id": 9})
    with pytest.raises(PneumoError, match=r"1 annotations of images that are not listed, .* 9"):
        read(place, content)
    assert not any(item.positive for item in read(place, content, on_error=OnError.skip).items)
