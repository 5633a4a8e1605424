"""The challenge's file: every id once, masks as predicted, in the geometry of the files."""

import csv

import numpy as np
import pytest

from pneumo.data import dicom
from pneumo.data.settings import OnError
from pneumo.errors import PneumoError
from pneumo.evaluation import submission
from pneumo.inference import maps
from pneumo.inference.maps import Case
from pneumo.masks import rle
from pneumo.masks.rule import to_mask
from pneumo.masks.settings import Postprocess

RULE = Postprocess(0.5, 100)


@pytest.fixture
def part(tmp_path):
    """Four films: a corner, the whole film, nothing, and a corner on a film that is stored
    mirrored.
    """
    levels = np.zeros((4, 64, 64), np.uint8)
    levels[0, :8, :4] = 255
    levels[1] = 255
    levels[3, 30:50, 5:10] = 255
    cases = [
        Case(f"id{i}", "", None, (1024, 1024), ("R", "F") if i == 3 else None) for i in range(4)
    ]

    def fill(arrays, begin):
        arrays.plain[:], arrays.flip[:] = levels, levels
        yield 4

    return maps.write(tmp_path / "maps", "key", cases, 64, fill, {"run": "r"})


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_id_of_the_sample_once_with_its_mask(part, tmp_path):
    out = tmp_path / "submission.csv"
    found = submission.write(out, [part], RULE, True, ["id3", "id1", "id2", "id0"])
    rows = read(out)
    assert [row["ImageId"] for row in rows] == ["id3", "id1", "id2", "id0"]
    assert found == (3, [])
    assert rows[2]["EncodedPixels"] == "-1"
    assert rows[1]["EncodedPixels"] == f"0 {1024 * 1024}"
    for row in rows:
        case = int(row["ImageId"][2])
        mask = to_mask(part.map(case, True), RULE)
        assert np.array_equal(
            dicom.upright(rle.decode(row["EncodedPixels"]), part.cases[case].orientation), mask
        )
    mirrored = rle.decode(rows[0]["EncodedPixels"])
    assert mirrored[:, 512:].any()
    assert not mirrored[:, :512].any()


def test_ids_without_a_film_are_an_error_or_empty(part, tmp_path):
    out = tmp_path / "submission.csv"
    with pytest.raises(PneumoError, match=r"1 of the 2 ids .* id9"):
        submission.write(out, [part], RULE, True, ["id1", "id9"])
    assert not out.exists()
    assert submission.write(out, [part], RULE, True, ["id1", "id9"], OnError.skip) == (1, ["id9"])
    assert read(out)[1] == {"ImageId": "id9", "EncodedPixels": "-1"}


def test_what_does_not_come_back_is_not_kept(part, tmp_path, monkeypatch):
    monkeypatch.setattr(rle, "encode", lambda mask: "0 5")
    with pytest.raises(PneumoError, match="did not come back"):
        submission.write(tmp_path / "submission.csv", [part], RULE, True)
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize(
    "orientation",
    [
        None,
        *((a, b) for a in "LR" for b in "HF"),
        *((a, b) for a in "HF" for b in "LR"),
        ("A", "F"),
    ],
)
def test_a_mask_goes_back_to_where_its_film_came_from(orientation):
    stored = np.arange(12).reshape(3, 4)
    assert np.array_equal(dicom.stored(dicom.upright(stored, orientation), orientation), stored)
