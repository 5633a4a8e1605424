import json
import os
import subprocess
import sys
import time
from threading import Thread

import pytest

from pneumo import files, runs, seals
from pneumo.errors import PneumoError
from pneumo.training import record
from pneumo.training.lineage import INCIDENTAL, NAMED, SHARED


def test_paths_are_pure_functions_of_names():
    assert (
        str(runs.path("runs", "exp5", "siim", "full", "", 0, 1))
        == "runs/exp5/siim-full/fold0-seed1"
    )
    assert (
        str(runs.path("runs", "exp5", "siim", "full", "t", 0, 1, "lr_1"))
        == "runs/exp5/siim-full-t/fold0-seed1-lr_1"
    )


def tags(*overrides):
    return runs.tags(overrides, SHARED, NAMED, INCIDENTAL)


def test_settings_apart_from_the_names_set_runs_apart():
    assert tags(
        "+experiment=exp5",
        "data=phantom",
        "scale=mini",
        "fold=1",
        "seed=2",
        "data.root=/x",
        "machine.workers=3",
        "log.wandb=offline",
    ) == (
        "",
        "",
    )
    assert tags("lr=1e-4") == ("", "lr_1e-4")
    assert tags("split.seed=1") == ("split.seed_1", "")  # parent and child share the films
    assert tags("data.images=300") == ("data.images_300", "")  # the parent has these films, too
    assert tags("model=unet_lite0", "averaging=none") == ("model_unet_lite0", "averaging_none")
    long = [
        tags(f"model.encoder_weights=/a/very/long/path/to/some/{name}.safetensors")[0]
        for name in "ab"
    ]
    assert long[0] != long[1]
    assert all(len(tag) <= 40 for tag in long)
    assert tags("averaging.epochs=4", "epochs=2") != tags("averaging.epochs=2", "epochs=4")
    assert tags("scale=mini", "scale.size=0.5") == ("scale.size_0.5", "")
    named = [tags(f"loss.own=module_of_a_long_name.function_{name}")[1] for name in ("one", "two")]
    assert named[0] != named[1]
    many = tags(*(f"loss.{name}=1" for name in "abcdefghijklmnopqrstuvwxyz"))[1]
    assert len(many) <= 120


def test_differences_name_keys_and_leave_machine_and_place_aside():
    old = {"lr": 1, "machine": {"workers": 1}, "data": {"cache": "a", "images": 3}, "runs_dir": "x"}
    new = {"lr": 2, "machine": {"workers": 2}, "data": {"cache": "b", "images": 3}, "runs_dir": "y"}
    assert runs.differences(old, new, INCIDENTAL) == ["lr: 1 → 2"]


def test_damaged_records_are_explained(tmp_path):
    with pytest.raises(PneumoError, match="no run here"):
        record.read(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(PneumoError, match="damaged"):
        record.read(tmp_path)
    (tmp_path / "config.yaml").write_text("hello: 1")
    with pytest.raises(PneumoError, match="no recorded configuration"):
        record.read(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(PneumoError, match="missing or damaged"):
        runs.read_metrics(tmp_path)


def test_what_a_fit_took_is_no_score(tmp_path):
    known = {"dice": 0.5, "iou": None, "weights": "last epoch"}
    (tmp_path / "metrics.json").write_text(
        json.dumps({**known, "train_seconds": 7.5, "device": "cpu"})
    )
    assert runs.scores(tmp_path) == {"dice": 0.5}


def test_a_run_is_finished_once_weights_record_and_scores_are_all_there(tmp_path):
    """The scores are written last; a process may be killed before them."""
    needed = (runs.RECORD, runs.WEIGHTS, runs.METRICS)
    for name in needed:
        assert not runs.is_finished(tmp_path)
        (tmp_path / name).touch()
    assert runs.is_finished(tmp_path)
    for name in needed:
        (tmp_path / name).unlink()
        assert not runs.is_finished(tmp_path)
        with pytest.raises(PneumoError, match=r"not finished|no finished run"):
            runs.find(str(tmp_path))
        (tmp_path / name).touch()


def test_a_folder_that_is_removed_while_it_is_waited_for_is_made_again(tmp_path, caplog):
    held, folder = [], tmp_path / "a"

    def wait():
        with runs.lock(folder):
            held.append(folder.is_dir())

    thread = Thread(target=wait)
    with runs.lock(folder):
        thread.start()
        while "waiting for it to finish" not in caplog.text:
            assert thread.is_alive()
        files.remove_folder(folder)
    thread.join()
    assert held == [True]


def test_a_lock_is_waited_for_and_freed_by_death(tmp_path):
    work = f"with runs.lock(Path({str(tmp_path)!r})):\n print('held', flush=True)\n time.sleep(600)"
    code = "import logging, sys, time\nfrom pathlib import Path\nfrom pneumo import runs\n"
    code += f"logging.basicConfig(stream=sys.stdout, format='%(message)s')\n{work}"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert "another process is working on it" in waiter.stdout.readline()
    holder.kill()
    assert waiter.stdout.readline() == "held\n"
    for process in (holder, waiter):
        process.kill()
        process.wait()
        process.stdout.close()


def test_origin_names_versions():
    versions = record.Origin.now().versions
    assert {"python", "torch", "pytorch-lightning", "opencv-python-headless"} <= set(versions)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PneumoError, match="runs_dir="), runs.lock(tmp_path / "a"):
        time.sleep(0)


def test_files_of_a_finished_run_that_changed_are_named(tmp_path):
    for name in ("metrics.json", "config.yaml", "weights.safetensors"):
        seals.write_json(tmp_path / name, {"dice": 0.5})
    runs.check(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    with pytest.raises(PneumoError, match=r"weights\.safetensors: missing or damaged"):
        runs.check(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(PneumoError, match=r"weights\.safetensors: missing or damaged"):
        runs.check(tmp_path)


def test_a_history_that_changed_is_not_shown(tmp_path):
    assert runs.history(tmp_path) == []
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,val/dice\n0,0.5\n")
    known = {runs.HISTORY_SHA256: files.sha256(path)}
    seals.write_json(tmp_path / "metrics.json", known)
    assert runs.history(tmp_path) == [{"epoch": "0", "val/dice": "0.5"}]
    path.write_text("epoch,val/dice\n0,0.9\n")
    with pytest.raises(PneumoError, match=r"metrics\.csv: damaged"):
        runs.history(tmp_path)
    seals.write_json(tmp_path / "metrics.json", {})  # of an older version
    assert runs.history(tmp_path) == [{"epoch": "0", "val/dice": "0.9"}]
