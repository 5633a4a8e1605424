"""The table of scores: values by hand, and the means that a bootstrap takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.masks.scores import Films, Shapes, number, roc_auc, summary
from pneumo.masks.truth import Truth

# found by half, missed, rightly empty, found where nothing is
FILMS = Films(np.array([10, 0, 0, 4]), np.array([10, 6, 0, 0]), np.array([5, 0, 0, 0]))


def test_scores_of_four_films_by_hand():
    found = {key: value.item() for key, value in summary(FILMS).items()}
    assert found["dice"] == pytest.approx((0.5 + 0 + 1 + 0) / 4)
    assert found["dice_positive"] == pytest.approx((0.5 + 0) / 2)
    assert found["dice_found"] == pytest.approx(0.5)
    assert found["iou"] == pytest.approx((1 / 3 + 0 + 1 + 0) / 4)
    assert found["sensitivity"] == found["specificity"] == found["all_empty_dice"] == 0.5
    assert "roc_auc" not in found  # no image-level score is known


def test_sensitivity_is_of_positive_films_alone_and_specificity_of_negative_ones():
    films = Films(np.array([3, 0, 0, 0, 2]), np.array([3, 3, 3, 0, 0]), np.array([3, 0, 0, 0, 0]))
    found = summary(films)
    assert found["sensitivity"].item() == pytest.approx(1 / 3)
    assert found["specificity"].item() == pytest.approx(1 / 2)


def test_each_row_of_weights_is_a_set_of_films():
    rows = np.array([[1, 0, 0, 0], [1, 0, 3, 0], [0, 0, 1, 1]], float)
    found = summary(FILMS, rows)
    assert found["dice"].tolist() == pytest.approx([0.5, 3.5 / 4, 0.5])
    assert np.isnan(found["dice_positive"]).tolist() == [False, False, True]


def test_the_image_level_score_ranks_films():
    """Of the four pairs of a positive and a negative film, the positive stands higher in three."""
    ranked = Films(FILMS.predicted, FILMS.truth, FILMS.overlap, np.array([0.9, 0.3, 0.1, 0.4]))
    assert summary(ranked)["roc_auc"].item() == pytest.approx(3 / 4)
    assert summary(ranked)["pr_auc"].item() == pytest.approx((1 + 2 / 3) / 2)


def test_a_score_that_there_is_not_is_a_dash():
    assert [number(value) for value in (0.5, None, float("nan"))] == ["0.5000", "–", "–"]


def test_scores_that_a_truth_does_not_give_are_left_out():
    """Boxes say where, not which pixels; labels not even that."""
    films = Films(np.array([9, 0]), np.array([16, 0]), np.array([4, 0]), score=np.array([0.9, 0.1]))
    films.shapes = Shapes(*np.zeros((8, 2)), np.array([3, 0]), np.array([2, 0]), np.array([1.5, 0]))
    films.truths = [Truth.boxes, Truth.boxes]
    found = summary(films)
    assert (found["box_hit"], found["box_iou"]) == (pytest.approx(2 / 3), 0.5)
    everywhere = {"sensitivity", "specificity", "roc_auc", "pr_auc"}
    assert set(found) == {*everywhere, "pointing", "box_hit", "box_iou"}
    films.truths = [Truth.boxes, Truth.labels]
    assert set(summary(films)) == everywhere


films = st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans(), st.integers(0, 3))


@given(st.lists(films, min_size=1, max_size=12))
def test_roc_auc_is_the_share_of_pairs_in_which_the_positive_film_stands_higher(drawn):
    """Ties count half, and a film drawn n times in a resample is n films."""
    score, positive, times = map(np.array, zip(*drawn, strict=True))
    repeated = [(score[i], positive[i]) for i in range(len(score)) for _ in range(times[i])]
    pairs = [
        (one > other) + (one == other) / 2
        for one, is_positive in repeated
        for other, is_other in repeated
        if is_positive and not is_other
    ]
    found = roc_auc(score, positive, times[None].astype(float)).item()
    assert found == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)
