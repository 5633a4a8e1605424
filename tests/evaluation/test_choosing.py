"""Scores that are those of the masks, and thresholds that are chosen honestly."""

import dataclasses

import numpy as np
import pytest
from evaluation.synthetic import synthetic

from pneumo.errors import PneumoError
from pneumo.evaluation import choosing
from pneumo.evaluation.settings import Tune
from pneumo.masks.rule import to_mask
from pneumo.masks.settings import Postprocess, Removal


def test_scores_are_those_of_the_masks(tmp_path):
    part = synthetic(tmp_path, "a")
    rules = [
        Postprocess(0.5, 2048),
        Postprocess(0.3, 60_000, top_threshold=0.6),
        Postprocess(0.4, 5000, removal=Removal.component),
        Postprocess(0.4, 0, contour_area=3000.0, fill_holes=True),
    ]
    for rule in rules:
        found = choosing.outcomes([part], rule, tta=True)
        for row, case in enumerate(part.cases):
            mask, truth = to_mask(part.map(row, True), rule), case.mask()
            assert (found.predicted[row], found.truth[row], found.overlap[row]) == (
                mask.sum(),
                truth.sum(),
                (mask & truth).sum(),
            )


@pytest.mark.parametrize(
    "rule",
    [
        Postprocess(0.5, 2048, presence_threshold=0.5),
        Postprocess(0.4, 0, contour_area=3000.0, presence_threshold=0.5),
        Postprocess(0.4, 2048, removal=Removal.component, presence_threshold=0.5),
    ],
)
def test_a_gate_empties_films_and_its_score_ranks_them(tmp_path, rule):
    presence = np.linspace(0, 1, 8)
    part = synthetic(tmp_path, "a", films=8, presence=presence)
    gated = choosing.outcomes([part], rule, tta=True)
    alone = choosing.outcomes([part], dataclasses.replace(rule, presence_threshold=None), tta=True)
    assert gated.score == pytest.approx(presence)
    closed = presence < 0.5
    assert (gated.predicted[closed] == 0).all()
    assert (gated.overlap[closed] == 0).all()
    assert np.array_equal(gated.predicted[~closed], alone.predicted[~closed])
    assert np.array_equal(gated.truth, alone.truth)
    assert alone.predicted[closed].any()


def test_a_gate_is_chosen_with_the_other_thresholds(tmp_path):
    """Maps too noisy to tell empty films, and scores that do."""
    positive = np.arange(24) % 4 > 0
    presence = np.where(positive, 0.64, 0.55)
    part = synthetic(tmp_path, "a", films=24, noise=0.5, presence=presence)
    rule = Postprocess(0.3, 0, presence_threshold=0.9)
    chosen = choosing.search([part], np.arange(24), rule, True)
    assert 0.55 < chosen.presence_threshold <= 0.64
    alone = choosing.search([part], np.arange(24), Postprocess(0.3, 0), True)
    gated, ungated = (choosing.outcomes([part], one, True).dice for one in (chosen, alone))
    assert gated.mean() > ungated.mean()
    assert (gated[~positive] == 1).all()


def test_a_gate_without_scores_is_refused_in_words(tmp_path):
    part = synthetic(tmp_path, "a", films=4)
    with pytest.raises(PneumoError, match=r"presence_threshold=0.5: .*model\.presence=true"):
        choosing.outcomes([part], Postprocess(0.5, 0, presence_threshold=0.5), True)


