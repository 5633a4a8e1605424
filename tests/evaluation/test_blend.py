"""Several runs become one result by a named way."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.errors import PneumoError
from pneumo.evaluation import blend
from pneumo.evaluation.members import Member
from pneumo.evaluation.settings import Evaluate, Tune
from pneumo.inference import maps, stack
from pneumo.inference.maps import Case
from pneumo.settings import CONF
from pneumo.training import record
from pneumo.training.record import DataFacts, Origin, Record
from pneumo.training.settings import Blend, Presence, load_config


def run(place, experiment, fold, level, ids, *more, seed=0, scores=None, positive=()):
    """A run's folder with its record, maps of a single level, and presence scores."""
    with initialize_config_dir(CONF, version_base="1.3"):
        typed = [f"+experiment={experiment}", "data=phantom", "split=kfold5", f"fold={fold}"]
        typed += [f"seed={seed}", *more]
        config = load_config(compose("train", typed))
    folder = place / experiment / "phantom-full" / f"fold{fold}-seed{seed}"
    folder.mkdir(parents=True)
    facts = DataFacts("f", "p", "a", 1, 1, 1, True, 0.0, {})
    Record(config, Origin(), facts).write(folder)
    labels = dict(zip(ids, positive, strict=False))
    cases = [Case(image, "", ["0 5"] if labels.get(image) else [], (1024, 1024)) for image in ids]

    def fill(arrays, begin):
        arrays.plain[:], arrays.flip[:] = level, level + 1
        if scores is not None:
            arrays.presence[:] = np.broadcast_to(scores, (len(ids),))[:, None]
        yield len(ids)

    about = {
        "on": "val",
        "run": str(folder),
        "weights": f"{experiment}{fold}-{seed}",
        "left_out": [],
        "seen_in_training": 0,
        "patients_in_training": 0,
    }
    key = f"{experiment}{fold}{level}"
    return folder, maps.write(folder / "predictions" / "val", key, cases, 8, fill, about)


def blended(place, how, *runs):
    folders, each = zip(*runs, strict=True)
    settings = Evaluate(run="x", blend=how, runs_dir=str(place))
    return blend.blend(each, [Member(folder, record.read(folder)) for folder in folders], settings)


def test_the_mean_of_runs_on_the_same_films(tmp_path):
    runs = [run(tmp_path, name, 0, level, "ab") for name, level in (("exp4", 10), ("exp5", 31))]
    (found,) = blended(tmp_path, Blend.mean, *runs)
    assert found.ids == ["a", "b"]
    assert set(np.unique(found.plain)) == {20}  # 20.5, rounded to even as numpy does
    assert set(np.unique(found.flip)) == {22}


def test_folds_are_joined_as_they_are(tmp_path):
    runs = [run(tmp_path, "exp5", fold, 10 * fold, "abcd"[2 * fold :][:2]) for fold in (0, 1)]
    found = blended(tmp_path, Blend.folds, *runs)
    assert [part.ids for part in found] == [["a", "b"], ["c", "d"]]


def test_networks_are_averaged_within_their_fold_and_the_folds_joined(tmp_path):
    levels = {("exp4", 0): 10, ("exp5", 0): 30, ("exp4", 1): 50, ("exp5", 1): 70}
    runs = [
        run(tmp_path, name, fold, level, "abcd"[2 * fold :][:2])
        for (name, fold), level in levels.items()
    ]
    found = blended(tmp_path, Blend.mean_folds, *runs)
    assert [part.ids for part in found] == [["a", "b"], ["c", "d"]]
    assert [int(part.plain[0, 0, 0]) for part in found] == [20, 60]


def test_seeds_are_averaged_on_the_films_they_share(tmp_path):
    runs = [
        run(tmp_path, "exp5", fold, 10 * (fold + seed), "abcd"[2 * fold :][:2], seed=seed)
        for fold in (0, 1)
        for seed in (0, 1)
    ]
    (alone,) = blended(tmp_path, Blend.mean, *runs[:2])
    assert int(alone.plain[0, 0, 0]) == 5
    found = blended(tmp_path, Blend.mean_folds, *runs)
    assert [int(part.plain[0, 0, 0]) for part in found] == [5, 15]


