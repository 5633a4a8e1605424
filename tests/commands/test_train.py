"""What a user sees of ``python -m pneumo.train``: runs, resumption, hand-off, sweeps, mistakes."""

import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import TINY, complaint, launch, one
from safetensors.torch import load_file

from pneumo import runs, seals
from pneumo.inference import maps
from pneumo.training.weights import read_card

A_KERNEL = "encoder.model.layer1.0.conv1.weight"


def test_a_finished_experiment_leaves_what_it_should(finished):
    folder, done = finished
    child, parent = one(folder, "exp5"), one(folder, "exp5_stage1")
    for path in (child, parent):
        names = {entry.name for entry in path.iterdir()}
        assert {
            "config.yaml",
            "weights.safetensors",
            "last.ckpt",
            "metrics.csv",
            "metrics.json",
            "pictures",
            "train.log",
        } <= names
        assert (path / "pictures" / "final.png").is_file()
        assert not [name for name in names if "partial" in name]
    scores = json.loads((child / "metrics.json").read_text())
    assert {"dice", "dice_positive", "iou", "sensitivity", "specificity", "all_empty_dice"} <= set(
        scores
    )
    record = yaml.safe_load((child / "config.yaml").read_text())
    assert record["parent"]["path"] == str((parent / "weights.safetensors").relative_to(folder))
    import hashlib

    assert (
        record["parent"]["sha256"]
        == hashlib.sha256((parent / "weights.safetensors").read_bytes()).hexdigest()
    )
    assert record["data"]["validation_positives_sharing_a_patient"] == 0
    assert "0.0% of validation positives have a patient in training" in done.stdout
    assert "exp5_stage1" in done.stdout
    assert "all-empty" in done.stdout
    assert "Next: " in done.stdout


