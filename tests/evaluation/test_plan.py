"""A study's plan: which fits it takes, each once, and what is left of them."""

import dataclasses
import json
from itertools import pairwise

import pytest
from hydra import compose, initialize_config_dir

from pneumo import runs
from pneumo.data.settings import SiimData
from pneumo.errors import PneumoError
from pneumo.evaluation import plan
from pneumo.evaluation.settings import Arm, Compute, Study
from pneumo.settings import CONF, checked, options_of
from pneumo.training.options import (
    Augmentation,
    FixedShare,
    LinearShare,
    Resolution,
    StepShares,
)
from pneumo.training.settings import Scale, System, load_config

MINI = ("data=phantom", "scale=mini")
ARMS = (  # fewer than the study has, which are quicker to plan
    "study.arms=[{name: two stages, experiment: exp5},"
    "{name: one stage, experiment: exp5_one_stage, compute_of: two stages}]"
)


def planned(*typed, study="two_stage"):
    """The plan of a study, and its settings."""
    own = [f"+study={study}", *typed]
    with initialize_config_dir(CONF, version_base="1.3"):
        settings = checked(compose("study", own))
        return plan.plan(settings, own), settings


@pytest.fixture(scope="module")
def two_stage():
    return planned(*MINI)[0]


def of(made, arm, fold=0, seed=0):
    (member,) = [
        one for one in made.trials if (one.arm.name, one.fold, one.seed) == (arm, fold, seed)
    ]
    return member


def test_arms_share_parents_and_parts_and_each_fit_is_made_once(two_stage):
    assert len(two_stage.trials) == 6 * 2 * 2
    assert len(two_stage.fits) == 8 * 2 * 2
    assert len({one.path for one in two_stage.fits}) == len(two_stage.fits)
    both, once = (of(two_stage, name) for name in ("two stages", "averaged in stage 1 only"))
    assert both.fits[0].path == once.fits[0].path
    assert both.fits[1].path != once.fits[1].path
    for fit in two_stage.fits:
        assert (fit.split.kind.name, fit.split.seed) == ("kfold", 0)
        assert fit.postprocess.binarization_threshold == 0.75
    places = [one.path for one in two_stage.fits]
    for trial in two_stage.trials:
        for chain in trial.chains:
            order = [places.index(one.path) for one in chain]
            assert order == sorted(order)
            for parent, child in pairwise(chain):
                assert child.init_from == str(parent.path / runs.WEIGHTS)


def test_the_four_arms_average_in_the_stages_they_say(two_stage):
    averaged = {
        name: [one.averaging.name for one in of(two_stage, name, 1, 1).fits]
        for name in ("two stages", "averaged in stage 1 only", "averaged in stage 2 only")
    }
    assert averaged == {
        "two stages": ["paper", "paper"],
        "averaged in stage 1 only": ["paper", "none"],
        "averaged in stage 2 only": ["none", "paper"],
    }
    assert [one.averaging.name for one in of(two_stage, "never averaged").fits] == ["none"] * 2


def test_half_of_the_fits_take_over_a_training(two_stage):
    assert len(two_stage.twins) == len(two_stage.fits) / 2
    for one in two_stage.fits:
        assert (one.averaging.name == "none") == (one.path in two_stage.twins)
        assert one.log.checkpoints == (one.path not in two_stage.twins)


def test_one_stage_costs_what_two_stages_cost():
    made, _ = planned(ARMS, "study.folds=[0,1]", "study.seeds=[0]")
    both, alone = of(made, "two stages"), of(made, "one stage")
    assert [one.epochs for one in both.fits] == [100, 70]
    assert [(one.epochs, one.resolution.size) for one in alone.fits] == [(95, 512)]
    assert alone.fits[0].variant == ""  # the experiment's own
    made, _ = planned(ARMS, "study.compute=paper", "study.folds=[0,1]", "study.seeds=[0]")
    assert of(made, "one stage").fits[0].epochs == 120
    assert plan.cost(of(made, "one stage").fits, Compute.paper) == 120


@pytest.fixture(scope="module")
def fit():
    """A fit of 4 epochs of phantoms, half of them positive, at 256²; and with what is said."""
    typed = ["+experiment=exp2", "data=phantom", "data.positive_rate=0.5", "epochs=4"]
    with initialize_config_dir(CONF, version_base="1.3"):
        one = load_config(compose("train", [*typed, "averaging=none", "resolution.size=256"]))
    return lambda **said: dataclasses.replace(one, **said)


