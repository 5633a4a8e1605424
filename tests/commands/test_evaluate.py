"""What a user sees of ``python -m pneumo.evaluate``: scores that are those of the masks, honest
thresholds, sweeps.
"""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, complaint, launch, one, say

from pneumo import seals
from pneumo.evaluation import choosing
from pneumo.evaluation.results import Evaluation, Judgement, Scored
from pneumo.inference import maps
from pneumo.masks.histograms import Histograms
from pneumo.masks.settings import Postprocess


@pytest.fixture(scope="module")
def evaluated(finished):
    folder, _ = finished
    done = launch(
        folder,
        "run=runs/exp5/*/*",
        "on=test",
        "tune=optimistic",
        "resamples=50",
        "against=runs/exp5_stage1/*/*",
        module="pneumo.evaluate",
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_everything_a_reader_must_know_is_printed_and_kept(evaluated):
    folder, text = evaluated
    for part in (
        "on test at 64²",
        "declared",
        "halves by patient",
        "OPTIMISTIC",
        "all_empty_dice",
        "95 %",
        "minus runs/exp5_stage1",
        "B-TH 0.75, R-TH 2,048 px",
        "specificity 0.95: sensitivity",
        "PPV, NPV at 5.0% positive",
        "lesion_f1",
        "pointing",
        "sex F",
    ):
        assert part in text
    (path,) = (one(folder, "exp5") / "predictions" / "test" / "evaluations").glob("*.json")
    found = json.loads(path.read_text())
    assert found["sizes"] == [64]
    assert [result["name"] for result in found["results"]] == ["declared", "halves", "optimistic"]
    assert "of the test films themselves" in found["results"][1]["how"]
    assert found["results"][2]["how"].startswith("OPTIMISTIC")
    (declared, *_) = found["results"]
    negatives = found["films"] - found["positives"]
    assert declared["scores"]["all_empty_dice"] == pytest.approx(negatives / found["films"])
    low, high = declared["intervals"]["dice"]
    assert low <= declared["scores"]["dice"] <= high
    with open(path.with_suffix(".csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["result"] == "declared"]
    assert len(rows) == found["films"]
    pointed = [float(row["pointed"]) for row in rows if row["truth_px"] != "0"]
    assert np.mean(pointed) == pytest.approx(declared["scores"]["pointing"], abs=1e-4)
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(
        declared["scores"]["dice"], abs=1e-5
    )


def test_thresholds_and_curve_of_the_validation_films_are_applied_to_the_test_set(evaluated):
    folder, _ = evaluated
    asked = ("run=runs/exp5/*/*", "tune=validation", "resamples=0", "seed=3")
    done = launch(folder, *asked, "on=test", module="pneumo.evaluate")
    assert done.returncode == 0, done.stderr
    assert "chosen on the 6 validation films, applied to these" in done.stdout
    assert "thresholds of the validation films" in done.stdout
    place = one(folder, "exp5") / "predictions"
    written = [json.loads(p.read_text()) for p in (place / "test" / "evaluations").glob("*.json")]
    (found,) = [each for each in written if "tune=validation" in each["command"]]
    assert [result["name"] for result in found["results"]] == ["declared", "validation"]
    assert found["calibration"]["films"]["how"] == "fitted on the 6 validation films"
    assert "give on=test or a folder" in complaint(launch(folder, *asked, module="pneumo.evaluate"))


def test_unknown_patients_make_intervals_too_narrow_and_that_is_said(evaluated):
    _, text = evaluated
    assert "too narrow" not in text
    found = Evaluation(**dict.fromkeys(Evaluation.__dataclass_fields__))
    found.films_of_unknown_patient, found.seen_in_training = 1200, 0
    interval = Scored(1200, {"dice": 0.8}, {"dice": (0.79, 0.81)})
    found.results = [Judgement("declared", "", [], interval)]
    (warning,) = found.warnings
    assert warning.startswith("the patients of 1,200 of these films are not known")
    assert "too narrow" in warning


@pytest.mark.slow
def test_several_runs_on_both_sides_are_two_methods(evaluated, tmp_path):
    folder, text = evaluated
    assert "between these trained networks, not between methods" in text
    for experiment in ("exp5", "exp5_stage1"):
        for seed in (0, 1):
            shutil.copytree(one(folder, experiment), tmp_path / experiment / f"fold0-seed{seed}")
    sides = [
        f"{side}={tmp_path}/{name}/*"
        for side, name in (("run", "exp5"), ("against", "exp5_stage1"))
    ]
    done = launch(
        folder, *sides, "resamples=20", f"runs_dir={folder}/runs", module="pneumo.evaluate"
    )
    assert done.returncode == 0, done.stderr
    assert "6 films, 2 positive" in done.stdout
    assert "the mean of 2 fits, each judged for itself" in done.stdout
    assert "2 fits against 2 between methods" in done.stdout
    (path,) = (folder / "runs" / "joined").rglob("*.json")
    found = json.loads(path.read_text())
    assert found["against"]["fits"] == [2, 2]
    assert found["fits"] == 2
    assert [result["name"] for result in found["results"]] == ["declared"]


def test_a_table_of_spacings_gives_millimetres(evaluated, monkeypatch, tmp_path):
    folder, _ = evaluated
    run = one(folder, "exp5")
    ids = [case.id for case in maps.load(run / "predictions" / "test").cases]
    table = tmp_path / "spacings.csv"
    rows = ["id,spacing,width,height", *(f"{film},2,1024,1024" for film in ids)]
    table.write_text("\n".join(rows))
    low = ("postprocess.binarization_threshold=0.05", "postprocess.removal_threshold=0")
    typed = [f"run={run}", "on=test", "tune=none", "resamples=5", *low, f"spacing={table}"]
    status, out, errors = say("evaluate", typed, folder, monkeypatch)
    assert (status, errors) == (0, "")
    path = re.search(r"In full: (\S+)", out)[1]
    scores = json.loads((folder / path).read_text())["results"][0]["scores"]
    assert scores["hd95_px"] > 0
    assert scores["hd95_mm"] == pytest.approx(2 * scores["hd95_px"])


def test_a_sweep_reads_predictions_and_ends_with_table_and_plot(evaluated):
    folder, _ = evaluated
    path = one(folder, "exp5") / "predictions" / "test" / "plain.npy"
    before = path.stat().st_mtime_ns
    # -m between the settings, as people type it
    done = launch(
        folder,
        "run=runs/exp5/*/*",
        "on=test",
        "-m",
        "postprocess.binarization_threshold=0.3,0.5,0.7",
        module="pneumo.evaluate",
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mtime_ns == before
    (table,) = (folder / "runs" / "sweeps").glob("*/sweep.csv")
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["postprocess.binarization_threshold"] for row in rows] == ["0.3", "0.5", "0.7"]
    part = maps.load(path.parent)
    for row in rows:
        rule = Postprocess(float(row["postprocess.binarization_threshold"]), 2048)
        assert float(row["dice"]) == pytest.approx(
            choosing.outcomes([part], rule, True).dice.mean()
        )
    page = (table.parent / "sweep.html").read_text()
    assert "sensitivity" in page
    assert 'src="http' not in page
    for text in (done.stdout, page, table.read_text()):
        assert "To take the best of a sweep is to choose on the films that are scored" in text


@pytest.mark.slow
def test_folds_of_a_cross_validation_are_judged_as_one(tmp_path):
    """Two folds trained, joined by evaluate and by the report: every film once, thresholds of the
    other fold.
    """
    small = [
        one for one in TINY if not one.startswith(("split", "epochs", "averaging", "data.images"))
    ]
    done = launch(
        tmp_path,
        "-m",
        "+experiment=exp2",
        "split=kfold5",
        "fold=0,1",
        *small,
        "epochs=2",
        "averaging=none",
        "data.images=40",
    )
    assert done.returncode == 0, done.stderr
    folds = ("run=runs/exp2/*/*", "blend=folds", "resamples=20")
    done = launch(tmp_path, *folds, module="pneumo.evaluate")
    assert done.returncode == 0, done.stderr
    assert "out of fold, 2 folds" in done.stdout
    (path,) = (tmp_path / "runs" / "joined").rglob("*.json")
    found = json.loads(path.read_text())
    folders = sorted((tmp_path / "runs" / "exp2").glob("*/*"))
    ids = [set(json.loads((folder / "parts.json").read_text())["validation"]) for folder in folders]
    assert len(ids) == 2
    assert not ids[0] & ids[1]
    assert found["films"] == len(ids[0] | ids[1])
    assert found["seen_in_training"] == 0
    mean = ("run=runs/exp2/*/*", "blend=mean", "on=test", "tune=validation", "resamples=0")
    done = launch(tmp_path, *mean, module="pneumo.evaluate")
    assert done.returncode == 0, done.stderr
    assert f"chosen on the {found['films']} validation films" in done.stdout
    done = launch(tmp_path, "resamples=20", module="pneumo.report")
    assert done.returncode == 0, done.stderr
    assert "2 folds as one" in done.stdout
    assert " ± " in done.stdout


def test_histograms_are_counted_once_and_damage_is_mended(evaluated):
    folder, _ = evaluated
    place = one(folder, "exp5") / "predictions" / "test"
    before = maps.load(place).histograms(True)
    (place / "histograms.npz").write_bytes(b"nonsense")
    again = maps.load(place).histograms(True)
    assert np.array_equal(before.inside, again.inside)
    assert isinstance(again, Histograms)


@pytest.mark.slow
def test_weights_and_biases_gets_scores_and_sweeps_and_stops_nothing(evaluated):
    folder, _ = evaluated
    offline = {"WANDB_MODE": "offline"}
    rule = "postprocess.binarization_threshold=0.2,0.4"
    done = launch(
        folder,
        "-m",
        "run=runs/exp5/*/*",
        "on=test",
        rule,
        "log.wandb=offline",
        module="pneumo.evaluate",
        env=offline,
    )
    assert done.returncode == 0, done.stderr
    (record,) = (folder / "runs" / "sweeps").glob("*/wandb/offline-run-*/*.wandb")
    tables = [path.read_text() for path in record.parent.rglob("*.table.json")]
    assert any("binarization_threshold" in table and '"0.4"' in table for table in tables)
    broken = {"WANDB_MODE": "online", "WANDB_API_KEY": "x", "WANDB_BASE_URL": "nonsense"}
    done = launch(
        folder, "run=runs/exp5/*/*", "on=test", "resamples=0", module="pneumo.evaluate", env=broken
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Weights & Biases") == 1


def test_maps_of_older_versions_are_told_of_sex_age_and_spacing_without_being_made_anew(evaluated):
    folder, _ = evaluated
    place = one(folder, "exp5") / "predictions" / "test"
    contents = seals.read_json(place / "contents.json")
    assert {film["sex"] for film in contents["films"]} <= {"F", "M"}
    old = {key: value for key, value in contents.items() if key != "told"}
    new = ("sex", "age", "spacing")
    old["films"] = [{k: film[k] for k in film if k not in new} for film in contents["films"]]
    (place / "contents.json").write_text(json.dumps(old))
    before = (place / "plain.npy").stat().st_mtime_ns
    done = launch(folder, "run=runs/exp5/*/*", "on=test", "resamples=0", module="pneumo.evaluate")
    assert done.returncode == 0, done.stderr
    assert (place / "plain.npy").stat().st_mtime_ns == before
    assert seals.read_json(place / "contents.json") == contents


ELSEWHERE = ("data=phantom", "data.images=12", "data.seed=9", "resamples=20", "log.wandb=disabled")


def judged_elsewhere(folder, monkeypatch, *arguments):
    """What ``evaluate`` wrote of another data set, and what it said."""
    status, said, errors = say("evaluate", list(arguments), folder, monkeypatch)
    assert status == 0, errors
    path = Path(re.search(r"^In full: (.*)$", said, re.MULTILINE)[1])
    return json.loads((folder / path).read_text()), said


def test_a_bundle_is_judged_on_another_data_set_as_it_is(model, tmp_path, monkeypatch):
    found, said = judged_elsewhere(tmp_path, monkeypatch, f"model={model}", *ELSEWHERE)
    card = seals.read_json(model / "card.json")
    (result,) = found["results"]  # no thresholds are chosen from these films
    assert result["rules"] == [card["postprocess"]]
    assert (found["films"], found["seen_in_training"], found["excluded"]) == (12, 0, 0)
    drop = found["drops"]["dice"]
    assert drop["internal"] == card["scores"]["scores"]["dice"]
    assert drop["external"] == result["scores"]["dice"]
    assert "as the bundle stores it" in found["calibration"]["films"]["how"]
    assert "Against its internal validation (6 films, as the bundle states it)" in said
    assert "phantom at 64²" in said


@pytest.mark.slow
def test_films_of_the_training_are_counted_and_left_out_when_asked(model, tmp_path, monkeypatch):
    same = ("data=phantom", "data.images=24", "data.seed=3", "data.positive_rate=0.34")
    asked = (f"model={model}", *same, *ELSEWHERE[3:])
    found, said = judged_elsewhere(tmp_path, monkeypatch, *asked)
    assert (found["films"], found["seen_in_training"]) == (24, 18)
    assert "18 of these films were in the training data" in said
    found, said = judged_elsewhere(tmp_path, monkeypatch, *asked, "seen=exclude")
    assert (found["films"], found["excluded"], found["seen_in_training"]) == (6, 18, 0)
    assert "18 films of this set were left out" in said


@pytest.mark.slow
def test_runs_are_judged_on_another_data_set_against_their_own_validation(evaluated, monkeypatch):
    folder, _ = evaluated
    found, _ = judged_elsewhere(folder, monkeypatch, "run=runs/exp5/*/*", *ELSEWHERE)
    assert found["internal"]["films"] == 6
    assert set(found["drops"]) >= {"dice", "roc_auc"}
    assert found["calibration"]["films"]["how"] == "fitted on the 6 validation films"
    assert "data=phantom data.images=12 data.seed=9" in found["command"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ((), "say which films it is judged on"),
        (("data=phantom", "run=x"), "model and run are both set"),
        (("data=phantom", "on=test"), "on=test and data=phantom: choose one"),
        (("data=phantom", "tune=validation"), "no validation films to choose on"),
        (("data=phantom", "mask_size=film"), "with data= say data.mask_size=…"),
        (("data=xray",), "data=xray: no such choice; choose one of"),
        (("data=folder", "data.root=x", "data.masks=y"), "data.root=x: no such file or folder"),
    ],
)
def test_a_bundle_and_a_data_set_that_do_not_go_together(model, tmp_path, monkeypatch, typed, told):
    status, _, errors = say("evaluate", [f"model={model}", *typed], tmp_path, monkeypatch)
    assert status == 1
    assert told in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_a_bundle_without_tta_is_judged_without_it_shapes_included(model, tmp_path, monkeypatch):
    plain = tmp_path / "plain"
    shutil.copytree(model, plain)
    card = seals.read_json(plain / "card.json")
    (plain / "card.json").write_text(json.dumps({**card, "tta": False}))
    loose = "postprocess.binarization_threshold=0.45"  # so that there is something to measure
    asked = (f"model={plain}", loose, *ELSEWHERE)
    found, _ = judged_elsewhere(tmp_path, monkeypatch, *asked)
    typed, _ = judged_elsewhere(tmp_path, monkeypatch, *asked, "tta=false")
    assert found["tta"] is False
    assert found["results"][0]["scores"]["lesion_false"] > 0
    assert found["results"] == typed["results"]
