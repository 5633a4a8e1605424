"""Beside published figures stands whatever differs from the protocol they are of."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from pneumo import runs
from pneumo.evaluation import comparable
from pneumo.settings import CONF
from pneumo.training import lineage
from pneumo.training.lineage import INCIDENTAL, NAMED, SHARED
from pneumo.training.settings import load_config

EXPERIMENTS = sorted(comparable.PAPER)


def chain(experiment, *typed, by_patient=False):
    """The records of an experiment and its ancestors, as far as comparing asks for them."""
    own = {"data.round": "1", "data.round1_test": "ids.csv", "split.group": "image"}
    own |= dict(one.split("=") for one in typed)
    overrides = [f"{key}={value}" for key, value in own.items()]
    tag, variant = runs.tags(overrides, SHARED, NAMED, INCIDENTAL)
    overrides += [f"tag={own.get('tag', tag)}", f"variant={variant}"]
    with initialize_config_dir(CONF, version_base="1.3"):
        config = load_config(compose("train", [f"+experiment={experiment}", *overrides]))
    data = SimpleNamespace(by_patient=by_patient)
    stages = lineage.chain(config, {one.split("=")[0] for one in typed})
    return [SimpleNamespace(config=stage, data=data) for stage in stages]


def test_the_protocol_itself_differs_in_nothing():
    assert comparable.note([chain(name) for name in EXPERIMENTS]) == ""


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("data.round=2", "round 2 of the data, not 1"),
        ("split=kfold5", "5 folds"),
        ("split.validation=0.3", "30% of the films held out, not 10%"),
        ("model.encoder=resnet50", "network unet resnet50 from imagenet, not unet resnet34"),
        ("model.encoder_weights=none", "from none"),
        ("model.stem=conv", "conv stem"),
        ("scale=mini", "scale=mini"),
        ("data=phantom", "data phantom, not the challenge's"),
        ("tag=mine", "typed settings (mine)"),
        ("resolution=px256", "then 256²: 16 / 70, averaged 3, not"),
        ("epochs=71", "512²: 16 / 71"),
        ("averaging=lightning", "averaged 5 (lightning)"),
        ("postprocess.binarization_threshold=0.5", "B-TH 0.5, not 0.75"),
        ("postprocess.removal=component", "another removal rule"),
        ("postprocess.fill_holes=true", "another removal rule"),
        ("loss=focal", "typed settings (loss_focal)"),
    ],
)
def test_what_differs_is_named(typed, said):
    if typed == "data=phantom":  # which has no rounds
        with initialize_config_dir(CONF, version_base="1.3"):
            config = load_config(compose("train", ["+experiment=exp5", typed]))
        found = [SimpleNamespace(config=config, data=SimpleNamespace(by_patient=False))]
    else:
        found = chain("exp5", typed)
    text = comparable.note([found])
    assert said in text
    assert text.startswith("Not comparable with the published figures: ")
    assert text.endswith("data.round1_test=<stage_1_sample_submission.csv> split.group=image")


def test_a_difference_of_all_is_said_once_and_one_of_some_with_their_names():
    text = comparable.note(
        [chain("exp2", "data.round=2", "model.encoder=resnet50"), chain("exp5", "data.round=2")]
    )
    assert text.count("round 2 of the data") == 1
    assert "imagenet (exp2)" in text
    assert "split by patient, not by image" in comparable.note([chain("exp5", by_patient=True)])
