"""Trials are proposed, tried once each, and told; whoever is killed is followed by another."""

import dataclasses
import json
import math
import multiprocessing
import re

import pytest
from conftest import TINY, launch

from pneumo.errors import PneumoError
from pneumo.training import lineage, search
from pneumo.training.settings import Search

pytest.importorskip("optuna")
SPACE = {"lr": [1e-4, 1e-2, "log"], "averaging": ["paper", "none"]}
TYPED = ["+experiment=exp2", "data=phantom", "scale=mini"]
FIT = lineage.declared(TYPED)


def typed_in(folder):
    return [*TYPED, f"runs_dir={folder}"]


def tries(folder, *more, **wanted):
    """A search in a folder."""
    wanted = Search(**{"space": SPACE, "trials": 4, **wanted})
    return search.search(wanted, [*more, *typed_in(folder)])


def base(searched, typed):
    """Stands in for the check, which would import torch."""
    return dataclasses.replace(FIT, runs_dir=typed[-1].partition("=")[2])


@pytest.fixture
def tried(monkeypatch):
    """The trials that were trained, in their order, by a stand-in whose best lr is 1e-3."""
    made = []

    def train(own, score):
        said = dict(one.split("=") for one in own if one.startswith(("lr=", "averaging=")))
        made.append(said)
        if said.get("averaging") == failing:
            raise PneumoError("it cannot be averaged")
        if len(made) == stopping:
            raise KeyboardInterrupt
        return 1 - abs(math.log10(float(said["lr"])) + 3) / 2

    failing, stopping = None, None

    def behave(fail=None, stop=None):
        nonlocal failing, stopping
        failing, stopping = fail, stop
        return made

    monkeypatch.setattr(search, "_tried", train)
    monkeypatch.setattr(search, "_check", base)
    return behave


def test_as_many_as_asked_for_are_tried_and_more_go_on_from_there(tmp_path, tried):
    made = tried()
    trials = tries(tmp_path)
    assert len(made) == 4
    tries(tmp_path)
    assert len(made) == 4
    trials = tries(tmp_path, trials=6)
    assert len(made) == 6
    best = trials.finished()[0]
    assert best.value == max(one.value for one in trials.finished())
    nearest = min(made, key=lambda one: abs(math.log10(float(one["lr"])) + 3))
    assert dict(one.split("=") for one in trials.typed(best)) == nearest
    assert all(1e-4 <= float(one["lr"]) <= 1e-2 for one in made)
    assert trials.folder == tmp_path / "searches" / "exp2" / "phantom-mini" / "fold0-seed0"


def test_a_search_that_was_stopped_goes_on_with_its_trial_and_proposes_the_same(tmp_path, tried):
    made = tried()
    tries(tmp_path / "whole")
    whole = list(made)
    made.clear()
    tried(stop=2)
    with pytest.raises(KeyboardInterrupt):
        tries(tmp_path / "stopped")
    tried()
    tries(tmp_path / "stopped")
    assert made == [whole[0], whole[1], whole[1], whole[2], whole[3]]


def test_a_trial_in_the_hands_of_another_process_is_left_to_it(tmp_path, tried):
    tried()
    place = search.folder(base({}, typed_in(tmp_path)), "", typed_in(tmp_path))
    searched = search.space.read(SPACE, TYPED)
    theirs = search.Trials(Search(space=SPACE), searched, place).take()
    trials = tries(tmp_path)
    assert [one.number for one in trials.finished()] != []
    assert theirs.number not in [one.number for one in trials.finished()]
    assert len(trials.finished()) == 3
    assert search.table(trials).rows[-1][-1] == "running"
    theirs.held.release()  # as the system does when it dies
    assert len(tries(tmp_path).finished()) == 4


def test_a_trial_that_fails_is_listed_and_the_others_are_tried(tmp_path, tried):
    made = tried()
    tries(tmp_path, trials=1)
    other = {"paper": "none", "none": "paper"}[made[0]["averaging"]]
    tried(fail=other)
    trials = tries(tmp_path, trials=12)
    assert len(made) == 12
    failed = [row for row in search.table(trials).rows if row[-1]]
    assert {row[-1] for row in failed} == {"it cannot be averaged"}
    assert len(failed) == sum(one["averaging"] == other for one in made) > 0


def test_what_fails_before_anything_succeeded_ends_the_search_with_its_command(tmp_path, tried):
    made = tried()
    tries(tmp_path / "whole", trials=1)
    tried(fail=made[0]["averaging"])
    with pytest.raises(PneumoError, match=r"averaged; alone: python -m pneumo\.train"):
        tries(tmp_path / "failing")
    assert len(made) == 2


def test_a_fault_of_the_code_is_no_trial_that_failed(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(search, "_tried", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        tries(tmp_path)


def test_another_search_in_the_folder_is_refused_with_the_difference(tmp_path, tried):
    tried()
    tries(tmp_path)
    tries(tmp_path, "machine.threads=1")  # changes nothing
    with pytest.raises(PneumoError, match=r"score: dice_positive → iou.*search\.name=<name>"):
        tries(tmp_path, score="iou")


def work(folder):
    search._check = base
    search._tried = lambda own, score: 0.5
    tries(folder, trials=8)


@pytest.mark.slow
def test_several_processes_share_the_trials(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(tmp_path,)) for _ in range(3)]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    assert [one.exitcode for one in processes] == [0, 0, 0]
    trials = tries(tmp_path, trials=8)
    assert sorted(one.number for one in trials.finished()) == list(range(8))


@pytest.mark.slow
def test_a_search_of_real_fits_hands_its_best_to_a_training(tmp_path):
    short = [one for one in TINY if not one.startswith("averaging")]
    own = ["+experiment=exp2", *short, "search.space={lr:[1e-4,1e-2,log],averaging:[ema,none]}"]
    done = launch(tmp_path, *own, "search.trials=2", module="pneumo.search")
    assert done.returncode == 0, done.stderr
    (command,) = re.findall(r"^  python -m (pneumo\.train .*)$", done.stdout, re.MULTILINE)
    again = launch(tmp_path, *command.split()[1:])
    assert again.returncode == 0, again.stderr
    assert "finished before, used as it is" in again.stdout
    runs = list((tmp_path / "runs" / "exp2").glob("*/*"))
    assert len(runs) == 2
    scores = [json.loads((one / "metrics.json").read_text())["dice_positive"] for one in runs]
    assert f"{max(scores):.4f}" in done.stdout
