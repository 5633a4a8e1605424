"""CANDID-PTX: -1 is negative, a blank unknown; patients stand in file names, tubes in a table."""

import numpy as np
import pytest
from conftest import write_film, write_picture

from pneumo.data import index, joining
from pneumo.data.settings import CandidData, OnError
from pneumo.data.sources import candid
from pneumo.errors import PneumoError
from pneumo.masks import rle

TABLE = """,SOPInstanceUID,filename,EncodedPixels,Report
0,1.1,P001_19010101,2 3,some
1,1.1,P001_19010101,9 1,some
2,1.2,P001_19010102,-1,none
3,1.3,P002_19010101,,not said
4,1.4,P003_19010101,0 64,all
"""


@pytest.fixture
def place(tmp_path):
    for name in ("1.1", "1.2", "1.3", "1.4", "1.5"):
        (tmp_path / "films").mkdir(exist_ok=True)
        write_film(tmp_path / "films" / name, np.zeros((8, 8), np.uint8))
    (tmp_path / "reports.csv").write_text(TABLE)
    return tmp_path


def read(place, **options):
    data = CandidData(
        name="candid", root=str(place / "films"), annotations=str(place / "reports.csv"), **options
    )
    return index.read(data, "runs")


def test_masks_negatives_and_unknown_films_are_told_apart(place):
    found = read(place)
    assert [(item.id, item.annotations, item.patient, item.tube) for item in found.items] == [
        ("1.1", ["2 3", "9 1"], "P001", None),
        ("1.2", [], "P001", None),
        ("1.4", ["0 64"], "P003", None),
    ]
    assert found.left_aside[candid.UNKNOWN] == ["1.3"]
    assert found.left_aside[joining.UNANNOTATED] == [str(place / "films" / "1.5")]
    assert found.items[2].mask((8, 8)).all()


def test_pictures_are_mirrors_at_the_size_of_the_run_lengths(place):
    (place / "films" / "1.1").unlink()
    write_picture(place / "films" / "1.1.png", (64, 64))
    shapes = {item.id: item.shape for item in read(place).items}
    assert shapes == {"1.1": rle.SHAPE, "1.2": None, "1.4": None}


def test_tubes_are_of_the_films_that_their_table_lists(place):
    (place / "tubes.csv").write_text("anon_SOPUID,annotation_ref,mask_rle\n1.1,a,5 2\n1.4,b,\n")
    tubes = {item.id: item.tube for item in read(place, tubes=str(place / "tubes.csv")).items}
    assert tubes == {"1.1": True, "1.2": False, "1.4": None}
    (place / "tubes.csv").write_text("anon_SOPUID,mask_rle\n9.9,5 2\n")
    with pytest.raises(PneumoError, match=r"tubes\.csv: names none of the 4 images .* 9\.9"):
        read(place, tubes=str(place / "tubes.csv"))


@pytest.mark.parametrize(
    ("change", "message", "left"),
    [
        (("1.4,P003_19010101,0 64", "1.4,P003,0 64 1"), "1 rows that are malformed, .*pairs", 2),
        (("1.4,P003", "1.1,P003"), r"1 films of several patients, e\.g\. 1\.1 of P001 and P003", 1),
    ],
)
def test_what_is_wrong_stops_or_is_left_aside(place, change, message, left):
    (place / "reports.csv").write_text(TABLE.replace(*change))
    with pytest.raises(PneumoError, match=message + r".*data\.on_error=skip"):
        read(place)
    assert len(read(place, on_error=OnError.skip).items) == left


def test_a_film_both_blank_and_empty_is_unknown(place):
    text = TABLE.replace("P002_19010101,,", "P002_19010101,-1,")
    (place / "reports.csv").write_text(f"{text}5,1.3,P002_19010101,,again\n")
    assert read(place).left_aside[candid.UNKNOWN] == ["1.3"]


def test_another_table_is_named_by_the_column_that_it_lacks(place):
    (place / "reports.csv").write_text("SOPInstanceUID,Report\n1.1,some\n")
    with pytest.raises(PneumoError, match=r"reports\.csv: no column EncodedPixels"):
        read(place)
    (place / "reports.csv").write_text("name,EncodedPixels\n1.1,-1\n")
    with pytest.raises(PneumoError, match=r"line 2: no UID \(column SOPInstanceUID"):
        read(place)


def test_a_film_with_a_malformed_row_is_left_out_whole(place):
    """Its other row alone would be half of its truth."""
    (place / "reports.csv").write_text(TABLE.replace("9 1,some", "9,some"))
    found = read(place, on_error=OnError.skip)
    assert [item.id for item in found.items] == ["1.2", "1.4"]
