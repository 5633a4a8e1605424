"""Which runs are asked for, and what each of them is in the blend."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from pneumo.data.settings import OnError, PhantomData, SeveralData
from pneumo.errors import PneumoError
from pneumo.evaluation import blend, members
from pneumo.evaluation.members import asked_for, member_of, members_of, typed_besides, way
from pneumo.evaluation.settings import Evaluate
from pneumo.settings import CONF
from pneumo.training import lineage, record
from pneumo.training.record import DataFacts, Origin, Record
from pneumo.training.settings import Blend, Checkpoints, System, load_config, system_of

SMALL = ["split=kfold5", "resolution=px512", "averaging=paper_stage2"]


def test_a_systems_missing_run_is_named_with_the_command_that_makes_it(tmp_path):
    settings = Evaluate(system="exp4_exp5", runs_dir=str(tmp_path))
    with pytest.raises(PneumoError, match=r"exp4, fold 0.*pneumo\.train \+system=exp4_exp5"):
        members_of(settings)
    with pytest.raises(PneumoError, match=r"system=exp9: not known; one of amirassov, exp4_exp5"):
        members_of(Evaluate(system="exp9"))
    with pytest.raises(PneumoError, match="run and system are both set"):
        members_of(Evaluate(system="exp4_exp5", run="x"))


def test_a_system_whose_runs_are_there_twice_asks_which(tmp_path, monkeypatch):
    about = SimpleNamespace(config=SimpleNamespace(scale=SimpleNamespace(folds=None), variant=""))
    monkeypatch.setattr(record, "read", lambda folder: about)
    for setting in ("phantom-full", "phantom-mini"):
        for experiment in ("exp4", "exp5"):
            folder = tmp_path / experiment / setting / "fold0-seed0"
            folder.mkdir(parents=True)
            for name in ("config.yaml", "metrics.json", "weights.safetensors"):
                (folder / name).touch()
    with pytest.raises(PneumoError, match=r"several runs of exp4.*setting=<data>-<scale>, or"):
        members_of(Evaluate(system="exp4_exp5", runs_dir=str(tmp_path)))
    chosen = Evaluate(system="exp4_exp5", setting="phantom-mini", runs_dir=str(tmp_path))
    names = [str(one.folder.relative_to(tmp_path)) for one in members_of(chosen)]
    assert names == ["exp4/phantom-mini/fold0-seed0", "exp5/phantom-mini/fold0-seed0"]


def made(place, experiment, *typed):
    """The folder of a finished fit at scale=mini, as training would name and record it."""
    overrides = [f"+experiment={experiment}", "data=phantom", "scale=mini", *typed]
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", [*overrides, f"runs_dir={place}"])
    lineage.name_run(raw, overrides)
    config = load_config(raw).scaled({one.partition("=")[0] for one in overrides})
    config.path.mkdir(parents=True)
    Record(config, Origin(), DataFacts("f", "p", "a", 1, 1, 1, True, 0.0, {})).write(config.path)
    for name in ("metrics.json", "weights.safetensors"):
        (config.path / name).touch()
    return config.path


@pytest.mark.slow
def test_a_systems_runs_are_those_of_its_own_settings_where_there_are_such(
    tmp_path, monkeypatch, caplog
):
    """A fit of fewer epochs, such as a study leaves, is taken where there is no other."""
    system = system_of("goossen_cnn")
    for fold in (0, 1):
        made(tmp_path, "goossen_cnn", "split=kfold5", f"fold={fold}", "epochs=1")
    settings = Evaluate(system="goossen_cnn", runs_dir=str(tmp_path))
    found = members_of(settings)
    assert typed_besides(system, found) == ["goossen_cnn: epochs_1"]
    for name in ("predict", "blend"):
        monkeypatch.setattr(blend, name, lambda *_: [])
    blend.gather(settings)
    said = "system goossen_cnn: trained with more than it says (goossen_cnn: epochs_1)"
    assert caplog.messages == [said]
    own = [made(tmp_path, "goossen_cnn", "split=kfold5", f"fold={fold}") for fold in (0, 1)]
    found = members_of(settings)
    assert [one.folder for one in found] == own
    assert typed_besides(system, found) == []


def test_a_miniature_is_recognised_by_settings_that_shrink(tmp_path, monkeypatch):
    system = System("small", ["exp2"], [0, 1], Blend.folds, overrides=SMALL)
    monkeypatch.setattr(members, "system_of", lambda name: system)
    own = [made(tmp_path, "exp2", *SMALL, f"fold={fold}") for fold in (0, 1)]
    found = members_of(Evaluate(system="small", runs_dir=str(tmp_path)))
    assert [one.folder for one in found] == own


@pytest.mark.parametrize("division", ["split.folds=8", "split.seed=1"])
def test_runs_of_another_division_are_not_taken_for_a_systems(tmp_path, monkeypatch, division):
    overrides = ["split=kfold5", division]
    system = System("divided", ["exp2"], overrides=overrides)
    monkeypatch.setattr(members, "system_of", lambda name: system)
    other = made(tmp_path, "exp2", "split=kfold5")
    settings = Evaluate(system="divided", runs_dir=str(tmp_path))
    with pytest.raises(PneumoError, match=rf"no finished run of exp2.*other settings: {other}\)"):
        members_of(settings)


def test_eight_folds_are_not_the_five_of_a_system(tmp_path, monkeypatch):
    """Five is what split=kfold5 has unasked; it is of the system all the same, the draw is not."""
    system = System("five", ["exp2"], overrides=["split=kfold5"])
    monkeypatch.setattr(members, "system_of", lambda name: system)
    settings = Evaluate(system="five", runs_dir=str(tmp_path))
    made(tmp_path, "exp2", "split=kfold5", "split.folds=8")
    with pytest.raises(PneumoError, match="no finished run of exp2"):
        members_of(settings)
    own = made(tmp_path, "exp2", "split=kfold5", "split.seed=1")
    assert [one.folder for one in members_of(settings)] == [own]


def test_runs_of_an_experiment_of_ones_own_are_recognised(tmp_path, monkeypatch):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    own = tmp_path / "mine" / "experiment" / "wide.yaml"
    own.write_text("# @package _global_\ndefaults: [exp2]\nexperiment: wide\n")
    monkeypatch.setattr(members, "PLACES", [CONF, str(tmp_path / "mine")])
    system = System("own", ["wide"], overrides=["split=kfold5"])
    monkeypatch.setattr(members, "system_of", lambda name: system)
    folder = tmp_path / "runs" / "wide" / "phantom-mini" / "fold0-seed0"
    folder.parent.mkdir(parents=True)
    made(tmp_path, "exp2", "split=kfold5").rename(folder)
    (found,) = members_of(Evaluate(system="own", runs_dir=str(tmp_path / "runs")))
    assert found.folder == folder


@pytest.mark.parametrize("films", ["test", "some/folder"])
def test_a_systems_folds_are_averaged_on_films_that_none_of_them_held_out(films):
    for name, own in (("exp5_folds", Blend.folds), ("sneddy", Blend.mean_folds)):
        assert way(Evaluate(system=name), 5) is own
        assert way(Evaluate(system=name, on=films), 5) is Blend.mean
        assert way(Evaluate(system=name, on=films, blend=Blend.folds), 5) is Blend.folds


def test_a_single_run_is_no_blend_and_several_must_say_how_they_become_one(monkeypatch):
    assert way(Evaluate(run="a"), 1) is None
    assert way(Evaluate(run="[a,b]", blend=Blend.mean), 2) is Blend.mean
    with pytest.raises(PneumoError, match=r"names 3 runs: say how .*blend=mean .*blend=folds"):
        way(Evaluate(run="a*"), 3)
    monkeypatch.setattr(members, "system_of", lambda name: System(name, ["exp2"]))
    assert way(Evaluate(system="alone", on="test"), 1) is None


def test_each_experiment_has_its_weight_and_only_the_named_ones_tell_presence(monkeypatch):
    monkeypatch.setattr(record, "read", lambda folder: None)

    def parts(**said):
        system = System("three", ["a", "b"], blend=Blend.mean, **said)
        found = {name: member_of(system, name, CONF) for name in system.members}
        return {name: (one.weight, one.tells) for name, one in found.items()}

    assert parts() == {"a": (1.0, True), "b": (1.0, True)}
    assert parts(weights=[0.3, 0.7]) == {"a": (0.3, True), "b": (0.7, True)}
    told = parts(weights=[0.3, 0.7], presence_from=["b", "c"])
    assert told == {"a": (0.3, False), "b": (0.7, True), "c": (0.0, True)}


def test_the_weights_of_each_fit_are_those_of_its_system_unless_others_are_asked_for(monkeypatch):
    about = SimpleNamespace(config=SimpleNamespace(scale=SimpleNamespace(folds=1)))
    monkeypatch.setattr(record, "read", lambda folder: about)
    monkeypatch.setattr(members, "_run", lambda *_: CONF)
    for name, own in (("exp4_exp5", Checkpoints.final), ("amirassov", Checkpoints.best)):
        assert {one.checkpoints for one in members_of(Evaluate(system=name))} == {own}
        for asked in Checkpoints:
            found = members_of(Evaluate(system=name, checkpoints=asked))
            assert {one.checkpoints for one in found} == {asked}


def test_another_data_set_is_asked_for_as_it_is_typed():
    """Hydra reads it back, sets of several by their names included."""
    sets = {"a": {"format": "phantom", "images": 8}, "b": {"format": "siim", "root": "x y"}}
    data = SeveralData(name="both", sets=sets, shares={"a": 0.3, "b": 0.7}, on_error=OnError.skip)
    asked = asked_for(Evaluate(run="x", data=data))
    typed = [f"{key}={value}" for key, value in asked.items() if "data" in key]
    assert typed[:2] == ["data=several", "data.name=both"]
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", ["+experiment=exp5", *typed])
    again = load_config(raw).data
    assert (again.sets, again.shares, again.on_error) == (sets, data.shares, OnError.skip)
    plain = asked_for(Evaluate(run="x", data=PhantomData(name="phantom", images=9)))
    assert plain == {"run": "x", "data": "phantom", "data.images": "9"}
