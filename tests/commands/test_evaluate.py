"""What a user sees of ``python -m pneumo.evaluate``: scores that are those of the masks, honest
thresholds, sweeps.
"""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import TINY, complaint, launch, one

from pneumo.errors import PneumoError
from pneumo.evaluation import bundling, choosing, shapes
from pneumo.evaluation.results import Comparison, Evaluation, Judgement, Scored
from pneumo.evaluation.settings import Measures, Tune
from pneumo.inference import maps
from pneumo.inference.maps import Case
from pneumo.masks.histograms import Histograms
from pneumo.masks.rule import to_mask
from pneumo.masks.settings import Postprocess, Removal


def synthetic(folder, name, films=40, noise=0.15, first=0, dimmed=(), unlabelled=()):
    """Predictions at 32² of films whose truth is a square of 256 or 512 pixels at 1024² to a side,
    or nothing.
    """
    rng = np.random.default_rng([first, films])
    levels, cases = np.zeros((films, 32, 32), np.uint8), []
    for film in range(films):
        side, corner = (8, 16)[film % 2], int(rng.integers(0, 16))
        annotations = []
        if film % 4:
            levels[film, corner : corner + side, corner : corner + side] = 150
            start, length = corner * 32, side * 32
            gap = start * 1024 + start
            annotations = [
                f"{gap} {length} "
                + " ".join(f"{1024 - length} {length}" for _ in range(length - 1))
            ]
        levels[film] = np.clip(levels[film] + rng.normal(40, 255 * noise, (32, 32)), 0, 255)
        if str(first + film) in dimmed:
            levels[film] //= 3
        if str(first + film) in unlabelled:
            annotations = None
        cases.append(
            Case(
                str(first + film),
                "",
                annotations,
                (1024, 1024),
                None,
                f"p{(first + film) // 2}",
                ("AP", "PA")[film % 2],
            )
        )

    def fill(plain, flip, begin):
        plain[:], flip[:] = levels, levels
        yield films

    facts = {"run": name}
    return maps.write(folder / name, name, cases, 32, fill, facts)


def test_scores_are_those_of_the_masks(tmp_path):
    part = synthetic(tmp_path, "a")
    rules = [
        Postprocess(0.5, 2048),
        Postprocess(0.3, 60_000, top_threshold=0.6),
        Postprocess(0.4, 5000, removal=Removal.component),
        Postprocess(0.4, 0, contour_area=3000.0, fill_holes=True),
    ]
    for rule in rules:
        found = choosing.outcomes([part], rule, tta=True)
        for row, case in enumerate(part.cases):
            mask, truth = to_mask(part.map(row, True), rule), case.mask()
            assert (found.predicted[row], found.truth[row], found.overlap[row]) == (
                mask.sum(),
                truth.sum(),
                (mask & truth).sum(),
            )


def test_shapes_are_those_of_the_masks_and_millimetres_those_of_the_film(tmp_path):
    part = synthetic(tmp_path, "a", films=8)
    part.cases[1].spacing = (0.5, 0.5)
    rule, how = Postprocess(0.5, 2048), Measures()
    found, candidates = shapes.measure([part], rule, True, how)
    known = choosing.outcomes([part], rule, True)
    assert np.array_equal(candidates.lesions, known.positive)  # one square a positive film
    assert np.array_equal(found.hits + found.missed, candidates.lesions)
    assert np.array_equal(np.isnan(found.hd95_px), (known.overlap == 0) & ~known.positive)
    assert found.hd95_mm[1] == pytest.approx(found.hd95_px[1] / 2)
    assert np.isfinite(found.hd95_mm).sum() == 1
    removed = shapes.measure([part], Postprocess(0.5, 2**20), True, how)[0]
    assert removed.hits.sum() == 0
    assert np.array_equal(removed.nsd_px == 0, known.positive)
    assert np.isnan(removed.nsd_px[~known.positive]).all()


def test_thresholds_are_chosen_on_other_films_than_they_are_scored_on(tmp_path):
    """Damage to the films of one half must change the thresholds of the other half only."""
    part = synthetic(tmp_path, "a")
    rule = Postprocess(0.9, 2048)
    declared, tuned, optimistic = choosing.judge([part], rule, True, Tune.optimistic)
    assert (
        declared.outcomes.dice.mean()
        < tuned.outcomes.dice.mean()
        <= optimistic.outcomes.dice.mean() + 1e-9
    )
    assert len(tuned.rules) == 2
    assert sorted(tuned.outcomes.ids) == sorted(part.ids)
    patients = {
        name: {i % 2 for i, p in enumerate(tuned.outcomes.patients) if p == name}
        for name in tuned.outcomes.patients
    }
    assert len(patients) == 20
    first = len(tuned.outcomes) - 20
    ids = set(tuned.outcomes.ids[:first])
    halves = [
        {tuned.outcomes.patients[i] for i in part}
        for part in (range(first), range(first, len(tuned.outcomes)))
    ]
    assert not halves[0] & halves[1]
    worse = synthetic(tmp_path, "b", dimmed=ids)
    (_, again) = choosing.judge([worse], rule, True, Tune.honest)
    assert again.rules[0] == tuned.rules[0]
    assert again.rules[1] != tuned.rules[1]
    assert "OPTIMISTIC" in optimistic.how
    assert "halves by patient" in tuned.how