def test_metrics_csv_has_a_row_an_epoch_and_the_cosine(finished):
    with open(one(finished[0], "exp5") / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert [float(row["lr"]) for row in rows] == pytest.approx(
        [1e-3 * (1 + torch.cos(torch.tensor(torch.pi * t / 4)).item()) / 2 for t in range(4)]
    )
    assert all(float(row["val/iou"]) >= 0 for row in rows)


def test_weights_are_the_average_validated_and_described(finished):

    path = one(finished[0], "exp5")
    card = read_card(path / "weights.safetensors")
    assert card["weights"] == "average of 2 epochs"
    assert (
        card["experiment"],
        card["input"]["size"],
        card["postprocess"]["binarization_threshold"],
    ) == (
        "exp5",
        64,
        0.75,
    )
    scores = json.loads((path / "metrics.json").read_text())
    beside = ("seal", runs.HISTORY_SHA256, "weights", "train_seconds", "device")
    assert card["validation"] == {key: scores[key] for key in scores if key not in beside}
    checkpoint = torch.load(path / "last.ckpt", weights_only=True)
    (state,) = (state for state in checkpoint["callbacks"].values() if "averaged_epochs" in state)
    assert state["averaged_epochs"] == [2, 3]
    weights = load_file(path / "weights.safetensors")
    assert all(
        torch.equal(weights[key.removeprefix("network.")], value)
        for key, value in state["mean"].items()
    )
    assert not torch.equal(weights[A_KERNEL], checkpoint["state_dict"]["network." + A_KERNEL])


@pytest.mark.slow
def test_the_child_starts_from_its_parent(finished, tmp_path):
    """Trained with a learning rate of nothing, the child is its parent."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    done = launch(tmp_path, "+experiment=exp5", *TINY, "lr=1e-12")
    assert done.returncode == 0, done.stderr
    assert "exp5_stage1: finished before" in done.stdout
    (path,) = (tmp_path / "runs" / "exp5").glob("*/*lr_1e-12*")
    ours, parents = (
        load_file(where / "weights.safetensors") for where in (path, one(tmp_path, "exp5_stage1"))
    )
    assert torch.allclose(ours[A_KERNEL], parents[A_KERNEL], atol=1e-8)


@pytest.mark.slow
def test_a_division_by_other_code_is_kept_by_the_run_and_its_children(finished, tmp_path):
    """A parent whose division today's code would not deal, its child, and that child stopped."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    parent, child = one(tmp_path, "exp5_stage1"), one(tmp_path, "exp5")
    shutil.rmtree(child)
    parts = seals.read_json(parent / "parts.json")
    films = parts["training"] | parts["validation"]
    held = sorted(parts["training"])[:6]
    other = {
        "training": {image: films[image] for image in sorted(films) if image not in held},
        "validation": {image: films[image] for image in held},
    }
    (parent / "parts.json").write_text(json.dumps(other))
    for _ in ("fresh", "stopped before its scores were written"):
        done = launch(tmp_path, "+experiment=exp5", *TINY)
        assert done.returncode == 0, done.stderr
        assert seals.read_json(child / "parts.json") == other
        (child / "metrics.json").rename(child / "scores.json")
    assert "epoch 1/4" not in done.stdout.split("exp5:")[-1]
    (child / "scores.json").rename(child / "metrics.json")
    done = launch(tmp_path, f"run={child}", "on=val", module="pneumo.predict")
    assert done.returncode == 0, done.stderr
    assert sorted(maps.load(child / "predictions" / "val").ids) == held


@pytest.mark.slow
def test_weights_trained_on_validation_films_are_no_start(finished, tmp_path):
    """Of its parent's films one is gone, so the child cannot be divided as its parent was."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    shutil.rmtree(one(tmp_path, "exp5"))
    parent = one(tmp_path, "exp5_stage1")
    parts = seals.read_json(parent / "parts.json")
    moved = {**parts["training"], **parts["validation"]}
    changed = {"training": moved, "validation": {"gone": None}}
    (parent / "parts.json").write_text(json.dumps(changed))
    line = complaint(launch(tmp_path, "+experiment=exp5", *TINY))
    assert "weights.safetensors: trained on 6 of the 6 validation films" in line
    assert "split.seed" in line
    assert not list((tmp_path / "runs" / "exp5").rglob("config.yaml"))


def test_a_finished_run_is_reported_not_repeated(finished):
    folder, _ = finished
    before = one(folder, "exp5").joinpath("weights.safetensors").stat().st_mtime_ns
    done = launch(folder, "+experiment=exp5", *TINY)
    assert done.returncode == 0
    assert "exp5: finished before" in done.stdout
    assert one(folder, "exp5").joinpath("weights.safetensors").stat().st_mtime_ns == before


def test_other_settings_are_kept_apart_or_refused(finished):
    folder, _ = finished
    tag = one(folder, "exp5").parent.name.removeprefix("phantom-mini-")
    variant = one(folder, "exp5").name.removeprefix("fold0-seed0-")
    line = complaint(
        launch(folder, "+experiment=exp5", *TINY, "lr=0.5", f"tag={tag}", f"variant={variant}")
    )
    assert "other settings" in line
    assert "lr: 0.001 → 0.5" in line
    assert "tag=" in line


def kill_after(folder, *lines, arguments):
    """Start a training and kill it once it has printed these lines, in this order."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pneumo.train", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    for wanted in lines:
        assert any(wanted in line for line in process.stdout)
    time.sleep(0.5)  # so that it is in the midst of something
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_killed_in_the_averaging_epochs_and_run_again_gives_the_same_weights(finished, tmp_path):
    arguments = ("+experiment=exp5", *TINY)
    kill_after(
        tmp_path, "exp5:", "epoch 3/4", arguments=arguments
    )  # the first of the two averaged epochs is done
    assert not (one(tmp_path, "exp5") / "metrics.json").exists()
    again = launch(tmp_path, *arguments)
    assert again.returncode == 0, again.stderr
    assert "exp5_stage1: finished before" in again.stdout
    assert "epoch 1/4" not in again.stdout.split("exp5:")[1]
    for experiment in ("exp5_stage1", "exp5"):
        whole, resumed = (
            load_file(one(folder, experiment) / "weights.safetensors")
            for folder in (finished[0], tmp_path)
        )
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
        rows = [
            (one(folder, experiment) / "metrics.csv").read_text()
            for folder in (finished[0], tmp_path)
        ]
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_plateau_goes_on_where_it_was(finished, tmp_path):
    """Nothing counts as better, so each epoch after the second divides the rate by five; a stop
    changes nothing.
    """
    shutil.copytree(finished[0] / "runs" / "phantom", tmp_path / "runs" / "phantom")
    own = (
        "scheduler=plateau",
        "scheduler.patience=1",
        "scheduler.min_delta=10",
        "epochs=5",
        "averaging=none",
    )
    arguments = (
        "+experiment=exp2",
        *(a for a in TINY if not a.startswith(("epochs", "averaging"))),
        *own,
    )
    kill_after(tmp_path, "epoch 3/5", arguments=arguments)
    done = launch(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/5" not in done.stdout
    with open(one(tmp_path, "exp2") / "metrics.csv", newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == pytest.approx(
            [1e-3, 1e-3, 2e-4, 4e-5, 8e-6]
        )


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_leaves_nothing_half_written(finished, tmp_path):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "exp5")
    process = subprocess.Popen(
        [sys.executable, "-m", "pneumo.train", "+experiment=exp5", *TINY, "epochs=400"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs, and so their children, ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stdout:
        if "epoch 1/400" in line:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "stopped" in errors
    assert not list((tmp_path / "runs").rglob("*partial*"))


@pytest.mark.slow
def test_a_sweep_trains_a_shared_parent_once_and_ends_with_all_scores(tmp_path):
    arguments = (
        "-m",
        "+experiment=exp1,exp2,exp3,exp4,exp5",
        *(a for a in TINY if not a.startswith(("averaging", "split", "epochs", "batch_size"))),
    )
    done = launch(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.rindex("all-empty  ") :]
    assert [line.split()[0] for line in table.splitlines()[1:6]] == [
        "exp1",
        "exp2",
        "exp3",
        "exp4",
        "exp5",
    ]
    assert done.stdout.count("\nexp2: ") == 2
    assert done.stdout.count("exp2: finished before") == 1
    again = launch(tmp_path, *arguments)
    assert again.returncode == 0
    assert "Nothing was trained" in again.stdout
    assert "epoch 1/" not in again.stdout


def test_a_failed_job_does_not_stop_the_sweep(finished, tmp_path):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    done = launch(tmp_path, "-m", "+experiment=exp5", "seed=-1,0", *TINY)
    assert done.returncode == 1
    assert "seed=-1" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\nexp5 " in done.stdout.split("all-empty")[-1]


@pytest.mark.slow
def test_two_commands_at_once_train_the_parent_once(finished, tmp_path):
    shutil.copytree(finished[0] / "runs" / "phantom", tmp_path / "runs" / "phantom")
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "pneumo.train", "+experiment=exp5", *TINY, f"lr={rate}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rate in (1e-3, 1e-4)
    ]
    outputs = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(output.count("\nexp5_stage1: 32²") for output in outputs) == 1, outputs
    assert sum(output.count("exp5_stage1: finished before") for output in outputs) == 1, outputs


@pytest.mark.slow
def test_encoder_weights_that_cannot_be_had_are_one_line(finished, tmp_path):
    """Neither from the hub, which cannot be reached, nor from a file that is not there."""
    shutil.copytree(finished[0] / "runs" / "phantom", tmp_path / "runs" / "phantom")
    for weights, advice in (("imagenet", "model.encoder_weights=none"), ("/absent.pth", "no such")):
        own = f"model.encoder_weights={weights}"
        assert advice in complaint(launch(tmp_path, "+experiment=exp2", *TINY, own))


@pytest.mark.slow
def test_a_damaged_parent_or_checkpoint_is_one_line(finished, tmp_path):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    child = one(tmp_path, "exp5")
    (child / "metrics.json").unlink()
    checkpoint = child / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100_000])
    line = complaint(launch(tmp_path, "+experiment=exp5", *TINY))
    assert "last.ckpt: damaged; delete it" in line
    shutil.rmtree(child)
    weights = one(tmp_path, "exp5_stage1") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    line = complaint(launch(tmp_path, "+experiment=exp5", *TINY))
    assert "weights.safetensors: damaged" in line


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(finished, tmp_path):
    """Files may grow to 4 MB here: films and caches fit, a checkpoint does not."""
    shutil.copytree(finished[0] / "runs" / "phantom", tmp_path / "runs" / "phantom")
    limit = 4_000_000
    assert (one(finished[0], "exp5") / "last.ckpt").stat().st_size > limit
    done = launch(
        tmp_path,
        "+experiment=exp2",
        *TINY,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert "disk is full" in complaint(done)
    assert not [
        path
        for path in one(tmp_path, "exp2").rglob("*")
        if path.suffix in (".ckpt", ".partial", ".safetensors")
    ]


@pytest.mark.parametrize(
    "arguments", [("--help",), ("+experiment=exp5", "--cfg", "job", "--resolve")]
)
def test_help_and_configuration_need_no_data_and_no_parent(tmp_path, arguments):
    done = launch(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert (
        "+experiment=exp5" in done.stdout
        or "runs/exp5_stage1/siim-full/fold0-seed0/weights.safetensors" in done.stdout
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_weights_and_biases_offline_and_broken(finished, tmp_path):
    """Not logged in: recorded offline with one line. Broken: one line, and the training goes on.

    Films that are not drawn do not leave the machine unasked, nor do its paths.
    """
    shutil.copytree(finished[0] / "runs" / "phantom", tmp_path / "runs" / "phantom")
    short = (
        *(a for a in TINY if not a.startswith(("epochs", "averaging"))),
        "epochs=2",
        "averaging.epochs=1",
    )
    (films,) = (tmp_path / "runs" / "phantom").glob("24-*")
    real = ("data=siim", f"data.root={films}", f"data.annotations={films}/train-rle.csv")
    offline = launch(
        tmp_path,
        "+experiment=exp2",
        *real,
        *short[3:],
        "log.tags=[trial]",
        env={
            "WANDB_MODE": None,
            "WANDB_API_KEY": None,
            "NETRC": "/dev/null",
            "HOME": str(tmp_path),
        },
    )
    assert offline.returncode == 0, offline.stderr
    assert offline.stdout.count("Weights & Biases") == 1
    assert "offline" in offline.stdout
    recorded = one(tmp_path, "exp2") / "wandb"
    (kept,) = recorded.glob("offline-run-*/*.wandb")
    assert b"trial" in kept.read_bytes()
    assert str(tmp_path).encode() not in kept.read_bytes()
    assert not list(recorded.rglob("*.png"))
    broken = launch(
        tmp_path,
        "+experiment=exp2",
        *short,
        "seed=1",
        env={"WANDB_MODE": "online", "WANDB_API_KEY": "x", "WANDB_BASE_URL": "nonsense"},
    )
    assert broken.returncode == 0, broken.stderr
    assert "Weights & Biases cannot be reached, so recorded offline" in broken.stdout


CHOICES = {
    "lightning's averaging": ("averaging=lightning", "averaging.epochs=2"),
    "best epoch": ("handoff.source=best",),
    "last epoch, third fold": ("handoff.source=last", "split=kfold5", "fold=2"),
    "no averaging, plateau": ("averaging=none", "scheduler=plateau"),
    "light network": ("model=unet_lite0", "model.encoder=tu-tf_efficientnet_lite0"),
    "constant rate, no augmentation, workers": (
        "scheduler=constant",
        "augmentation=none",
        "machine.workers=2",
    ),
    "positives with fewer and fewer negatives, two workers": (
        "sampling=linear",
        "sampling.start=0.2",
        "sampling.end=0.8",
        "scheduler=onecycle",
        "machine.workers=2",
    ),
    "two processes": ("machine.devices=2", "machine.accelerator=cpu"),
    "components, split by image": (
        "postprocess.removal=component",
        "split.group=image",
        "log.tensorboard=false",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_every_choice_trains(finished, tmp_path, choice):
    shutil.copytree(finished[0] / "runs" / "phantom", tmp_path / "runs" / "phantom")
    short = [argument for argument in TINY if not argument.startswith(("epochs", "averaging"))]
    short += (
        ["epochs=3"] if choice[0].startswith("averaging") else ["epochs=3", "averaging.epochs=2"]
    )
    done = launch(tmp_path, "+experiment=exp2", *short, *choice)
    assert done.returncode == 0, done.stderr
    scores = json.loads((one(tmp_path, "exp2") / "metrics.json").read_text())
    assert 0 <= scores["dice"] <= 1
    kept = {
        "handoff.source=best": "best epoch by dice_positive",
        "handoff.source=last": "last epoch",
        "averaging=none": "last epoch",
    }
    assert scores["weights"] == kept.get(choice[0], "average of 2 epochs")
    if choice[0] == "handoff.source=best":
        with open(one(tmp_path, "exp2") / "metrics.csv", newline="") as file:
            epochs = [float(row["val/dice_positive"]) for row in csv.DictReader(file)]
        assert scores["dice_positive"] == pytest.approx(max(epochs), abs=1e-4)


@pytest.mark.slow
def test_exp5_in_miniature_learns(tmp_path):
    """The README's command: positive-only Dice of at least .5 on unseen phantoms."""
    done = launch(tmp_path, "+experiment=exp5", "data=phantom", "scale=mini")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "runs/exp5/phantom-mini/fold0-seed0/metrics.json").read_text())
    assert scores["dice_positive"] >= 0.5
    assert scores["dice"] > scores["all_empty_dice"]


@pytest.mark.slow
def test_real_films_train_both_stages(real_data, tmp_path):
    siim = real_data / "siim"
    where = (
        f"data.root={siim}",
        f"data.annotations={siim}/stage_2_train.csv.gz",
        f"data.patients={siim}/nih_id.csv",
    )
    done = launch(
        tmp_path, "+experiment=exp5", "data=siim", "data.on_missing=skip", *where, "scale=mini"
    )
    assert done.returncode == 0, done.stderr
    assert "11,976" in done.stdout
    assert "0.0% of validation positives have a patient in training" in done.stdout
    assert (tmp_path / "runs/exp5/siim-mini/fold0-seed0/weights.safetensors").is_file()
