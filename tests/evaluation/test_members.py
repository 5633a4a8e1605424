"""Which runs are asked for, and what each of them is in the blend."""

from types import SimpleNamespace

import pytest

from pneumo.errors import PneumoError
from pneumo.evaluation.members import members_of
from pneumo.evaluation.settings import Evaluate
from pneumo.training import record


def test_a_systems_missing_run_is_named_with_the_command_that_makes_it(tmp_path):
    settings = Evaluate(system="exp4_exp5", runs_dir=str(tmp_path))
    with pytest.raises(PneumoError, match=r"exp4, fold 0.*pneumo\.train \+system=exp4_exp5"):
        members_of(settings)
    with pytest.raises(PneumoError, match=r"system=exp9: not known; one of amirassov, exp4_exp5"):
        members_of(Evaluate(system="exp9"))
    with pytest.raises(PneumoError, match="run and system are both set"):
        members_of(Evaluate(system="exp4_exp5", run="x"))


def test_a_system_whose_runs_are_there_twice_asks_which(tmp_path, monkeypatch):
    about = SimpleNamespace(config=SimpleNamespace(scale=SimpleNamespace(folds=None)))
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
