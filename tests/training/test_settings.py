"""What conf/ offers composes, and Table II of the paper stands in it."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

import pneumo.evaluation.settings  # noqa: F401 registers what the commands take
from pneumo.errors import PneumoError
from pneumo.masks.truth import Truth
from pneumo.settings import CONF, Machine, checked
from pneumo.training import lineage
from pneumo.training.lineage import SHARED
from pneumo.training.settings import load_config, system_of

FOLDER = Path(CONF)

EXPERIMENTS = sorted(path.stem for path in (FOLDER / "experiment").glob("*.yaml"))


def composed(*overrides):
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", list(overrides))


def loaded(*overrides):
    return load_config(composed(*overrides))


# Table II and section "Training": (size, epochs, batch, swa epochs, threshold, validation share,
# stem, scheduler, from)
TABLE_II = {
    "exp1": [(256, 50, 40, None, 0.5, 0.2, "conv", "plateau")],
    "exp2": [(256, 35, 40, 5, 0.55, 0.1, "repeat", "cosine")],
    "exp3": [
        (256, 35, 40, 5, 0.55, 0.1, "repeat", "cosine"),
        (512, 10, 14, 3, 0.55, 0.1, "repeat", "cosine"),
    ],
    "exp4": [
        (256, 60, 40, 5, 0.75, 0.1, "repeat", "cosine"),
        (512, 29, 14, 3, 0.75, 0.1, "repeat", "cosine"),
    ],
    "exp5": [
        (256, 100, 64, 5, 0.75, 0.1, "repeat", "cosine"),
        (512, 70, 16, 3, 0.75, 0.1, "repeat", "cosine"),
    ],
}


@pytest.mark.parametrize("name", TABLE_II)
def test_table_ii(name):
    stages = lineage.chain(loaded(f"+experiment={name}"), ["experiment"])
    rows = [
        (
            one.resolution.size,
            one.epochs,
            one.batch_size,
            getattr(one.averaging, "epochs", None),
            one.postprocess.binarization_threshold,
            one.split.validation,
            one.model.stem.value,
            one.scheduler.name,
        )
        for one in stages
    ]
    assert rows == TABLE_II[name]
    for one in stages:
        assert (
            one.lr,
            one.model.encoder,
            one.model.encoder_weights,
            one.loss.bce,
            one.loss.dice,
        ) == (
            1e-3,
            "resnet34",
            "imagenet",
            1,
            1,
        )
        assert (one.model.mean, one.model.std) == ([0], [1])
        assert (
            one.postprocess.removal_threshold,
            one.postprocess.removal_size,
            one.postprocess.removal.value,
        ) == (
            2048,
            1024,
            "total",
        )
        assert (one.augmentation.flip, one.augmentation.crop) == (0.5, 0.25)
        assert (
            round(one.resolution.crop_min * one.resolution.size)
            == {256: 156, 512: 412}[one.resolution.size]
        )
    assert loaded("+experiment=exp1").model.stem_kernel == 1
    plateau = loaded("+experiment=exp1").scheduler
    assert (plateau.factor, plateau.patience) == (0.2, 5)


def test_exp3_starts_from_exp2_itself():
    stages = lineage.chain(loaded("+experiment=exp3"), [])
    alone = loaded("+experiment=exp2")
    assert stages[0].path == alone.path
    assert stages[0].to_dict() == alone.to_dict()
    assert stages[1].init_from == str(alone.path / "weights.safetensors")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_named_as_its_file_and_is_a_small_delta(name):
    text = (FOLDER / "experiment" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 16
    assert loaded(f"+experiment={name}").experiment == name


@pytest.mark.parametrize("name", ["evaluate", "export", "predict", "report", "submission", "view"])
def test_every_command_composes(name):
    with initialize_config_dir(str(FOLDER / "commands"), version_base="1.3"):
        own = [] if name in ("report", "view") else ["run=x"]
        own += ["on=val"] if name == "submission" else []
        settings = checked(compose(name, ["runs_dir=elsewhere", *own]))
    assert settings.runs_dir == "elsewhere"


def test_presets_of_machines_and_the_default_is_what_a_machine_is_by_itself():
    presets = {
        name: Machine(**values)
        for name, values in {
            "auto": {},
            "cpu": {"accelerator": "cpu"},
            "gpu": {"accelerator": "gpu"},
            "gpus": {"accelerator": "gpu", "devices": 2},
            "nodes": {"accelerator": "gpu", "devices": 2, "nodes": 2},
        }.items()
    }
    assert {path.stem for path in (FOLDER / "machine").glob("*.yaml")} == set(presets)
    for name, machine in presets.items():
        assert loaded("+experiment=exp5", f"machine={name}").machine == machine
    assert loaded("+experiment=exp5").machine == Machine()
    own = loaded("+experiment=exp5", "machine=gpus", "machine.devices=8")
    assert own.machine.devices == 8
    with pytest.raises(PneumoError, match=r"=14: must be a multiple of machine\.nodes=2 times"):
        loaded("+experiment=exp3", "machine=nodes")


def test_five_folds_sweep():
    with initialize_config_dir(CONF, version_base="1.3"):
        raw = compose("train", ["+sweep=folds", "+experiment=exp5"], return_hydra_config=True)
    assert raw.hydra.sweeper.params == {"split": "kfold5", "fold": "0,1,2,3,4"}


@pytest.mark.parametrize("name", TABLE_II)
def test_mini_shrinks_without_touching_structure(name):
    full = lineage.chain(loaded(f"+experiment={name}"), [])
    mini = lineage.chain(loaded(f"+experiment={name}", "scale=mini"), [])
    assert [one.experiment for one in mini] == [one.experiment for one in full]
    for small, large in zip(mini, full, strict=True):
        assert small.resolution.size < large.resolution.size
        assert small.epochs < large.epochs
        assert small.batch_size < large.batch_size or large.batch_size == 8
        for same in ("parent", "lr", "postprocess", "scheduler", "augmentation", "split", "loss"):
            assert getattr(small, same) == getattr(large, same)
        assert type(small.averaging) is type(large.averaging)
        assert getattr(small.averaging, "epochs", 1) < small.epochs
        assert (small.model.encoder, small.model.stem) == (large.model.encoder, large.model.stem)
    if len(mini) == 2:
        assert mini[0].resolution.size * 2 == mini[1].resolution.size


X5 = (
    *("+experiment=exp5", "epochs=44", "scheduler=restarts_x5", "averaging=epochs"),
    *("optimizer.freeze_epochs=8", "scale=mini"),
)


@pytest.mark.parametrize(
    ("factor", "first", "tail", "at", "frozen"),
    [
        (1, 5, [40, 42], [34, 39, 43], 8),
        (0.5, 2, [20, 21], [17, 19, 21], 4),
        (0.08, 1, [3, 4], [2, 3, 4], 1),
    ],
)
def test_whatever_names_or_counts_epochs_shrinks_with_them(factor, first, tail, at, frozen):
    one = loaded(*X5, f"scale.epochs={factor}").scaled()
    assert one.epochs == max(5, 44 * factor // 1)
    assert (one.scheduler.first, one.scheduler.tail_epochs) == (first, tail)
    assert one.scheduler.tail_rates == [1e-5, 5e-6]
    assert (one.averaging.at, one.optimizer.freeze_epochs) == (at, frozen)


def test_of_the_cycles_to_be_averaged_those_remain_that_a_shorter_fit_completes():
    typed = [*X5[:2], "scheduler=restarts_x5", "averaging=cycles", "averaging.cycles=4"]
    whole = loaded(*typed)
    assert whole.scaled().averaging.cycles == 4
    assert loaded(*typed, "scale=mini").scaled().averaging.cycles == 3


def test_waves_and_patience_shrink_unless_typed():
    typed = ("+experiment=exp5", "epochs=50", "scheduler=waves", "averaging=none", "scale=mini")
    one = loaded(*typed, "scheduler.half_period=8", "stopping.patience=20")
    assert one.scaled().epochs == 5
    short = one.scaled()
    assert (short.scheduler.half_period, short.stopping.patience) == (1, 2)
    kept = one.scaled({"scheduler.half_period", "stopping.patience"})
    assert (kept.scheduler.half_period, kept.stopping.patience) == (8, 20)
    exact = {"optimizer.freeze_epochs", "averaging.at", "scheduler.tail_epochs", "scheduler.first"}
    declared = loaded(*X5, "scale.epochs=0.99")
    same = declared.scaled(exact)
    assert (same.epochs, same.scheduler) == (44, declared.scheduler)


def test_averages_that_must_know_their_epochs_do_not_go_with_an_early_end():
    for averaging in ("paper", "epochs", "lightning"):
        with pytest.raises(PneumoError, match=rf"averaging={averaging} must know its epochs"):
            loaded("+experiment=exp5", f"averaging={averaging}", "stopping.patience=3")
    assert loaded("+experiment=exp5", "averaging=ema", "stopping.patience=3").stopping.patience == 3


def test_what_the_user_types_is_not_shrunk():
    one = loaded(
        "+experiment=exp5",
        "scale=mini",
        "epochs=7",
        "batch_size=9",
        "resolution.size=96",
        "averaging.epochs=2",
    ).scaled({"epochs", "batch_size", "resolution.size", "averaging.epochs"})
    assert (one.epochs, one.batch_size, one.resolution.size, one.averaging.epochs) == (7, 9, 96, 2)


def test_windows_shrink_with_the_film_to_a_multiple_of_32():
    def windows(*typed, exact=()):
        own = ("+experiment=exp5", "augmentation=amirassov", "resolution.size=768", *typed)
        one = loaded(*own).scaled(exact)
        return one.resolution.size, one.augmentation.window

    assert windows() == (768, 512)
    assert windows("scale.size=0.25") == (192, 128)
    assert windows("scale.size=0.1") == (64, 32)
    assert windows("scale.size=0.25", exact={"resolution.size"}) == (768, 512)
    kept = {"augmentation.window"}
    assert windows("augmentation.window=64", "scale.size=0.25", exact=kept) == (192, 64)


def test_films_the_user_asks_for_are_not_capped():
    scale = (
        loaded("+experiment=exp5", "data=phantom", "data.images=1000", "scale=mini")
        .scaled({"data.images"})
        .scale
    )
    assert (scale.images, scale.positive_rate) == (None, 0.5)


def test_own_data_may_have_a_name_of_its_own():
    child = loaded("+experiment=exp5", "data.name=hospital")
    assert lineage.parent_of(child).path.parent.name == "hospital-full"


def test_a_parent_shares_data_fold_seed_scale_machine_and_model_only():
    child = loaded(
        *("+experiment=exp5", "data=phantom", "data.images=77", "fold=2", "seed=5", "scale=mini"),
        *("model=unet_lite0", "machine.threads=1", "lr=0.1", "loss.dice=2", "tag=x"),
        *("split.seed=4", "runs_dir=a b"),
    )
    parent = lineage.parent_of(child)
    for shared in (key for key in SHARED if "." not in key):
        assert getattr(parent, shared) == getattr(child, shared)
    assert (parent.lr, parent.loss.dice, parent.epochs, parent.resolution.size) == (
        1e-3,
        1,
        100,
        256,
    )
    assert child.init_from == str(parent.path / "weights.safetensors")


def named(*overrides):
    raw = composed(*overrides)
    lineage.name_run(raw, overrides)
    return lineage.chain(load_config(raw), overrides)


def test_what_is_typed_reaches_the_parents_where_asked():
    typed = ("+experiment=exp5", "averaging=none", "epochs=7")
    alone = named(*typed)
    assert [one.averaging.name for one in alone] == ["paper", "none"]
    whole = named(*typed, "whole_chain=[averaging]")
    assert [one.averaging.name for one in whole] == ["none", "none"]
    assert [one.epochs for one in whole] == [100, 7]
    assert [str(one.path) for one in whole] == [
        "runs/exp5_stage1/siim-full-averaging_none/fold0-seed0",
        "runs/exp5/siim-full-averaging_none/fold0-seed0-epochs_7",
    ]
    assert whole[1].init_from == str(whole[0].path / "weights.safetensors")
    both = named(*typed[:1], "averaging.update_bn=true", "whole_chain=[averaging]")
    assert [(one.averaging.epochs, one.averaging.update_bn) for one in both] == [
        (5, True),
        (3, True),
    ]


def test_what_the_parents_should_take_over_must_be_typed():
    with pytest.raises(PneumoError, match=r"whole_chain=\[averaging\].*add averaging="):
        named("+experiment=exp5", "whole_chain=[averaging]")
    with pytest.raises(PneumoError, match=r"whole_chain=averagin: must be a setting"):
        load_config(composed("+experiment=exp5", "whole_chain=[averagin]"))


def test_handoff_stays_in_the_fold():
    paths = {composed("+experiment=exp5", f"fold={fold}").init_from for fold in range(3)}
    assert len(paths) == 3
    assert composed("+experiment=exp2").init_from is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.round=1", "data.round1_test"),
        ("data.round=3", r"data\.round=3"),
        ("epochs=0", "epochs=0"),
        ("batch_size=1", "batch_size=1"),
        ("lr=-1", "lr=-1"),
        ("log.pictures_every=0", "pictures_every=0"),
        ("seed=-1", "seed=-1"),
        ("split.seed=-1", r"split\.seed=-1"),
        ("fold=-1", "fold=-1"),
        ("averaging.epochs=71", r"averaging\.epochs=71.*epochs=70"),
        ("postprocess.binarization_threshold=1.5", r"binarization_threshold=1\.5"),
        ("tag=a/b", "tag=a/b"),
        ("data.format=phantom", r"data\.format=phantom: must be siim"),
        ("loss.presence=1", r"model\.presence=true"),
    ],
)
def test_impossible_values_are_refused_by_name(override, message):
    with pytest.raises(PneumoError, match=message):
        loaded("+experiment=exp5", override)


@pytest.mark.parametrize(
    "override",
    [
        "epoch=3",
        "scheduler.patience=3",
        "resolution=256",
        "model=resnet",
        "epochs=many",
        "on_error=skip",
        "data.on_error=no",
    ],
)
def test_typos_fail_at_composition(override):
    with pytest.raises((ConfigCompositionException, ValueError)):
        loaded("+experiment=exp5", override)


def test_the_best_epoch_needs_positive_films():
    from pneumo.training.fit import _check_watched

    config = loaded("+experiment=exp5", "handoff.source=best")
    _check_watched(config, 1, Truth.masks)
    with pytest.raises(PneumoError, match="no validation film shows pneumothorax"):
        _check_watched(config, 0, Truth.masks)


def test_no_experiment_names_the_choices():
    with pytest.raises(PneumoError, match=r"\+experiment=<name>.*exp1, exp2, exp3, exp4"):
        loaded()


@pytest.mark.parametrize(
    "modules",
    [
        "train, evaluate, predict, export, submission, report, view, siim",
        "evaluation.report, evaluation.page, evaluation.submission, inference.server",
    ],
    ids=["help and configuration", "judging maps that are there, and ONNX"],
)
def test_what_needs_no_torch_loads_none(modules):
    """Torch and Lightning take seconds to load."""
    heavy = {"torch", "pytorch_lightning", "wandb"}
    names = ", ".join(f"pneumo.{name}" for name in modules.split(", "))
    code = f"import sys, {names}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in (FOLDER / "system").glob("*.yaml")))
def test_every_system_is_of_experiments_there_are(name):
    system = system_of(name)
    assert system.name == name
    assert set(system.experiments) <= set(EXPERIMENTS)
    config = load_config(composed(f"+system={name}", *system.overrides))
    assert config.system == system
    assert config.experiment == system.experiments[0]


def test_a_system_without_an_experiment_says_what_its_file_needs():
    raw = composed("+system=exp4_exp5")
    raw.experiment = ""
    with pytest.raises(PneumoError, match=r"system exp4_exp5: its file .*- /experiment: exp4"):
        load_config(raw)


def test_a_system_tells_its_parts():
    told = system_of("x5").describe([0, 1])
    assert "mean_folds of x5_unet_seresnext50, x5_unet_seresnext101" in told
    assert "presence: stack of x5_cls_seresnext50, " in told
    assert told.endswith("folds: 0, 1")
    assert "0.4 sneddy_seunet, 0.25 sneddy_resnet50, the best epochs" in system_of(
        "sneddy"
    ).describe([0])


def test_trainings_that_leave_out_other_sets_have_folders_of_their_own():
    paths = set()
    for more in ((), ("data.leave_out=a",), ("data.leave_out=b",)):
        sets = [f"+data.sets.{name}={{format:phantom,images:4}}" for name in "ab"]
        typed = ["+experiment=exp2", "data=several", *sets, *more]
        raw = composed(*typed)
        lineage.name_run(raw, typed)
        paths.add(load_config(raw).path)
    assert len(paths) == 3
