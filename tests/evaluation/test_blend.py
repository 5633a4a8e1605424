"""Several runs become one result by a named way."""

import dataclasses

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from pneumo.errors import PneumoError
from pneumo.evaluation import blend
from pneumo.evaluation.settings import Evaluate
from pneumo.inference import maps
from pneumo.inference.maps import Case
from pneumo.settings import CONF
from pneumo.training.record import DataFacts, Origin, Record
from pneumo.training.settings import Blend, load_config


def run(place, experiment, fold, level, ids, *more, seed=0):
    """A run's folder with its record, and maps of a single level."""
    with initialize_config_dir(CONF, version_base="1.3"):
        typed = [f"+experiment={experiment}", "data=phantom", "split=kfold5", f"fold={fold}"]
        typed += [f"seed={seed}", *more]
        config = load_config(compose("train", typed))
    folder = place / experiment / "phantom-full" / f"fold{fold}-seed{seed}"
    folder.mkdir(parents=True)
    facts = DataFacts("f", "p", "a", 1, 1, 1, True, 0.0, {})
    Record(config, Origin(), facts).write(folder)
    cases = [Case(image, "", [], (1024, 1024)) for image in ids]

    def fill(arrays, begin):
        arrays.plain[:], arrays.flip[:] = level, level + 1
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
    return blend.blend(list(each), list(folders), settings)


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


def test_a_systems_missing_run_is_named_with_the_command_that_makes_it(tmp_path):
    settings = Evaluate(system="exp4_exp5", runs_dir=str(tmp_path))
    with pytest.raises(PneumoError, match=r"exp4, fold 0.*pneumo\.train \+system=exp4_exp5"):
        blend.folders_of(settings)
    with pytest.raises(PneumoError, match=r"system=exp9: not known; one of exp4_exp5, exp5_folds"):
        blend.folders_of(Evaluate(system="exp9"))
    with pytest.raises(PneumoError, match="run and system are both set"):
        blend.folders_of(Evaluate(system="exp4_exp5", run="x"))


def test_a_system_whose_runs_are_there_twice_asks_which(tmp_path):
    for setting in ("phantom-full", "phantom-mini"):
        for experiment in ("exp4", "exp5"):
            folder = tmp_path / experiment / setting / "fold0-seed0"
            folder.mkdir(parents=True)
            for name in ("config.yaml", "metrics.json", "weights.safetensors"):
                (folder / name).touch()
    with pytest.raises(PneumoError, match=r"several runs of exp4.*setting=<data>-<scale>, or"):
        blend.folders_of(Evaluate(system="exp4_exp5", runs_dir=str(tmp_path)))
    chosen = Evaluate(system="exp4_exp5", setting="phantom-mini", runs_dir=str(tmp_path))
    names = [str(folder.relative_to(tmp_path)) for folder in blend.folders_of(chosen)]
    assert names == ["exp4/phantom-mini/fold0-seed0", "exp5/phantom-mini/fold0-seed0"]
