"""The recipes of others hold the constants of their released code, or of their papers.

sneddy: github.com/sneddy/pneumothorax-segmentation, ``unet_pipeline/experiments/*/*.yaml`` and
``blend_configs``. X5: github.com/yelanlan/Pneumothorax-Segmentation-2nd-place-solution.
amirassov: github.com/amirassov/kaggle-pneumothorax, ``configs`` and ``src``.
"""

import pytest
from conftest import slow_but
from hydra import compose, initialize_config_dir

from pneumo.settings import CONF, options_of
from pneumo.training import lineage
from pneumo.training.options import AdamW, Ema, LinearShare, Plateau, Restarts, Waves
from pneumo.training.settings import Blend, Checkpoints, Presence, Source, load_config, system_of


def chain(name, *typed):
    """The fits that lead to an experiment, the first one first."""
    overrides = [f"+experiment={name}", "data=phantom", *typed]
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", overrides)
    lineage.name_run(raw, overrides)
    return lineage.chain(load_config(raw), overrides)


# share of positives in the four parts; weights of BCE, Dice and focal loss
SNEDDY = {
    "sneddy_albunet": ((0.8, 0.6, 0.4, 0.4), (3, 1, 4)),
    "sneddy_albunet_public": ((0.8, 0.4, 0.6, 0.4), (1, 1, 1)),
    "sneddy_resnet50": ((0.8, 0.6, 0.4, 0.5), (2, 1, 2)),
    "sneddy_seunet": ((0.8, 0.6, 0.4, 0.5), (3, 1, 4)),
}


@pytest.mark.parametrize("name", SNEDDY)
def test_sneddys_four_parts(name):
    shares, weights = SNEDDY[name]
    parts = chain(name)
    assert [one.sampling.share for one in parts] == list(shares)
    assert all(one.sampling.replacement for one in parts)
    assert [one.epochs for one in parts] == [50, 50, 50, 40]
    assert [one.stopping.patience for one in parts] == [11, 13, 13, 13]  # his: more than 10, 12
    assert [one.lr for one in parts] == [1e-4, 1e-5, 1e-5, 1e-5]
    first, *others = (one.scheduler for one in parts)
    assert isinstance(first, Plateau)
    assert (first.watched.name, first.factor, first.lr_min) == ("dice", 0.1, 1e-7)
    assert first.patience == 2 + 1  # torch waits one epoch more than Keras, whose way ours is
    assert all(isinstance(one, Waves) and one.half_period == 8 for one in others)
    for one in parts:
        assert (one.loss.bce, one.loss.dice, one.loss.focal) == weights
        assert (one.resolution.size, one.batch_size, one.optimizer.clip) == (1024, 2, 0.1)
        assert (one.handoff.source, one.handoff.score.name) == (Source.best, "dice")
        assert one.handoff.inherit
        assert one.handoff.keep == 3
    last = name == "sneddy_seunet"
    decays = [5e-6, 5e-6, 5e-6, 5e-7 if last else 5e-6]
    assert [one.optimizer.weight_decay for one in parts] == decays
    assert parts[-1].scheduler.lr_min == (1e-8 if last else 1e-7)


@pytest.mark.parametrize(
    ("name", "weights", "rule"),
    [
        ("sneddy_v1", (0.4, 0.2, 0.2, 0.2), (0.7, 800)),
        ("sneddy", (0.2, 0.15, 0.4, 0.25), (0.75, 1500)),
    ],
)
def test_sneddys_blends(name, weights, rule):
    system = system_of(name)
    names = ("albunet_public", "albunet", "seunet", "resnet50")
    assert system.experiments == [f"sneddy_{one}" for one in names]
    assert tuple(system.weights) == weights
    assert system.checkpoints is Checkpoints.best
    assert (system.folds, system.blend) == ([0, 1, 2, 3, 4], Blend.mean_folds)
    found = system.postprocess
    assert (found.top_threshold, found.removal_threshold) == rule
    assert (found.binarization_threshold, found.contour_area, found.fill_holes) == (0.3, 100, True)


def test_the_readme_of_sneddy_is_trained_with_a_frozen_encoder():
    first, second = chain("sneddy_uptrain")
    assert (first.resolution.size, first.optimizer.freeze_encoder) == (512, False)
    assert (second.resolution.size, second.optimizer.freeze_encoder) == (1024, True)


