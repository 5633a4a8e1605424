"""What a user sees of ``python -m pneumo.phantoms``."""

import shlex

import pytest
from conftest import launch, say

from pneumo.data.settings import Layout
from pneumo.data.sources import layouts


@pytest.mark.parametrize("layout", ["candid", "padchest", "labels"])
def test_the_command_that_it_ends_with_checks_what_was_written(tmp_path, monkeypatch, layout):
    typed = [f"layout={layout}", f"out={layout} set", "images=12"]
    status, out, errors = say("phantoms", typed, tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert f"written: {layout} set, 12 phantoms" in out
    line = next(line for line in out.splitlines() if line.startswith("Next: "))
    module, *given = shlex.split(line)[3:]
    assert module == "pneumo.siim"
    status, out, errors = say("siim", given, tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "4  of them positive" in out
    assert ("Known of them: " in out) == (layout != "candid")
    assert ("with a chest tube" in out) == (layout == "candid")


def test_a_layout_that_there_is_not_is_one_line(tmp_path, monkeypatch):
    status, _, errors = say("phantoms", ["layout=mimic", "out=x"], tmp_path, monkeypatch)
    assert status == 1
    (line,) = errors.strip().splitlines()
    assert "candid" in line
    status, _, errors = say("phantoms", ["layout=candid"], tmp_path, monkeypatch)
    assert (status, errors) == (1, "error: out is not set: give a folder to write, out=…\n")


OF_MASKS = ("candid", "chexlocalize", "coco", "ptx498")
SMALL = (
    *("scale=mini", "scale.positive_rate=0.34", "scale.side=64", "scale.least_epochs=1"),
    *("scale.epochs=0.001", "log.pictures=2", "log.wandb=disabled", "machine.threads=1"),
    *("split.validation=0.3", "model.encoder=tu-test_resnet"),
)


@pytest.mark.slow
@pytest.mark.parametrize("layout", Layout, ids=[layout.name for layout in Layout])
def test_every_layout_is_trained_on_and_judged(phantoms, tmp_path, layout):
    """Masks by the recipe of masks, boxes and labels by one of whole films."""
    typed = layouts.lay_out(layout, phantoms, tmp_path / layout.name)
    has_masks = layout.name in OF_MASKS
    experiment = "exp2" if has_masks else "goossen_cnn"
    trained = launch(tmp_path, f"+experiment={experiment}", *typed, *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert (", on positives " in trained.stdout) == has_masks
    judged = launch(
        tmp_path,
        "run=runs/*/*/*",
        "on=val",
        "resamples=20",
        "log.wandb=disabled",
        module="pneumo.evaluate",
    )
    assert judged.returncode == 0, judged.stderr
    assert "sensitivity" in judged.stdout
    assert ("dice_positive" in judged.stdout) == has_masks
