"""Which runs a report is of."""

import shutil

import pytest
from conftest import one

from pneumo.errors import PneumoError
from pneumo.evaluation import report
from pneumo.evaluation.settings import Report


def test_runs_are_reported_by_setting_with_their_stages_before_them(finished, monkeypatch):
    monkeypatch.chdir(finished[0])
    ((setting, (run,)),) = report.collect(Report(runs_dir="runs")).items()
    assert setting == one(finished[0], "exp5").parent.name
    chain = [about.config.experiment for _, about in run.chain]
    assert chain == ["exp5_stage1", "exp5"]
    assert run.name.startswith("exp5")


def test_runs_that_are_not_finished_or_of_another_setting_are_not_reported(finished, tmp_path):
    run = one(finished[0], "exp5")
    shutil.copytree(run, tmp_path / "exp5" / "a" / "b")
    assert list(report.collect(Report(runs_dir=str(tmp_path)))) == ["a"]
    with pytest.raises(PneumoError, match="no finished runs of setting=other"):
        report.collect(Report(runs_dir=str(tmp_path), setting="other"))
    (tmp_path / "exp5" / "a" / "b" / "metrics.json").unlink()
    with pytest.raises(PneumoError, match="no finished runs; train some"):
        report.collect(Report(runs_dir=str(tmp_path)))
