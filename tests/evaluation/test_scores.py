"""Scores against independent libraries, and against what they are defined to be."""

import csv
import gzip

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from sklearn import metrics as independent

from pneumo.evaluation import scores
from pneumo.evaluation.scores import Outcomes
from pneumo.masks.scores import Shapes, iou_mean_precision, iou_stepped, mean, summary
from pneumo.masks.truth import Truth


def resamples(patients, count, seed):
    """The weights of a bootstrap, all of them."""
    return np.concatenate(list(scores._blocks(patients, count, seed)))


def outcomes(seed=0, n=300, patients=60, sharpness=3.0):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    truth = np.where(positive, rng.integers(50, 30_000, n), 0)
    score = np.clip(rng.normal(positive / sharpness + 0.3, 0.2), 0, 1).round(2)
    predicted = np.where(score > 0.4, rng.integers(1, 30_000, n), 0)
    overlap = np.minimum(truth, predicted) * rng.integers(0, 2, n)
    names = [f"p{i}" for i in rng.integers(0, patients, n)]
    return Outcomes(
        [str(i) for i in range(n)],
        predicted,
        truth,
        overlap,
        score,
        names,
        [("PA", "AP", None)[i % 3] for i in range(n)],
    )


def test_dice_and_iou_equal_smp_image_by_image():
    """smp counts 1 for an image where both are empty, as the challenge does."""
    o = outcomes()
    counts = [
        torch.tensor(c)[:, None] for c in (o.overlap, o.predicted - o.overlap, o.truth - o.overlap)
    ]
    rest = 1024**2 - sum(counts)
    assert o.dice.mean() == pytest.approx(
        smp.metrics.f1_score(*counts, rest, reduction="micro-imagewise").item()
    )
    assert o.iou.mean() == pytest.approx(
        smp.metrics.iou_score(*counts, rest, reduction="micro-imagewise").item()
    )


def test_areas_and_curves_equal_scikit_learn():
    o = outcomes()
    found = summary(o)
    assert found["roc_auc"][0] == pytest.approx(independent.roc_auc_score(o.positive, o.score))
    assert found["pr_auc"][0] == pytest.approx(
        independent.average_precision_score(o.positive, o.score)
    )
    weights = resamples(o.patients, 5, 0)
    for row, auc, ap in zip(
        weights,
        summary(o, weights)["roc_auc"],
        summary(o, weights)["pr_auc"],
        strict=True,
    ):
        assert auc == pytest.approx(
            independent.roc_auc_score(o.positive, o.score, sample_weight=row)
        )
        assert ap == pytest.approx(
            independent.average_precision_score(o.positive, o.score, sample_weight=row)
        )
    _, false, true = scores.roc_curve(o.score, o.positive)
    theirs = independent.roc_curve(o.positive, o.score, drop_intermediate=False)
    assert np.allclose(false, theirs[0])
    assert np.allclose(true, theirs[1])
    assert found["sensitivity"][0] == pytest.approx(
        independent.recall_score(o.positive, o.predicted > 0)
    )
    assert found["specificity"][0] == pytest.approx(
        independent.recall_score(~o.positive, o.predicted == 0)
    )


def test_the_two_variants_of_iou():
    values = np.array([0.0, 0.44, 0.45, 0.5, 0.52, 0.55, 0.949, 0.95, 1.0])
    assert iou_stepped(values) == pytest.approx([0, 0, 0, 0.1, 0.1, 0.2, 0.9, 1.0, 1.0])
    assert iou_mean_precision(values) == pytest.approx([0, 0, 0, 0, 0.1, 0.1, 0.9, 0.9, 1.0])


def test_a_weight_of_two_is_the_film_twice():
    o = outcomes(n=40)
    rows = np.array([0, 1, 1, 5, 7, 7, 7, *range(10, 40)])
    weights = np.bincount(rows, minlength=40)[None].astype(float)
    once = {name: value[0] for name, value in summary(o, weights).items()}
    assert once == pytest.approx({name: value[0] for name, value in summary(o[rows]).items()})


def test_a_resample_takes_whole_patients():
    o = outcomes()
    weights = resamples(o.patients, 20, 1)
    for name in set(o.patients):
        films = [i for i, patient in enumerate(o.patients) if patient == name]
        assert (weights[:, films] == weights[:, films[:1]]).all()
    unknown = resamples([None] * 50, 20, 1)
    assert (unknown.sum(1) == 50).all()
    assert len(np.unique(unknown[0])) > 1