@pytest.mark.parametrize(("compute", "costs"), [(Compute.pixels, 4 / 4), (Compute.paper, 4 / 2)])
def test_an_epoch_costs_its_pixels_or_in_the_papers_count_its_side(fit, compute, costs):
    assert plan.cost([fit()], compute) == costs
    assert plan.cost([fit(), fit(epochs=12)], compute) == 4 * costs


@pytest.mark.parametrize(("compute", "costs"), [(Compute.pixels, 4 / 16), (Compute.paper, 4 / 4)])
def test_an_epoch_of_windows_costs_what_the_windows_hold(fit, compute, costs):
    windows = fit(resolution=Resolution(size=1024), augmentation=Augmentation(window=128))
    assert plan.cost([windows], compute) == costs


@pytest.mark.parametrize(
    ("sampling", "epochs"),
    [
        (FixedShare(share=0.8), 4 * 5 / 8),
        (LinearShare(start=1.0, end=0.5), 0.5 * (8 / 8 + 8 / 7 + 8 / 6 + 8 / 5)),
        (StepShares(shares=[1.0, 0.25], epochs=[0, 3]), 3 * 0.5 + 2),
    ],
)
def test_an_epoch_of_a_share_of_positives_is_shorter_by_what_it_leaves_out(fit, sampling, epochs):
    """All of n positives among 2 n films are n / share films an epoch."""
    assert plan.cost([fit(sampling=sampling)], Compute.paper) == pytest.approx(epochs / 2)


def test_the_share_of_positives_is_that_of_the_scale_then_of_phantoms_then_the_challenges(fit):
    shared = {"sampling": FixedShare(share=1.0), "resolution": Resolution(size=512)}
    of_scale = fit(**shared, scale=Scale(positive_rate=0.25))
    assert plan.cost([of_scale], Compute.pixels) == 4 * 0.25
    assert plan.cost([fit(**shared)], Compute.pixels) == 4 * 0.5
    challenge = fit(**shared, data=SiimData(name="siim"))
    assert plan.cost([challenge], Compute.pixels) == pytest.approx(4 * 0.2215)


def test_what_is_typed_holds_for_every_fit_unless_its_arm_says_otherwise():
    typed = ("averaging.epochs=2", "epochs=12", "lr=0.01", "study.folds=[3,4]", "study.seeds=[7]")
    made, settings = planned(*MINI, *typed)
    assert {(one.fold, one.seed) for one in made.trials} == {(3, 7), (4, 7)}
    both = of(made, "two stages", 3, 7).fits
    assert (both[1].epochs, both[1].lr, both[1].averaging.epochs) == (12, 0.01, 2)
    assert of(made, "averaged in stage 1 only", 3, 7).fits[1].averaging.name == "none"
    assert [one.epochs for one in of(made, "one stage", 4, 7).fits] == [14]  # 12 + 8 / 4
    folder = plan.folder(settings, typed)
    assert folder.parts[:3] == ("runs", "studies", "two_stage")
    assert folder.name.startswith("phantom-mini-averaging.epochs_2-epochs_12")


@pytest.mark.slow
def test_a_system_is_judged_on_the_folds_of_the_study_at_the_budget():
    made, _ = planned(*MINI, study="systems")
    trial = of(made, "exp4_exp5", 1)
    assert [chain[-1].experiment for chain in trial.chains] == ["exp4", "exp5"]
    assert {one.fold for one in trial.fits} == {1}
    budget = plan.cost(of(made, "exp5", 1).fits, Compute.pixels)
    assert plan.cost(trial.fits, Compute.pixels) == pytest.approx(budget, rel=0.1)


def test_a_system_does_not_bring_a_division_of_its_own(monkeypatch):
    own = System("own", ["exp2"], overrides=["split=holdout20", "split.seed=9", "lr=0.01"])
    monkeypatch.setattr(plan, "system_of", lambda name: own)
    arms = "study.arms=[{name: own, system: own}, {name: exp2, experiment: exp2}]"
    made, _ = planned(*MINI, arms, "study.reference=exp2", "study.overrides=[]")
    theirs, ours = (of(made, name).fits[0] for name in ("own", "exp2"))
    assert theirs.split == ours.split
    assert (theirs.lr, ours.lr) == (0.01, 0.001)


