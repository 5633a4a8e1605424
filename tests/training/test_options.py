"""The options of every group: they compose, are recorded, and refuse what cannot be."""

from pathlib import Path

import pytest
from conftest import slow_but
from hydra import compose, initialize_config_dir

from pneumo.errors import PneumoError
from pneumo.settings import CONF
from pneumo.training.options import Over
from pneumo.training.settings import load_config, recorded_config

# groups that a training does not have, or whose files are more than its settings
FOREIGN = ("cluster", "commands", "experiment", "search", "study", "sweep", "system")
OPTIONS = [
    (path.parent.name, path.stem)
    for path in sorted(Path(CONF).glob("*/*.yaml"))
    if path.parent.name not in FOREIGN
]


NEEDED = {  # beside the option itself
    ("averaging", "cycles"): ["scheduler=cyclic"],
    **{
        ("loss", name): ["model.presence=true"]
        for name in ("amirassov", "presence", "x5_classifier", "x5_multitask")
    },
}


def loaded(*overrides):
    with initialize_config_dir(CONF, version_base="1.3"):
        return load_config(compose("train", ["+experiment=exp5", *overrides]))


ONE_EACH = dict(OPTIONS).items()  # of each group its last


@pytest.mark.parametrize("named", slow_but(ONE_EACH, OPTIONS), ids="=".join)
def test_every_option_composes_and_survives_being_recorded(named):
    group, option = named
    needed = NEEDED.get((group, option), [])
    one = loaded(f"{group}={option}", *needed)
    assert recorded_config(one.to_dict()) == one


# what their released code trained with, bce, dice, focal, Lovász, presence, smooth
RELEASED_LOSSES = {
    "sneddy": (3, 1, 4, 0, 0, 1e-5),
    "x5": (0, 1, 0, 0, 0, 0.01),
    "lovasz": (0, 0, 0, 1, 0, 1),
    "amirassov": (2.7, 0.9, 0, 0, 0.1, 1e-5),
}


@pytest.mark.parametrize("name", RELEASED_LOSSES)
def test_losses_have_the_weights_of_the_released_code(name):
    one = loaded(f"loss={name}", "model.presence=true").loss
    weights = (one.bce, one.dice, one.focal, one.lovasz, one.presence, one.smooth)
    assert weights == RELEASED_LOSSES[name]
    assert one.name == name
    assert one.dice_squared == (name == "x5")
    assert one.dice_over is (Over.image if name == "x5" else Over.batch)


# probabilities of flip, intensity, distortion, affine and blur; limits of shift, scale and
# rotation; what lies beyond the edge; choices of intensity; side of windows
RELEASED_AUGMENTATIONS = {
    "sneddy": (
        *((0.5, 0.3, 0.3, 0.5, 0), (0.0625, 0.1, 45), "mirror"),
        *(("contrast", "gamma", "brightness"), 0),
    ),
    "x5": (
        *((0.5, 0.5, 0, 1, 0.5), (0.2, 0.2, 20), "black"),
        *(("gamma", "brightness_contrast", "clahe"), 0),
    ),
    "amirassov": (
        *((0.5, 0.3, 0.3, 0.5, 0), (0.2, 0.2, 20), "black"),
        *(("brightness_contrast",), 512),
    ),
}