def test_thresholds_chosen_beforehand_know_nothing_of_the_films_they_are_scored_on(tmp_path):
    validation = synthetic(tmp_path, "v", first=100)
    rule = Postprocess(0.9, 2048)
    chosen = []
    for name, dimmed in (("a", ()), ("b", [str(i) for i in range(20)])):
        part = synthetic(tmp_path, name, dimmed=dimmed)
        result = choosing.beforehand([part], [validation], rule, True)
        chosen += result.rules
        assert "40 validation films" in result.how
        assert result.outcomes.ids == part.ids
    assert chosen[0] == chosen[1] == choosing.search([validation], np.arange(40), rule, True)


def test_folds_are_scored_with_thresholds_of_the_other_folds(tmp_path):
    parts = [
        synthetic(tmp_path, name, first=first) for name, first in (("a", 0), ("b", 100), ("c", 200))
    ]
    rule = Postprocess(0.9, 0)
    _, tuned = choosing.judge(parts, rule, True, Tune.honest)
    assert len(tuned.rules) == 3
    assert "other folds" in tuned.how
    rows = np.arange(40, 120)
    assert tuned.rules[0] == choosing.search(parts, rows, rule, True)
    assert tuned.outcomes.ids == [image for part in parts for image in part.ids]


@pytest.mark.parametrize(
    "rule",
    [Postprocess(0.9, 0, top_threshold=0.95), Postprocess(0.9, 0, removal=Removal.component)],
    ids=str,
)
def test_triplets_and_components_are_tuned_too(tmp_path, rule):
    part = synthetic(tmp_path, "a", films=16)
    declared, tuned = choosing.judge([part], rule, True, Tune.honest)
    assert tuned.outcomes.dice.mean() > declared.outcomes.dice.mean()
    assert all(
        chosen.removal is rule.removal
        and (chosen.top_threshold is None) == (rule.top_threshold is None)
        for chosen in tuned.rules
    )


def test_films_without_truth_are_not_scored(tmp_path):
    part = synthetic(tmp_path, "a", films=4, unlabelled=("2",))
    with pytest.raises(PneumoError, match="annotations="):
        choosing.outcomes([part], Postprocess(), True)


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


def test_films_of_one_patient_are_scored_but_choose_no_thresholds(tmp_path, caplog):
    part = synthetic(tmp_path, "a", films=2)
    assert [result.name for result in choosing.judge([part], Postprocess(), True, Tune.honest)] == [
        "declared"
    ]
    assert "No thresholds were chosen" in caplog.text


def test_runs_judged_by_different_truths_are_not_compared(tmp_path):
    part, other = synthetic(tmp_path, "a", films=8), synthetic(tmp_path, "b", films=8, first=0)
    ours = choosing.outcomes([part], Postprocess(), True)
    theirs = choosing.outcomes([other], Postprocess(), True)
    assert choosing.compare(ours, theirs, 10, 0)["dice"].mean == 0
    theirs.truth[3] += 1
    with pytest.raises(PneumoError, match="different truths"):
        choosing.compare(ours, theirs, 10, 0)


def test_films_without_pneumothorax_have_no_score_of_positives_and_no_p(tmp_path):
    part = synthetic(tmp_path, "a", films=8)
    ours = choosing.outcomes([part], Postprocess(), True)
    negatives = ours[np.flatnonzero(~ours.positive)]
    gaps = Comparison("other", choosing.compare(negatives, negatives, 10, 0)).to_dict()
    assert gaps["dice_positive"] == {"mean": None, "low": None, "high": None, "p": None}
    found = choosing.Result("declared", "", [Postprocess()], negatives).judgement(10, 0).to_dict()
    json.dumps([gaps, found], allow_nan=False)
    assert found["scores"]["dice_positive"] is None
    assert "dice_positive" not in found["intervals"]


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


def test_a_bundle_s_curve_is_kept_where_it_did_better_on_films_it_was_not_fitted_on(tmp_path):
    asked = SimpleNamespace(tta=True, resamples=0, seed=0)
    part = synthetic(tmp_path, "a", films=80)
    sure = bundling._calibration([part], Postprocess(0.5, 2048), asked)
    assert sure["out_of_fold"]["brier"] < sure["out_of_fold"]["raw_brier"]
    assert sure["slope"] == pytest.approx(1 / sure["temperature"])
    assert sure["share"] == 0.75
    few = bundling._calibration([synthetic(tmp_path, "b", films=2)], Postprocess(0.5, 2048), asked)
    assert (few["slope"], few["intercept"], few.get("share")) == (1, 0, None)
    assert few["how"] == "not calibrated: too few films"


def test_maps_of_older_versions_are_told_of_sex_age_and_spacing_without_being_made_anew(evaluated):
    folder, _ = evaluated
    place = one(folder, "exp5") / "predictions" / "test"
    contents = json.loads((place / "contents.json").read_text())
    assert {film["sex"] for film in contents["films"]} <= {"F", "M"}
    old = {key: value for key, value in contents.items() if key != "told"}
    new = ("sex", "age", "spacing")
    old["films"] = [{k: film[k] for k in film if k not in new} for film in contents["films"]]
    (place / "contents.json").write_text(json.dumps(old))
    before = (place / "plain.npy").stat().st_mtime_ns
    done = launch(folder, "run=runs/exp5/*/*", "on=test", "resamples=0", module="pneumo.evaluate")
    assert done.returncode == 0, done.stderr
    assert (place / "plain.npy").stat().st_mtime_ns == before
    assert json.loads((place / "contents.json").read_text()) == contents
