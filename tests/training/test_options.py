"""The options of every group: they compose, are recorded, and refuse what cannot be."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from pneumo.errors import PneumoError
from pneumo.settings import CONF
from pneumo.training.options import Over
from pneumo.training.settings import load_config, recorded_config

OPTIONS = [
    (path.parent.name, path.stem)
    for path in sorted(Path(CONF).glob("*/*.yaml"))
    if path.parent.name not in ("experiment", "sweep", "system", "commands")
]


NEEDED = {  # beside the option itself
    ("loss", "amirassov"): ["model.presence=true"],
    ("averaging", "cycles"): ["scheduler=cyclic"],
}


def loaded(*overrides):
    with initialize_config_dir(CONF, version_base="1.3"):
        return load_config(compose("train", ["+experiment=exp5", *overrides]))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_survives_being_recorded(group, option):
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