def test_folds_of_other_divisions_or_seeds_are_not_joined(tmp_path):
    first = run(tmp_path, "exp5", 0, 10, "ab")
    divided = run(tmp_path, "exp5", 1, 10, "cd", "split.seed=1")
    seeded = run(tmp_path, "exp5", 1, 10, "cd", seed=1)
    for other in (divided, seeded):
        with pytest.raises(PneumoError, match="not the folds of one cross-validation"):
            blended(tmp_path, Blend.folds, first, other)


def test_a_blend_that_does_not_fit_is_refused_in_words(tmp_path):
    first = run(tmp_path, "exp5", 0, 10, "ab")
    other = run(tmp_path, "exp5", 1, 10, "cd")
    same = run(tmp_path, "exp4", 0, 10, "ab")
    with pytest.raises(PneumoError, match=r"blend=mean .*blend=folds"):
        blended(tmp_path, None, first, other)
    with pytest.raises(PneumoError, match=r"different films.*blend=folds"):
        blended(tmp_path, Blend.mean, first, other)
    with pytest.raises(PneumoError, match="same fold; blend=mean_folds"):
        blended(tmp_path, Blend.folds, first, same)
    fourth = run(tmp_path, "exp4", 1, 10, "cd")
    with pytest.raises(PneumoError, match="not the folds of one cross-validation"):
        blended(tmp_path, Blend.folds, first, fourth)
    with pytest.raises(PneumoError, match="same number of networks"):
        blended(tmp_path, Blend.mean_folds, first, same, other)
    unlike = run(tmp_path / "b", "exp4", 1, 10, "ab")
    with pytest.raises(PneumoError, match=r"on the same films.*blend=mean"):
        blended(tmp_path, Blend.mean_folds, first, unlike)


def test_other_truths_of_the_same_films_are_refused(tmp_path):
    first = run(tmp_path, "exp5", 0, 10, "ab")
    folder, other = run(tmp_path, "exp4", 0, 10, "ab")
    other.cases[0] = dataclasses.replace(other.cases[0], annotations=["0 5"])
    with pytest.raises(PneumoError, match="different truths"):
        blended(tmp_path, Blend.mean, first, (folder, other))


def test_the_weighted_mean_of_maps_and_the_mean_of_the_scores_that_are_told(tmp_path):
    """Against numpy: two networks of weights .75 and .25, a third that only tells presence."""
    runs = [
        run(tmp_path, name, 0, level, "ab", scores=scores)
        for name, level, scores in (("exp4", 10, None), ("exp5", 50, 0.2), ("exp2", 200, 0.6))
    ]
    members = [
        Member(folder, record.read(folder), weight)
        for (folder, _), weight in zip(runs, (0.75, 0.25, 0.0), strict=True)
    ]
    settings = Evaluate(run="x", blend=Blend.mean, runs_dir=str(tmp_path))
    (found,) = blend.blend([one for _, one in runs], members, settings)
    assert set(np.unique(found.plain)) == {20}
    assert found.presence(True) == pytest.approx([0.4, 0.4])


def stacked(place, monkeypatch, settings=None, flipped=()):
    """Two folds of two networks whose scores tell positives of fold 0 from others, and the system's
    blend of them; labels of ``flipped`` films are wrong.
    """
    monkeypatch.setattr(blend, "presence_of", lambda settings: Presence.stack)
    runs = []
    for fold in (0, 1):
        ids = [f"{fold}{letter}" for letter in "abcdefgh"]
        for experiment in ("exp4", "exp5"):
            scores = [0.9 if number % 2 else 0.2 for number in range(8)]
            where = place / f"{fold}{experiment}"
            labels = [(number % 2 > 0) != (ids[number] in flipped) for number in range(8)]
            runs.append(run(where, experiment, fold, 10, ids, scores=scores, positive=labels))
    members = [Member(folder, record.read(folder)) for folder, _ in runs]
    settings = settings or Evaluate(run="x", blend=Blend.mean_folds, runs_dir=str(place))
    return blend.blend([one for _, one in runs], members, settings), members