@pytest.mark.parametrize(
    ("weaker", "stronger", "both"),
    [
        (["lr=1", "epochs=2"], ["lr=3"], ["epochs=2", "lr=3"]),
        (["averaging=paper", "averaging.epochs=2"], ["averaging=none"], ["averaging=none"]),
        (["split=kfold5"], ["split.seed=1"], ["split=kfold5", "split.seed=1"]),
        (["scale.images=9"], ["scale=mini"], ["scale.images=9", "scale=mini"]),
    ],
)
def test_stronger_settings_replace_weaker_ones(weaker, stronger, both):
    assert plan.over(weaker, stronger) == both


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("fold=1", r"study\.folds=\[0,1\]"),
        ("tag=mine", "the arms of a study say that"),
        ("study.folds=[0]", "at least two folds or two seeds"),
        ("study.reference=best", "study.reference=best: must be one of two stages, "),
        (
            "study.arms=[{name: a, experiment: exp9}, {name: b, experiment: exp5}]",
            "arms: a: .*exp9",
        ),
        ("study.arms=[{name: a, system: exp9}, {name: b, experiment: exp5}]", "system=exp9: not"),
        ("study.arms=[{name: a}, {name: b, experiment: exp5}]", "an experiment or of a system"),
        ("lr=-1", "lr=-1.0: must be a positive number"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(typed, said):
    more = ["study.reference=b"] if "arms" in typed else []
    with pytest.raises(PneumoError, match=said):
        planned(*MINI, "study.seeds=[0]", typed, *more)


def test_studies_that_compare_nothing_are_refused():
    one = Arm(name="a", experiment="exp5")
    with pytest.raises(PneumoError, match="at least two"):
        Study(arms=[one], reference="a")
    with pytest.raises(PneumoError, match="of different names"):
        Study(arms=[one, one], reference="a")
    with pytest.raises(PneumoError, match="compute_of=c: must be one of a, b"):
        Study(arms=[one, Arm(name="b", experiment="exp5", compute_of="c")], reference="a")


@pytest.mark.slow
def test_the_time_left_follows_from_the_fits_that_are_finished(tmp_path):
    made, _ = planned(*MINI, f"runs_dir={tmp_path}")
    assert made.told().startswith("0 of 32 fits finished; how long")
    first, second = made.fits[:2]  # 8 epochs at 64², 6 at 128²

    def finish(one, seconds):
        one.path.mkdir(parents=True)
        (one.path / runs.METRICS).write_text(json.dumps({"train_seconds": seconds}))
        (one.path / runs.CHECKPOINT).touch()
        made.done.add(one.path)

    finish(first, 20)  # by pixels: 10 s an epoch at 128²
    # a cell has 8 / 4 + 6 + 6 + 8 epochs of 128², and half of its fits are trained with their twins
    assert made.seconds_left() == pytest.approx(10 * (4 * 22 - 2))
    finish(second, 120)  # 20 s an epoch at 128², which is known now
    assert made.seconds_left() == pytest.approx(3 * 20 + 20 * (4 * 20 - 6))
    assert made.told() == "2 of 32 fits finished, about 26 minutes left"
    (first.path / runs.CHECKPOINT).unlink()  # its twin must train for itself
    assert made.seconds_left() == pytest.approx(4 * 20 + 20 * (4 * 20 - 6))
    made.done.update(one.path for one in made.fits)
    assert made.told() == "32 of 32 fits finished"


@pytest.mark.slow
def test_a_fit_that_fails_is_named_with_its_command_and_the_others_are_made(
    two_stage, tmp_path, monkeypatch
):
    made, _ = planned(*MINI, f"runs_dir={tmp_path}")
    tried = []

    def make(one):
        tried.append(one.path)
        if one.experiment == "exp5_stage1" and one.fold == 0:
            raise PneumoError("no luck")
        return {"trained": True, "seconds": 3.0}

    monkeypatch.setattr(plan.lineage, "make", make)
    monkeypatch.setattr(plan.twin, "take_over", lambda *given: None)
    monkeypatch.setattr(plan, "check", lambda *given, **more: None)
    monkeypatch.setattr(plan.Plan, "told", lambda self: "")
    plan.make(made)
    # of each seed: stage 1 of fold 0, and the two that start from it
    assert len(made.failed) == 2 * 3
    assert len(tried) == 32 - 2 * 2
    assert len(made.done) == 32 - 2 * 3
    reasons = set(made.failed.values())
    assert "no luck" in reasons
    assert any(reason.startswith("its parent ") for reason in reasons)
    failed = next(iter(made.failed))
    told = made.command(failed)
    assert told.startswith("python -m pneumo.train +experiment=exp5 ")
    assert told.endswith("fold=0 seed=0")
    assert not any(part.startswith("+study") for part in told.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", options_of("study"))
def test_every_study_can_be_planned_at_full_scale(name):
    made, _ = planned("study.folds=[0,1]", "study.seeds=[0]", study=name)
    assert made.left == made.fits
    for trial in made.trials:
        fits = of(made, made.study.reference).fits
        share = plan.cost(trial.fits, Compute.pixels) / plan.cost(fits, Compute.pixels)
        assert share == pytest.approx(1, abs=0.2)  # whole epochs of many fits
