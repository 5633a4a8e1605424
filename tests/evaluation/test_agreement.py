"""Second readers beside a table: what is scored of each kind, by hand and on the real films."""

import json

import numpy as np
import pytest

from pneumo.data.sources import siim
from pneumo.data.sources.readers import Box, Reader, Reading
from pneumo.errors import PneumoError
from pneumo.evaluation import agreement, scores
from pneumo.evaluation.settings import SecondReaders
from pneumo.masks import rle
from pneumo.masks.truth import Truth


def runs(first, last):
    """Run lengths of some pixels of the first column."""
    mask = np.zeros(rle.SHAPE, np.uint8)
    mask[first:last, 0] = 1
    return rle.encode(mask)


@pytest.fixture
def table(tmp_path):
    """Two positive films, the second of two overlapping rows, and two negative ones."""
    path = tmp_path / "table.csv"
    rows = [f"a,{runs(0, 10)}", f"b,{runs(0, 6)}", f"b,{runs(4, 10)}", "c,-1", "d,-1"]
    path.write_text("\n".join(["ImageId,EncodedPixels", *rows]) + "\n")
    return siim.read_table(path)


PATIENTS = {"a": "1", "b": "2", "c": "3", "d": "3"}


def judged(reader, table, **options):
    settings = {"share": 0.25, "count": 50, **options}
    found = agreement.judge(reader, table, PATIENTS, **settings)
    return found, {one.key: one for one in found.values}


def masks(**readings):
    made = {image: Reading(text != rle.EMPTY, text) for image, text in readings.items()}
    return Reader("us", Truth.masks, made)


def test_masks_are_judged_as_a_run_is_on_the_films_that_both_have(table):
    reader = masks(a=runs(5, 15), b="-1", c="-1", d=runs(0, 1), elsewhere=runs(0, 1))
    found, values = judged(reader, table)
    assert (found.films, found.patients) == (4, 3)
    assert (found.positive, found.marked, found.both) == (2, 2, 1)
    expected = {
        "sensitivity": (0.5, 2),
        "specificity": (0.5, 2),
        "dice_positive": (0.25, 2),  # .5 and 0
        "dice_found": (0.5, 1),
        "dice": (0.375, 4),  # .5, 0, 1, 0
        "dice_reweighted": (0.25 * 0.25 + 0.75 * 0.5, 4),
    }
    assert {key: (one.value, one.films) for key, one in values.items()} == expected
    alone = values.pop("dice_found")  # a single film has no interval
    assert np.isnan([alone.low, alone.high]).all()
    assert all(one.low <= one.value <= one.high for one in values.values())
    (reason,) = found.left_aside
    assert "not annotated, so not negative" in reason


def test_reweighting_to_the_films_own_share_changes_nothing(table):
    _, values = judged(masks(a=runs(5, 15), b="-1", c="-1", d="-1"), table, share=0.5)
    assert values["dice_reweighted"].value == values["dice"].value


def test_patients_are_drawn_with_all_their_films(table):
    """The two negative films are of one patient: specificity is 0.5 in every draw that has any."""
    _, values = judged(masks(a="-1", b="-1", c="-1", d=runs(0, 1)), table)
    assert (values["specificity"].low, values["specificity"].high) == (0.5, 0.5)


def test_many_resamples_are_drawn_some_at_a_time_and_give_the_same(table, monkeypatch):
    """So that memory does not grow with films and resamples."""
    reader, held, scored = masks(a=runs(5, 15), b="-1", c="-1", d=runs(0, 1)), [], agreement.scored

    def watched(films, share, weights=None):
        held.append(1 if weights is None else len(weights))
        return scored(films, share, weights)

    monkeypatch.setattr(agreement, "scored", watched)
    whole, _ = judged(reader, table)
    assert max(held) == 50
    held.clear()
    monkeypatch.setattr(scores, "WEIGHTS", 3 * 4)
    found, _ = judged(reader, table)
    assert max(held) == 3
    np.testing.assert_equal(found.as_json(), whole.as_json())


def test_labels_have_no_dice(table):
    made = {"a": Reading(True), "b": Reading(False), "c": Reading(True), "d": Reading(False)}
    found, values = judged(Reader("us", Truth.labels, made), table, count=0)
    assert {key: one.value for key, one in values.items()} == {
        "sensitivity": 0.5,
        "specificity": 0.5,
    }
    said = agreement.described(found)[0]
    assert '1 of the table\'s 2 positives are called "no", 1 of its 2 negatives "yes"' in said


def test_a_box_meets_a_mask_or_not_and_says_nothing_of_other_films(table):
    made = {
        "a": Reading(True, boxes=[Box(500, 500, 9, 9), Box(0, 9.5, 0.5, 1)]),
        "b": Reading(True, boxes=[Box(0, 10, 5, 5)]),
        "c": Reading(True, boxes=[Box(0, 0, 5, 5)]),
    }
    found, values = judged(Reader("us", Truth.boxes, made), table)
    assert {key: (one.value, one.films) for key, one in values.items()} == {"box_met": (0.5, 2)}
    assert "1 of them have an empty mask" in agreement.described(found)[0]


def test_intervals_are_left_out_where_there_are_none(table):
    for reader, options in ((masks(a="-1", c="-1"), {"count": 0}), (masks(c="-1", d="-1"), {})):
        found, _ = judged(reader, table, **options)
        assert {row[3] for row in agreement.table_of([found]).rows} == {"–"}
        plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
        assert {one["low"] for one in plain["values"]} == {None}


def test_a_reader_of_other_films_is_refused(table):
    with pytest.raises(PneumoError, match=r"us: none of its 1 films is in .*such as z"):
        judged(masks(z="-1"), table)


def test_a_mask_beyond_the_readers_films_is_refused_by_its_image(table):
    table.rows["a"][0].text = f"{1024 * 1024} 5"
    with pytest.raises(PneumoError, match=r"table\.csv \(a\): .*beyond.*readers count 1024²"):
        judged(masks(a="-1"), table)


def test_the_figures_of_the_real_readers(real_data, second_readers):
    """To the last digit in which they were stated before this was written. The interval is of
    10,000 resamples: of 2,000 its ends move by .0025 between seeds.
    """
    chestx_det, google, boxes = agreement.compare(
        SecondReaders(
            annotations=str(real_data / "siim" / "stage_2_train.csv.gz"),
            patients=str(real_data / "siim" / "nih_id.csv"),
            chestx_det=str(second_readers / "ChestX_Det_*.json.gz"),
            google=str(second_readers / "google2019_pneumothorax.csv"),
            nih_boxes=[str(second_readers / "nih_boxes_pneumothorax.csv")],
        )
    )
    counts = ("films", "patients", "positive", "marked", "both")
    assert [getattr(chestx_det, key) for key in counts] == [603, 387, 158, 127, 101]
    shown = {one.key: f"{one.value:.3f}" for one in chestx_det.values}
    del shown["dice"]
    assert shown == {
        "sensitivity": "0.639",
        "specificity": "0.942",
        "dice_positive": "0.350",
        "dice_found": "0.547",
        "dice_reweighted": "0.810",
    }
    last = agreement.table_of([chestx_det]).rows[-1]
    assert last == ["ChestX-Det", "Dice at 22.15 % positive", "0.810", "0.789 to 0.831", "603"]
    assert (google.positive, google.positive - google.both) == (118, 38)
    assert (google.films - google.positive, google.marked - google.both) == (370, 16)
    assert (boxes.films, boxes.films - boxes.positive) == (76, 12)