def test_a_stack_never_judges_a_film_it_was_fitted_on(tmp_path, monkeypatch):
    """Wrong labels in fold 0 change what is said of fold 1, and nothing of fold 0."""
    (first, second), _ = stacked(tmp_path / "a", monkeypatch)
    told = first.presence(True)
    assert (told[1::2] > 0.5).all()
    assert (told[::2] < 0.5).all()
    wrong = [f"0{letter}" for letter in "abcdefgh"]
    (again, other), _ = stacked(tmp_path / "b", monkeypatch, flipped=wrong)
    assert np.array_equal(again.presence(True), told)
    assert (other.presence(True)[1::2] < 0.5).all()
    assert not np.array_equal(other.presence(True), second.presence(True))


def test_a_stack_is_recorded_with_what_went_in_and_on_which_films_it_was_fitted(
    tmp_path, monkeypatch
):
    stacked(tmp_path, monkeypatch)
    (path,) = (tmp_path / "ensembles").glob("stack-*/blend.json")
    about = json.loads(path.read_text())
    assert [one["run"].split("/")[-3] for one in about["members"]] == ["exp4", "exp5"] * 2
    assert about["fitted_on"][0] == [f"1{letter}" for letter in "abcdefgh"]
    assert about["fitted_on"][1] == [f"0{letter}" for letter in "abcdefgh"]
    assert not about["optimistic"]
    made = stack.Stack.from_dict(about["stacks"][0])
    assert made.films == 8
    assert made.names[:2] == ["exp4: highest probability", "exp4: log pixels above 0.1"]


def test_a_stack_that_knows_the_films_is_refused_or_marked(tmp_path, monkeypatch):
    parts, members = stacked(tmp_path, monkeypatch)
    monkeypatch.setattr(blend, "members_of", lambda settings: members)
    by_folder = {str(member.folder): member for member in members}
    each = {name: maps.load(Path(name) / "predictions" / "val") for name in by_folder}
    monkeypatch.setattr(blend, "predict", lambda member, *_: each[str(member.folder)])
    monkeypatch.setattr(blend, "on_validation", lambda settings: parts)
    asked = {"run": "x", "blend": Blend.mean, "runs_dir": str(tmp_path), "on": "films"}
    half = [(member, each[str(member.folder)]) for member in members[:2]]
    with pytest.raises(PneumoError, match=r"on=films: 8 of these films.*tune=optimistic"):
        blend.blend([one for _, one in half], [member for member, _ in half], Evaluate(**asked))
    settings = Evaluate(**asked, tune=Tune.optimistic)
    (found,) = blend.blend([one for _, one in half], [member for member, _ in half], settings)
    assert found.contents["optimistic"] is True


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three runs on the same films, and where their means are kept."""
    place = tmp_path_factory.mktemp("means")
    runs = [run(place, name, 0, 0, "ab", scores=0.5) for name in ("exp2", "exp4", "exp5")]
    return place, [(Member(folder, record.read(folder)), part) for folder, part in runs]


@settings(max_examples=6)
@given(
    st.lists(st.integers(0, 254), min_size=3, max_size=3),
    st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.permutations(range(3)),
)
def test_the_mean_of_maps_is_numpys_whatever_the_order_of_the_runs(
    three, levels, weights, tells, order
):
    place, runs = three
    each, members = [], []
    for number, (member, part) in enumerate(runs):
        plain = np.full((2, 8, 8), levels[number], np.uint8)
        scores = np.full((2, 2), levels[number] / 255, np.float32)
        contents = {**part.contents, "key": f"{number}-{levels[number]}", "checksums": None}
        made = {"plain": plain, "flip": plain + 1, "scores": scores, "contents": contents}
        each.append(dataclasses.replace(part, **made))
        own = {"weight": weights[number], "tells": tells[number]}
        members.append(dataclasses.replace(member, **own))
    expected = np.average(levels, weights=weights)
    told = [level / 255 for level, counts in zip(levels, tells, strict=True) if counts]
    for places in (range(3), order):
        found = blend.united([each[i] for i in places], [members[i] for i in places], place / "m")
        assert found.plain == pytest.approx(expected, abs=0.5 + 1e-6)
        assert found.flip == pytest.approx(expected + 1, abs=0.5 + 1e-6)
        if told:
            assert found.presence(True) == pytest.approx(np.mean(told), abs=1e-6)
        else:
            assert found.presence(True) is None
