"""A system is trained, judged, handed on and used like one experiment."""

import json

import pytest
from conftest import TINY, complaint, launch, one


@pytest.mark.slow
def test_a_system_of_two_experiments_from_training_to_masks(tmp_path, film):
    typed = ("+system=exp4_exp5", *TINY)
    done = launch(tmp_path, *typed)
    assert done.returncode == 0, done.stderr
    for name in ("exp4_stage1", "exp4", "exp5_stage1", "exp5"):
        assert (one(tmp_path, name) / "metrics.json").is_file()
    assert "Next" in done.stdout
    assert "pneumo.evaluate +system=exp4_exp5" in done.stdout
    again = launch(tmp_path, *typed)
    assert again.returncode == 0, again.stderr
    assert "epoch 1" not in again.stdout

    judged = launch(tmp_path, "+system=exp4_exp5", "resamples=20", module="pneumo.evaluate")
    assert judged.returncode == 0, judged.stderr
    assert "mean of runs/exp4/" in judged.stdout
    made = launch(
        tmp_path, "+system=exp4_exp5", "out=model", "resamples=20", module="pneumo.export"
    )
    assert made.returncode == 0, made.stderr
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert (card["name"], len(card["members"])) == ("exp4_exp5", 2)
    used = launch(tmp_path, "model=model", f"input={film}", module="pneumo.predict")
    assert used.returncode == 0, used.stderr
    assert len(list((tmp_path / "masks").glob("*-mask.png"))) == 1
    sent = launch(tmp_path, "+system=exp4_exp5", "on=val", module="pneumo.submission")
    assert sent.returncode == 0, sent.stderr
    assert "decoded again" in sent.stdout
    maps = launch(tmp_path, "+system=exp4_exp5", "on=val", module="pneumo.predict")
    assert maps.returncode == 0, maps.stderr


def test_a_system_that_is_not_trained_says_how(tmp_path):
    done = launch(tmp_path, "+system=exp4_exp5", module="pneumo.evaluate")
    assert "python -m pneumo.train +system=exp4_exp5" in complaint(done)
    both = launch(tmp_path, "+system=exp4_exp5", "+experiment=exp5")
    assert "Multiple values for experiment" in complaint(both)
    assert "exp4_exp5, exp5_folds" in complaint(
        launch(tmp_path, "+system=exp9", module="pneumo.evaluate")
    )
