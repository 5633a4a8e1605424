"""A model beside second readers, on synthetic films whose masks are known."""

import csv
import json

import numpy as np
import pytest
from evaluation.synthetic import synthetic

from pneumo.data.sources.readers import Box, Reader, Reading
from pneumo.errors import PneumoError
from pneumo.evaluation import choosing, opinions
from pneumo.evaluation.settings import ReaderFiles
from pneumo.masks import rle
from pneumo.masks.overlap import dice
from pneumo.masks.settings import Postprocess
from pneumo.masks.truth import Truth

RULE = Postprocess(0.4, 2048, 1024)
ASKED = ReaderFiles()


def square(corner, side):
    mask = np.zeros((1024, 1024), np.uint8)
    mask[corner : corner + side, corner : corner + side] = 1
    return mask


def masks_reader(part, every=2):
    """A reader of every second film who draws the challenge's mask shifted by 64 pixels, sees
    nothing on film 2, and a square on film 4, which shows none.
    """
    readings = {}
    for case in part.cases[::every]:
        mask = np.roll(case.mask(), 64, axis=1)
        if case.id == "2":
            mask[:] = 0
        if case.id == "4":
            mask = square(100, 300)
        readings[case.id] = Reading(bool(mask.any()), rle.encode(mask) if mask.any() else rle.EMPTY)
    return Reader("them", Truth.masks, readings)


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    return synthetic(tmp_path_factory.mktemp("maps"), "run", films=24)


def value(values, key):
    return next(one for one in values if one.key == key)


def by_hand(part, reader):
    """Masks of challenge, reader and model of the films that the reader has read."""
    for row, case in enumerate(part.cases):
        if case.id in reader.readings:
            theirs = rle.decode(reader.readings[case.id].runs)
            yield case.mask() > 0, theirs > 0, part.mask(row, RULE, True) > 0


def mean_dice(pairs, positives=False):
    each = [
        float(dice((one & other).sum(), one.sum(), other.sum()))
        for one, other in pairs
        if not positives or other.any()
    ]
    return np.mean(each)


def test_model_and_reader_are_judged_on_the_films_that_both_have(part):
    reader = masks_reader(part)
    found = opinions.judge([part], RULE, True, reader, ASKED, 0, 0)
    films = list(by_hand(part, reader))
    assert (found.films, found.positives) == (12, sum(c.any() for c, _, _ in films))
    for values, pairs in (
        (found.alone, [(r, c) for c, r, _ in films]),
        (found.model, [(m, c) for c, _, m in films]),
    ):
        assert value(values, "dice").value == pytest.approx(mean_dice(pairs))
        assert value(values, "dice_positive").value == pytest.approx(mean_dice(pairs, True))
    gap = found.minus["dice"].mean
    assert gap == pytest.approx(value(found.model, "dice").value - value(found.alone, "dice").value)


def test_the_model_is_judged_by_every_truth(part):
    reader = masks_reader(part)
    found = opinions.judge([part], RULE, True, reader, ASKED, 0, 0)
    films = list(by_hand(part, reader))
    agreed = [(m, c) for c, r, m in films if c.any() == r.any()]
    expected = {
        "the challenge": [(m, c) for c, _, m in films],
        "them": [(m, r) for _, r, m in films],
        "both together": [(m, c | r) for c, r, m in films],
        "what both mark": [(m, c & r) for c, r, m in films],
        "the challenge, where both agree": agreed,
    }
    assert [one.truth for one in found.by_truth] == list(expected)
    for one in found.by_truth:
        pairs = expected[one.truth]
        assert (one.films, one.positives) == (len(pairs), sum(t.any() for _, t in pairs))
        assert value(one.values, "dice").value == pytest.approx(mean_dice(pairs))


def test_a_difference_has_its_interval_by_patient_and_none_of_a_single_film(part):
    reader = masks_reader(part)
    found = opinions.judge([part], RULE, True, reader, ASKED, 200, 0)
    gap = found.minus["dice"]
    assert gap.low < gap.mean < gap.high
    assert 0 < gap.p <= 1
    one = Reader("them", Truth.masks, {"2": reader.readings["2"], "4": reader.readings["4"]})
    found = opinions.judge([part], RULE, True, one, ASKED, 200, 0)
    assert np.isnan(found.minus["sensitivity"].p)
    assert np.isnan(value(found.alone, "sensitivity").low)


def test_films_on_which_no_two_agree_are_listed_with_room_for_a_verdict(part, tmp_path):
    """On film 2 the reader sees nothing and the model elsewhere than the challenge."""
    reader = masks_reader(part)
    strict = Postprocess(0.99, 2048, 1024)
    assert opinions.judge([part], strict, True, reader, ASKED, 0, 0).disagreed == []
    loose = Postprocess(0.01, 0, 1024)  # the model marks nearly everything
    found = opinions.judge([part], loose, True, reader, ASKED, 0, 0)
    assert {"2", "4"} <= {one.id for one in found.disagreed}
    for one in found.disagreed:
        assert max(one.challenge_reader, one.challenge_model, one.reader_model) < opinions.AGREE
    path = opinions.write_disagreements(tmp_path, found, [part], loose, True, reader, 3)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [one.id for one in found.disagreed]
    assert {row["verdict"] for row in rows} == {""}
    assert {row["picture"] for row in rows} == {""}  # these films are not on any disk


def test_labels_give_detection_and_boxes_whether_they_are_met(part):
    positive = {case.id: Reading(bool(case.annotations)) for case in part.cases}
    found = opinions.judge([part], RULE, True, Reader("L", Truth.labels, positive), ASKED, 0, 0)
    assert value(found.alone, "sensitivity").value == value(found.alone, "specificity").value == 1
    outcomes = choosing.outcomes([part], RULE, True)
    expected = (outcomes.marked & outcomes.positive).sum() / outcomes.positive.sum()
    assert value(found.model, "sensitivity").value == pytest.approx(expected)
    assert [one.key for one in found.model] == ["sensitivity", "specificity"]
    boxes = {"1": Reading(True, boxes=[Box(0, 0, 1024, 1024)])}
    found = opinions.judge([part], RULE, True, Reader("B", Truth.boxes, boxes), ASKED, 0, 0)
    assert value(found.model, "box_met").value == 1


def test_readings_are_turned_upright_with_their_film():
    mask = square(0, 100)
    reading = Reading(True, rle.encode(mask))
    turned = opinions.drawn(reading, Truth.masks, ("R", "F"))  # mirrored
    assert np.array_equal(turned, mask[:, ::-1])


def test_what_is_found_is_plain_json_and_two_tables(part):
    found = opinions.judge([part], RULE, True, masks_reader(part), ASKED, 20, 0)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["by_truth"][1]["values"][0]["key"] == "sensitivity"
    beside, truths = opinions.tables({"ours": [found]})
    assert beside.rows[0][:3] == ["ours", "them", "sensitivity"]
    assert [row[2] for row in truths.rows] == [one.truth for one in found.by_truth]


def test_a_reader_of_other_films_is_refused(part):
    stranger = Reader("them", Truth.masks, {"elsewhere": Reading(False)})
    with pytest.raises(PneumoError, match="them has read none of these 24 films"):
        opinions.judge([part], RULE, True, stranger, ASKED, 0, 0)
    with pytest.raises(PneumoError, match=r"reader\.names is not set"):
        opinions.names_of(ASKED, [None])