def test_thresholds_are_chosen_on_other_films_than_they_are_scored_on(tmp_path):
    """Damage to the films of one half must change the thresholds of the other half only."""
    part = synthetic(tmp_path, "a")
    rule = Postprocess(0.9, 2048)
    declared, tuned, optimistic = choosing.judge([part], rule, True, Tune.optimistic)
    assert (
        declared.outcomes.dice.mean()
        < tuned.outcomes.dice.mean()
        <= optimistic.outcomes.dice.mean() + 1e-9
    )
    assert len(tuned.rules) == 2
    assert sorted(tuned.outcomes.ids) == sorted(part.ids)
    patients = {
        name: {i % 2 for i, p in enumerate(tuned.outcomes.patients) if p == name}
        for name in tuned.outcomes.patients
    }
    assert len(patients) == 20
    first = len(tuned.outcomes) - 20
    ids = set(tuned.outcomes.ids[:first])
    halves = [
        {tuned.outcomes.patients[i] for i in part}
        for part in (range(first), range(first, len(tuned.outcomes)))
    ]
    assert not halves[0] & halves[1]
    worse = synthetic(tmp_path, "b", dimmed=ids)
    (_, again) = choosing.judge([worse], rule, True, Tune.honest)
    assert again.rules[0] == tuned.rules[0]
    assert again.rules[1] != tuned.rules[1]
    assert "OPTIMISTIC" in optimistic.how
    assert "halves by patient" in tuned.how


def test_thresholds_chosen_beforehand_know_nothing_of_the_films_they_are_scored_on(tmp_path):
    validation = synthetic(tmp_path, "v", first=100)
    rule = Postprocess(0.9, 2048)
    chosen = []
    for name, dimmed in (("a", ()), ("b", [str(i) for i in range(20)])):
        part = synthetic(tmp_path, name, dimmed=dimmed)
        result = choosing.beforehand([part], [validation], rule, True)
        chosen += result.rules
        assert "40 validation films" in result.how
        assert result.outcomes.ids == part.ids
    assert chosen[0] == chosen[1] == choosing.search([validation], np.arange(40), rule, True)


def test_folds_are_scored_with_thresholds_of_the_other_folds(tmp_path):
    parts = [
        synthetic(tmp_path, name, first=first) for name, first in (("a", 0), ("b", 100), ("c", 200))
    ]
    rule = Postprocess(0.9, 0)
    _, tuned = choosing.judge(parts, rule, True, Tune.honest)
    assert len(tuned.rules) == 3
    assert "other folds" in tuned.how
    rows = np.arange(40, 120)
    assert tuned.rules[0] == choosing.search(parts, rows, rule, True)
    assert tuned.outcomes.ids == [image for part in parts for image in part.ids]


@pytest.mark.parametrize(
    "rule",
    [Postprocess(0.9, 0, top_threshold=0.95), Postprocess(0.9, 0, removal=Removal.component)],
    ids=str,
)
def test_triplets_and_components_are_tuned_too(tmp_path, rule):
    part = synthetic(tmp_path, "a", films=16)
    declared, tuned = choosing.judge([part], rule, True, Tune.honest)
    assert tuned.outcomes.dice.mean() > declared.outcomes.dice.mean()
    assert all(
        chosen.removal is rule.removal
        and (chosen.top_threshold is None) == (rule.top_threshold is None)
        for chosen in tuned.rules
    )


def test_films_without_truth_are_not_scored(tmp_path):
    part = synthetic(tmp_path, "a", films=4, unlabelled=("2",))
    with pytest.raises(PneumoError, match="annotations="):
        choosing.outcomes([part], Postprocess(), True)


def test_films_of_one_patient_are_scored_but_choose_no_thresholds(tmp_path, caplog):
    part = synthetic(tmp_path, "a", films=2)
    assert [result.name for result in choosing.judge([part], Postprocess(), True, Tune.honest)] == [
        "declared"
    ]
    assert "No thresholds were chosen" in caplog.text


def test_runs_judged_by_different_truths_are_not_compared(tmp_path):
    part, other = synthetic(tmp_path, "a", films=8), synthetic(tmp_path, "b", films=8, first=0)
    ours = choosing.outcomes([part], Postprocess(), True)
    theirs = choosing.outcomes([other], Postprocess(), True)
    assert choosing.compare(ours, theirs, 10, 0)["dice"].mean == 0
    theirs.truth[3] += 1
    with pytest.raises(PneumoError, match="different truths"):
        choosing.compare(ours, theirs, 10, 0)