def test_intervals_by_patient_are_wider_than_by_film_when_patients_repeat():
    o = outcomes(n=300, patients=300)
    clones = Outcomes.join([o[np.arange(60)]] * 5)
    by_patient = scores.intervals(
        Outcomes(*{**vars(clones), "patients": [str(i % 60) for i in range(300)]}.values()), 400
    )["dice"]
    by_film = scores.intervals(Outcomes(*{**vars(clones), "patients": [None] * 300}.values()), 400)[
        "dice"
    ]
    assert by_patient[1] - by_patient[0] > 1.7 * (by_film[1] - by_film[0])
    assert by_patient[0] < o[np.arange(60)].dice.mean() < by_patient[1]


def test_paired_comparison_finds_a_difference_and_no_difference():
    better, same = outcomes(1), outcomes(1)
    worse = Outcomes(*{**vars(better), "overlap": better.overlap // 2}.values())
    gap = scores.paired(better, worse, 500)["dice"]
    assert gap.mean == pytest.approx(better.dice.mean() - worse.dice.mean())
    assert gap.low > 0
    assert gap.p < 0.01
    none = scores.paired(better, same, 500)["dice"]
    assert (none.mean, none.low, none.high, none.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1])
def test_p_is_small_just_where_the_interval_leaves_zero_out(share):
    """Both come from the same resamples, so that they cannot contradict each other."""
    better = outcomes(3)
    rng = np.random.default_rng(0)
    cut = np.where(rng.random(len(better)) < share, 0.5, 1.0)
    worse = Outcomes(*{**vars(better), "overlap": (better.overlap * cut).astype(np.int64)}.values())
    gap = scores.paired(better, worse, 999)["dice"]
    assert (gap.p < 0.05) == (gap.low > 0 or gap.high < 0)


def test_an_interval_holds_the_middle_95_percent_and_p_counts_both_sides():
    low, high = scores.middle(np.r_[np.nan, np.arange(1001) / 1000])
    assert (low, high) == pytest.approx((0.025, 0.975))
    assert np.isnan(scores.middle(np.array([np.nan]))).all()
    gap = scores.difference(0.3, np.r_[[-0.1, -0.2], np.full(97, 0.5)])
    assert gap.p == pytest.approx(2 * (1 + 2) / 100)  # two of 99 beyond zero
    assert scores.difference(-0.3, -np.full(99, 0.5)).p == pytest.approx(2 / 100)


def test_one_patient_says_nothing_of_others():
    alone = Outcomes(*{**vars(outcomes()), "patients": ["a"] * len(outcomes())}.values())
    assert scores.intervals(alone, 100) == {}
    gap = scores.paired(alone, alone, 100)["dice"]
    assert gap.mean == 0
    assert np.isnan([gap.low, gap.high, gap.p]).all()


def test_groups_by_size_and_view():
    o = outcomes()
    found = scores.groups(o)
    assert (
        sum(len(rows) for name, rows in found.items() if name.startswith("size"))
        == o.positive.sum()
    )
    assert set(o.truth[found["size to 4,059 px"]] <= 4059) == {True}
    assert len(found["view AP"]) == 100


def test_groups_by_sex_and_age_hold_the_films_of_which_they_are_known():
    o = outcomes(n=6)
    o.sexes, o.ages = ["F", "M", None, "F", "M", None], [0.5, 17.0, 18.0, None, 64.0, 65.0]
    found = {name: rows.tolist() for name, rows in scores.groups(o).items() if name[:4] != "size"}
    assert (found["sex F"], found["sex M"]) == ([0, 3], [1, 4])
    ages = [found[f"age {name}"] for name in ("to 17", "18 to 39", "40 to 64", "from 65")]
    assert ages == [[0, 1], [2], [4], [5]]


def shaped(values):
    o = outcomes(n=len(values))
    columns = np.array(values, float).T
    none = np.zeros((3, len(values)))  # boxes
    shapes = Shapes(*columns[1:], *none)
    return Outcomes(**{**vars(o), "truth": columns[0].astype(int), "shapes": shapes})


def test_lesions_are_counted_together_and_boundaries_where_they_exist():
    """Truth, hits, false, missed, NSD, NSD in mm, HD95, HD95 in mm, pointed of four films."""
    nan = np.nan
    o = shaped(
        [
            (50, 2, 0, 1, 0.8, 0.9, 10, 4, 1),  # found
            (50, 0, 0, 1, 0.0, nan, nan, nan, 0.5),  # missed, spacing unknown
            (0, 0, 3, 0, 0.0, 0.0, nan, nan, nan),  # false positive
            (0, 0, 0, 0, nan, nan, nan, nan, nan),  # nothing, rightly
        ]
    )
    found = {key: value[0] for key, value in summary(o).items()}
    assert found["lesion_f1"] == pytest.approx(4 / (4 + 3 + 2))
    assert found["lesion_sensitivity"] == pytest.approx(2 / 4)
    assert found["lesion_precision"] == pytest.approx(2 / 5)
    assert found["lesion_false"] == pytest.approx(3 / 4)
    assert (found["nsd_px"], found["nsd_mm"]) == (pytest.approx(0.4), pytest.approx(0.9))
    assert (found["hd95_px"], found["hd95_mm"]) == (10, 4)
    assert found["pointing"] == pytest.approx(0.75)
    negatives = summary(o[np.array([3])])
    assert np.isnan(negatives["lesion_f1"][0])
    assert np.isnan(negatives["hd95_px"][0])
    assert "lesion_f1" not in summary(outcomes(n=4))


def test_intervals_without_patients_are_too_narrow_by_as_much_as_is_said(real_data):
    """Share of negative films (Dice of empty masks) of a tenth of the challenge's patients, drawn
    80 times: how often the interval holds the share of all.
    """
    with open(real_data / "siim" / "nih_id.csv", newline="") as file:
        patient = {row["Kaggle_ID"]: row["NIH_ID"][:8] for row in csv.DictReader(file)}
    with gzip.open(real_data / "siim" / "stage_2_train.csv.gz", "rt") as file:
        positive = {row[0]: row[1].strip() != "-1" for row in list(csv.reader(file))[1:]}
    films = {}
    for image, name in patient.items():
        films.setdefault(name, []).append(not positive[image])
    everybody = list(films.values())
    truth = sum(map(sum, everybody)) / len(positive)
    assert truth == pytest.approx(0.7785, abs=1e-4)
    rng = np.random.default_rng(0)
    held = {"film": 0, "patient": 0}
    for draw in range(80):
        drawn = [everybody[i] for i in rng.integers(0, len(everybody), len(everybody) // 10)]
        negative = np.concatenate(drawn)
        names = [str(i) for i, part in enumerate(drawn) for _ in part]
        for by, known in (("film", [None] * len(names)), ("patient", names)):
            low, high = scores.middle(mean(negative, resamples(known, 100, draw)))
            held[by] += low <= truth <= high
    assert held["film"] / 80 == pytest.approx(0.57, abs=0.15)
    assert held["patient"] / 80 == pytest.approx(0.91, abs=0.1)
    assert "57 %" in scores.NARROW


def test_groups_by_site_and_chest_tube_hold_the_films_of_which_they_are_known():
    o = outcomes(n=4)
    o.sites, o.tubes = ["A", None, "B", "A"], [True, False, None, True]
    found = {name: rows.tolist() for name, rows in scores.groups(o).items()}
    assert (found["site A"], found["site B"]) == ([0, 3], [2])
    assert (found["tube yes"], found["tube no"]) == ([0, 3], [1])


def test_films_without_masks_have_no_groups_by_size():
    o = outcomes(n=4)
    assert any(name.startswith("size") for name in scores.groups(o))
    o.truths = [Truth.masks, Truth.boxes, Truth.masks, Truth.masks]
    assert not any(name.startswith("size") for name in scores.groups(o))


def test_a_bootstrap_of_many_films_draws_the_same_some_resamples_at_a_time(monkeypatch):
    """So that its memory does not grow with the films."""
    o, other = outcomes(n=50), outcomes(seed=1, n=50)
    other.truth, other.patients = o.truth, o.patients
    whole = resamples(o.patients, 20, 1)
    intervals, paired = scores.intervals(o, 20), scores.paired(o, other, 20)
    monkeypatch.setattr(scores, "WEIGHTS", 3 * 50)
    seen = []

    def watched(weights):
        seen.append(weights)
        return {"sum": weights.sum(1)}

    scores.resampled(o.patients, 20, 1, watched)
    assert [len(weights) for weights in seen] == [3] * 6 + [2]
    assert np.array_equal(np.concatenate(seen), whole)
    for key, bounds in scores.intervals(o, 20).items():
        assert bounds == pytest.approx(intervals[key], rel=1e-12)
    for key, found in scores.paired(o, other, 20).items():
        assert vars(found) == pytest.approx(vars(paired[key]), rel=1e-12), key
