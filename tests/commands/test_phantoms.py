"""What a user sees of ``python -m pneumo.phantoms``."""

import csv
import json
import re
import shlex

import pytest
from conftest import launch, say

from pneumo.data.settings import Layout
from pneumo.data.sources import layouts

SLOW = [pytest.param(layout, marks=pytest.mark.slow) for layout in ("padchest", "labels")]


@pytest.mark.parametrize("layout", ["candid", *SLOW])
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


OF_BOXES = ("vindr", "nih", "padchest")
OF_MASKS = ("candid", "chexlocalize", "coco", "ptx498")
SMALL = (
    *("scale=mini", "scale.positive_rate=0.34", "scale.side=64", "scale.least_epochs=1"),
    *("scale.epochs=0.001", "log.pictures=2", "log.wandb=disabled", "machine.threads=1"),
    *("split.validation=0.3", "model.encoder=tu-test_resnet"),
)


@pytest.mark.slow
@pytest.mark.parametrize("layout", Layout, ids=[layout.name for layout in Layout])
def test_every_layout_is_trained_on_and_judged(phantoms, model, tmp_path, monkeypatch, layout):
    """Masks by the recipe of masks, boxes and labels by one of whole films; a bundle on each."""
    typed = layouts.lay_out(layout, phantoms, tmp_path / layout.name)
    has_masks = layout.name in OF_MASKS
    experiment = "exp2" if has_masks else "goossen_cnn"
    trained = launch(tmp_path, f"+experiment={experiment}", *typed, *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert (", on positives " in trained.stdout) == has_masks
    own = [f"run={next((tmp_path / 'runs').glob('*/*/fold0-*'))}", "on=val"]
    elsewhere = [f"model={model}", *typed]
    for asked in (own, elsewhere):
        few = ["resamples=20", "log.wandb=disabled"]
        status, out, errors = say("evaluate", [*asked, *few], tmp_path, monkeypatch)
        assert (status, errors) == (0, "")
        assert "sensitivity" in out
        assert ("dice_positive" in out) == has_masks
        assert ("box_iou" in out) == (layout.name in OF_BOXES)
    assert "Against its internal validation" in out
    path = tmp_path / re.search(r"^Films one by one: (.*)$", out, re.MULTILINE)[1]
    with open(path, newline="") as file:
        films = list(csv.DictReader(file))
    assert any(film["dice"] for film in films) == has_masks
    status, out, errors = say("report", ["resamples=20", "gallery=1"], tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert ("Page:   none" in out) == (not has_masks)


@pytest.mark.slow
def test_a_set_is_left_out_of_a_training_on_several_and_judged(phantoms, tmp_path, monkeypatch):
    """Leave-one-set-out: what is trained on the other sets is judged on the one left out."""
    typed = ["data=several", "data.leave_out=candid", "+data.shares.coco=0.7"]
    typed.append("+data.shares.ptx498=0.3")
    for layout in (Layout.candid, Layout.coco, Layout.ptx498):
        format_, _, *places = layouts.lay_out(layout, phantoms, tmp_path / layout.name)
        pairs = [f"format:{format_.removeprefix('data=')}"]
        pairs += [re.sub(r"data\.(\w+)=(.*)", r"\1:'\2'", one) for one in places]
        typed.append(f"+data.sets.{layout.name}={{{','.join(pairs)}}}")
    trained = launch(tmp_path, "+experiment=exp2", *typed, *SMALL)
    assert trained.returncode == 0, trained.stderr
    run = next((tmp_path / "runs").glob("exp2/*/fold0-*"))
    patients = json.loads((run / "parts.json").read_text())["training"].values()
    assert {str(patient).partition(":")[0] for patient in patients} <= {"coco", "ptx498", "None"}
    asked = [f"run={run}", "on=test", "resamples=20", "log.wandb=disabled"]
    status, out, errors = say("evaluate", asked, tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "tube yes" in out  # CANDID-PTX's alone knows of tubes
