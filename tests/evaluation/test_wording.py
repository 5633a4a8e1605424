"""What a person reads of an evaluation."""

import dataclasses

import pytest
from evaluation.synthetic import synthetic

from pneumo.evaluation import calibration, choosing, scores, wording
from pneumo.evaluation.results import Comparison, Evaluation, OfSize, Point
from pneumo.masks.settings import Postprocess


@pytest.fixture
def found(tmp_path):
    """An evaluation of eight films of four patients, under declared thresholds."""
    part = synthetic(tmp_path, "a", films=8)
    outcomes = choosing.outcomes([part], Postprocess(), tta=True)
    result = choosing.Result("declared", "as the experiment says", [Postprocess()], outcomes)
    return Evaluation(
        runs=["runs/exp5/x/fold0-seed0"],
        weights=["abc"],
        sizes=[512],
        on="val",
        data="siim",
        tta=True,
        films=8,
        positives=6,
        patients=4,
        films_of_unknown_patient=0,
        left_out=0,
        seen_in_training=0,
        patients_in_training=0,
        results=[result.judgement(20, 0)],
        pixels=calibration.of_pixels(choosing.joined([part], True)),
        commit=None,
        command="",
    )


def test_the_first_line_says_which_films_and_how_many(found):
    first = wording.describe(found).splitlines()[0]
    assert first == (
        "runs/exp5/x/fold0-seed0 on val at 512², flip TTA: 8 films, 6 positive, 4 patients"
    )


def test_what_makes_scores_worth_less_stands_before_them(found):
    seen = dataclasses.replace(found, seen_in_training=3, films_of_unknown_patient=2)
    lines = wording.describe(seen).splitlines()
    assert "2 films of unknown patient" in lines[0]
    assert lines[1].startswith("WARNING: 3 of these films were in the training data")
    assert "too narrow" in lines[2]
    assert "too narrow" in lines[-1]
    assert "WARNING" not in wording.describe(found)


def test_a_difference_stands_with_its_interval_and_p_where_there_are_any(found):
    gaps = {
        "dice": scores.Difference(0.02, -0.01, 0.05, 0.21),
        "iou": scores.Difference(0.03, float("nan"), float("nan"), float("nan")),
        "dice_positive": scores.Difference(*[float("nan")] * 4),
    }
    text = wording.describe(dataclasses.replace(found, against=Comparison("other", gaps)))
    assert "minus other, dice: +0.0200 [-0.0100, +0.0500], p = 0.210" in text
    assert "minus other, iou: +0.0300\n" in text
    assert "minus other, dice_positive" not in text


def test_sensitive_operating_points_stand_in_detail_below_the_specific_ones(found):
    rates = {"sensitivity": 0.7, "specificity": 0.6, "ppv": 0.5, "npv": None}
    specific, sensitive = Point(0.9, 0.5, rates, {}), Point(0.95, 0.5, rates, {})
    more = dataclasses.replace(
        found,
        operating=[specific],
        at_sensitivities=[sensitive],
        measures={"prevalence": 0.05},
    )
    line = "sensitivity 0.95: specificity 0.600, PPV 0.500, NPV –"
    assert line not in wording.describe(more)
    text = wording.describe(more, detail=True)
    assert text.index("specificity 0.9: sensitivity 0.700") < text.index(line)
    assert more.to_dict()["at_sensitivities"][0]["scores"] == rates


def test_detection_by_size_stands_in_detail_with_its_films_and_what_it_assumes(found):
    large = OfSize(18_388, 2, 1_700, {"roc_auc": 0.9, "sensitivity": 0.5}, {"roc_auc": (0.8, 0.95)})
    large.at_specificities = [Point(0.9, 0.5, {"sensitivity": 0.5}, {})]
    larger = OfSize(99_999, 0, 1_700, {"roc_auc": None, "sensitivity": None}, {})
    more = dataclasses.replace(found, by_size=[large, larger])
    text = wording.describe(more, detail=True)
    assert "against all 1,700 negatives" in text
    assert "ROC AUC 0.900  [0.800, 0.950], sensitivity 0.500  (2 films)" in text
    assert "    specificity 0.9: sensitivity 0.500\n" in text
    assert "99,999 px          ROC AUC –, sensitivity –  (0 films)" in text
    assert "is an assumption" in text
    assert "1,700 negatives" not in wording.describe(more)
    (plain, _) = more.to_dict()["by_size"]
    assert (plain["positives"], plain["intervals"]) == (2, {"roc_auc": [0.8, 0.95]})
    assert plain["at_specificities"][0]["wanted"] == 0.9
