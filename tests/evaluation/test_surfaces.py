"""All thresholds at once must equal the masks made one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.evaluation import surfaces
from pneumo.masks.components import components
from pneumo.masks.histograms import Histograms, histogram
from pneumo.masks.rule import to_mask
from pneumo.masks.settings import Postprocess, Removal

SIDE, FILMS = 16, 12
TS, AREAS = (0.1, 0.2, 0.5, 0.77, 0.99), (0, 1, 5, 20, 60, 300)


def films(seed):
    """Maps in blobs of few levels, so that areas and levels tie; a third of the truths empty."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 0, 0, 25, 51, 52, 128, 200, 255], size=(FILMS, 4, 4)).astype(np.uint8)
    maps = coarse.repeat(4, axis=1).repeat(4, axis=2)
    maps[:3] = rng.integers(0, 256, (3, SIDE, SIDE))
    truths = (rng.random((FILMS, 4, 4)) < 0.2).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    truths[::3] = 0
    maps[0] = 0
    return maps, truths


def tables(maps, truths):
    pairs = [histogram(one, truth) for one, truth in zip(maps, truths, strict=True)]
    return Histograms(*(np.array(part) for part in zip(*pairs, strict=True)))


def one_by_one(maps, truths, rule):
    dices, ious, marked = [], [], []
    for one, truth in zip(maps, truths, strict=True):
        mask = to_mask(one / 255, rule).astype(bool)
        both, either = (mask & (truth > 0)).sum(), (mask | (truth > 0)).sum()
        dices.append(2 * both / (mask.sum() + truth.sum()) if either else 1.0)
        ious.append(both / either if either else 1.0)
        marked.append(mask.any())
    positive = truths.any((1, 2))
    dices, marked = np.array(dices), np.array(marked)
    return {
        "dice": dices.mean(),
        "iou": np.mean(ious),
        "dice_positive": dices[positive].mean(),
        "sensitivity": marked[positive].mean(),
        "specificity": (~marked[~positive]).mean(),
    }


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_surface_equals_masks_one_by_one(seed):
    maps, truths = films(seed)
    if not truths.any():
        return
    found = surfaces.surface(tables(maps, truths), TS, AREAS)
    for i, t in enumerate(TS):
        for j, area in enumerate(AREAS):
            expected = one_by_one(maps, truths, Postprocess(t, area, SIDE))
            assert {name: values[i, j] for name, values in found.items()} == pytest.approx(expected)


def test_triplets_equal_masks_one_by_one():
    maps, truths = films(1)
    found = surfaces.triplets(tables(maps, truths), (0.5, 0.9), AREAS, (0.1, 0.3))
    for i, top in enumerate((0.5, 0.9)):
        for j, bottom in enumerate((0.1, 0.3)):
            for k, area in enumerate(AREAS):
                expected = one_by_one(
                    maps, truths, Postprocess(bottom, area, SIDE, top_threshold=top)
                )
                assert {name: values[i, j, k] for name, values in found.items()} == pytest.approx(
                    expected
                )


def test_components_equal_masks_one_by_one():
    maps, truths = films(2)
    parts = [
        components(one, truth, film, TS)
        for film, (one, truth) in enumerate(zip(maps, truths, strict=True))
    ]
    found = surfaces.component_surface(parts, truths.sum((1, 2)), TS, AREAS)
    for i, t in enumerate(TS):
        for j, area in enumerate(AREAS):
            expected = one_by_one(maps, truths, Postprocess(t, area, SIDE, Removal.component))
            assert {name: values[i, j] for name, values in found.items()} == pytest.approx(expected)


def test_films_without_any_component_have_empty_masks():
    truth = np.array([0, 5, 0])
    found = surfaces.component_surface([], truth, TS, AREAS)
    assert np.allclose(found["dice"], 2 / 3)
    assert (found["sensitivity"] == 0).all()
    assert (found["specificity"] == 1).all()


def test_a_film_is_called_positive_exactly_where_its_score_exceeds_the_threshold():
    maps, truths = films(3)
    histograms = tables(maps, truths)
    for area in (0, 5, 16, 32, 48, 64):  # areas of blobs, too
        score = histograms.score(area)
        for t in TS:
            marked = [to_mask(one / 255, Postprocess(t, area, SIDE)).any() for one in maps]
            assert (score > t).tolist() == marked


def test_a_set_without_positives_has_no_score_of_positives():
    maps, truths = films(4)
    found = surfaces.surface(tables(maps, 0 * truths), TS, AREAS)
    assert np.isnan(found["dice_positive"]).all()
    assert np.isnan(found["sensitivity"]).all()
    assert np.array_equal(found["dice"], found["specificity"])


def test_the_best_of_equals_is_the_middle_one():
    assert surfaces.best(np.array([[0.1, 0.5, 0.5], [0.5, 0.2, np.nan]])) == (0, 2)


def test_many_films_are_looked_at_some_thresholds_at_a_time(monkeypatch):
    """With the very same scores, to the last bit."""
    histograms = tables(*films(3))
    whole = surfaces.surface(histograms)
    monkeypatch.setattr(surfaces, "CELLS", 7 * FILMS)
    parts = surfaces.surface(histograms)
    assert set(parts) == set(whole)
    for name, values in whole.items():
        assert np.array_equal(parts[name], values, equal_nan=True), name