@pytest.mark.parametrize("name", RELEASED_AUGMENTATIONS)
def test_augmentations_are_those_of_the_released_code(name):
    one = loaded(f"augmentation={name}").augmentation
    found = (
        (one.flip, one.intensity, one.distortion, one.affine, one.blur),
        (one.shift_limit, one.scale_limit, one.rotate_limit),
        one.border.name,
        tuple(choice.name for choice in one.intensity_choices),
        one.window,
    )
    assert found == RELEASED_AUGMENTATIONS[name]
    assert (one.crop, one.window_nonempty) == (0, 0)
    assert (one.contrast_limit, one.brightness_limit, one.brightness_of_mean) == (0.2, 0.2, True)
    assert one.gamma_limit == ([60, 120] if name == "x5" else [80, 120])
    if name == "x5":
        assert (one.clahe_limit, one.clahe_tiles, one.blur_kernel) == (4, 4, 3)
    else:  # both distort alike
        distorting = (one.elastic_alpha, one.elastic_sigma, one.elastic_affine)
        assert (*distorting, one.grid_limit, one.optical_limit) == (120, 6, 3.6, 0.3, 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augmentation.gamma_limit=[80]", "gamma_limit"),
        ("model.std=[0]", r"model\.std=\[0\.0\]: must be positive"),
        ("model.mean=[0,1]", r"model\.mean=.*one number or three"),
        ("model={mean: [0,0,0], stem: conv}", r"model\.mean=.*stem=conv takes one channel"),
        ("model.batch_norm.momentum=0.99", r"momentum=0\.99.*not of the past as in Keras"),
        ("model.batch_norm.eps=0", r"model\.batch_norm\.eps=0"),
        ("model.stem_kernel=2", r"model\.stem_kernel=2.*odd"),
        ("model={architecture: fpn, decoder_attention: scse}", r"attention=scse.*fpn has no place"),
        ("resolution.size=500", r"resolution\.size=500.*multiple of 32"),
        ("resolution.crop_min=0", r"crop_min=0"),
        ("augmentation.flip=2", r"augmentation\.flip=2.*probability"),
        ("augmentation.window_nonempty=2", r"window_nonempty=2.*probability"),
        ("augmentation.window=100", r"augmentation\.window=100.*multiple of 32"),
        ("augmentation.window=1024", r"augmentation\.window=1024.*at most resolution\.size=512"),
        ("augmentation.intensity_choices=[]", r"intensity_choices.*contrast, gamma"),
        ("augmentation.blur_kernel=4", r"blur_kernel=4.*odd"),
        ("augmentation.scale_limit=1", r"scale_limit=1.*below 1"),
        ("augmentation.clahe_limit=0", r"clahe_limit=0"),
        ("loss=presence", r"loss\.presence needs.*model\.presence=true"),
        ("loss={presence_focal: 1}", r"loss\.presence_focal needs.*model\.presence=true"),
        ("model.architecture=mil", r"model\.presence=false: must be true.*mil"),
        ("loss={bce: 0, dice: 0}", "one of bce, dice, focal, lovasz and own"),
        ("averaging=cycles", r"averaging=cycles: must be with cyclic or restarts, not .*=cosine"),
        ("averaging={at: [3, 2]}", r"averaging\.at=\[3, 2\]: must be epochs from 0, ascending"),
        ("averaging.at=[70]", r"averaging\.at=\[70\]: must be below epochs=70"),
        ("scheduler.tail_epochs=[70]", r"tail_epochs=\[70\]: must be below epochs=70"),
        ("optimizer.layer_decay=0", r"optimizer\.layer_decay=0"),
        ("optimizer.freeze_epochs=70", r"optimizer\.freeze_epochs=70: must be below epochs=70"),
        ("stopping.patience=0", r"stopping\.patience=0: must be at least 1, or null"),
        ("handoff.keep=-1", r"handoff\.keep=-1"),
        ("handoff.inherit=true", r"handoff\.inherit=True: must be false without .*source=best"),
        ("loss.lovasz=-1", r"loss.*lovasz=-1.*non-negative"),
    ],
)
def test_impossible_values_are_refused_by_name(override, message):
    needed = {
        "averaging={": ["averaging=epochs"],
        "averaging.at": ["averaging=epochs"],
        "scheduler.tail": ["scheduler=restarts", "scheduler.tail_rates=[1]"],
    }
    options = [one for start, some in needed.items() if override.startswith(start) for one in some]
    with pytest.raises(PneumoError, match=message):
        loaded(*options, override)