X5_MASKS = {
    "x5_unet_seresnext50": ("se_resnext50_32x4d", 1024, True),
    "x5_unet_seresnext101": ("se_resnext101_32x4d", 1024, True),
    "x5_unet_efficientnet_b3": ("tu-tf_efficientnet_b3.aa_in1k", 1024, False),
    "x5_unet_efficientnet_b5": ("tu-tf_efficientnet_b5.aa_in1k", 768, False),
    "x5_deeplab_seresnext50": ("se_resnext50_32x4d", 1024, False),
}


@pytest.mark.parametrize("name", X5_MASKS)
def test_x5s_networks_of_masks_see_positive_films_alone(name):
    (one,) = chain(name)
    assert (one.model.encoder, one.resolution.size, one.model.presence) == X5_MASKS[name]
    assert one.loss.presence == (1 if one.model.presence else 0)
    assert (one.loss.bce, one.loss.dice, one.loss.dice_squared) == (0, 1, True)
    assert one.sampling.share == 1
    assert (one.epochs, one.lr) == (44, 5e-4)
    assert isinstance(one.scheduler, Restarts)
    assert (one.scheduler.first, one.scheduler.factor, one.scheduler.lr_min) == (5, 2, 1e-6)
    assert one.scheduler.tail_epochs == [40, 42]
    assert one.scheduler.tail_rates == [1e-5, 5e-6]
    assert (one.averaging.at, one.averaging.update_bn) == ([34, 39, 43], True)


def test_x5s_classifiers_see_all_films_and_are_stacked_behind_a_gate():
    system = system_of("x5")
    assert system.experiments == list(X5_MASKS)
    assert (system.presence, system.blend) == (Presence.stack, Blend.mean_folds)
    rule = system.postprocess
    assert (rule.binarization_threshold, rule.presence_threshold) == (0.4, 0.65)
    sizes = []
    for name in system.presence_from:
        (one,) = chain(name)
        assert one.sampling.name == "all"
        assert one.model.presence
        assert (one.loss.presence, one.loss.presence_focal, one.loss.bce) == (1, 1, 1)
        assert (one.epochs, one.averaging.update_bn) == (34, True)
        sizes.append(one.resolution.size)
    assert sizes == [1024, 768, 1024]


def test_amirassovs_network():
    (one,) = chain("amirassov")
    assert (one.resolution.size, one.augmentation.window) == (768, 512)
    assert (one.epochs, one.batch_size, one.lr) == (60, 8, 7.5e-5)
    assert (one.optimizer.weight_decay, one.optimizer.clip) == (1e-5, 0.5)
    assert one.optimizer.freeze_batch_norm_affine
    assert isinstance(one.scheduler, Waves)
    assert (one.scheduler.half_period, one.scheduler.lr_min) == (8, 1e-6)
    assert isinstance(one.sampling, LinearShare)
    assert (one.sampling.start, one.sampling.end) == (0.8, 0.22)
    assert (one.handoff.keep, one.handoff.score.name) == (4, "dice")
    rule = one.postprocess
    assert (rule.presence_threshold, rule.top_threshold) == (0.4, 0.8)
    assert rule.binarization_threshold == 0.4
    assert (rule.removal_threshold, rule.removal_size) == (800, 768)
    system = system_of("amirassov")
    assert (len(system.folds), system.checkpoints) == (8, Checkpoints.best)
    assert "split.folds=8" in system.overrides


def test_the_recipe_of_today():
    (one,) = chain("modern")
    assert one.model.encoder.startswith("tu-convnext")
    assert (one.resolution.size, one.parent) == (512, None)
    assert isinstance(one.optimizer, AdamW)
    assert 0 < one.optimizer.layer_decay < 1
    assert one.optimizer.clip > 0
    assert (one.scheduler.interval.name, one.scheduler.warmup > 0) == ("step", True)
    assert isinstance(one.averaging, Ema)
    assert one.averaging.decay == 0.999
    assert (one.sampling.start, one.sampling.end) == (0.8, 0.22)
    assert one.loss.dice_over.name == "image"
    assert one.loss.presence > 0


def test_the_recipe_of_today_costs_what_exp5_costs():
    """By pixels: an epoch at 256² is a quarter of one at 512²."""
    first, second = chain("exp5")
    (one,) = chain("modern")
    assert one.epochs <= second.epochs + first.epochs / 4


@pytest.mark.parametrize("name", slow_but(("exp4_exp5", "goossen", "x5"), options_of("system")))
def test_every_system_shrinks_to_a_miniature(name):
    system = system_of(name)
    for experiment in system.members:
        fits = chain(experiment, *system.overrides, "scale=mini")
        assert all(fit.resolution.size <= 128 and fit.epochs <= 8 for fit in fits)
