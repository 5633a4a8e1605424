"""Which runs are asked for, and what each of them is in the blend."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from pneumo.errors import PneumoError
from pneumo.evaluation import blend, members
from pneumo.evaluation.members import members_of, typed_besides
from pneumo.evaluation.settings import Evaluate
from pneumo.settings import CONF
from pneumo.training import lineage, record
from pneumo.training.record import DataFacts, Origin, Record
from pneumo.training.settings import Blend, System, load_config, system_of

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
