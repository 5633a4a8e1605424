"""The tables beside the published figures, and the page in a real browser."""

import csv
import json

import numpy as np
import pytest
from conftest import complaint, launch, one, second_reader, slow_but, visited

from pneumo.evaluation import surfaces
from pneumo.inference import maps


@pytest.fixture(scope="module")
def reported(predicted, tmp_path_factory):
    """The report's folder, and what the command printed, of a run beside a second reader."""
    folder, maps_of_run = predicted
    reader = second_reader(maps_of_run, tmp_path_factory.mktemp("reader"))
    done = launch(folder, "resamples=20", "gallery=2", *reader, module="pneumo.report")
    assert done.returncode == 0, done.stderr
    (place,) = (folder / "runs" / "report").iterdir()
    return place, done.stdout


def test_tables_are_latex_too(reported):
    text = (reported[0] / "report.tex").read_text()
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 12
    assert r"32\textsuperscript{2}: 8 / 5" in text
    body = text.replace(r"\&", "").replace(r"\%", "").replace(r"\_", "")
    for line in body.splitlines():
        if line.endswith(r"\\"):
            assert "%" not in line
            assert "_" not in line


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def evaluation(folder, part, tta):
    found = [
        json.loads(p.read_text())
        for p in (one(folder, "exp5") / "predictions" / part / "evaluations").glob(f"{tta}-*.json")
    ]
    return next(one for one in found if "resamples=20" in one["command"])


def test_tables_hold_our_scores_beside_the_published_ones(finished, reported):
    place, printed = reported
    folder, _ = finished
    (iou,) = rows(place / "table_3.csv")
    for column, tta in (("IoU, no TTA", "plain"), ("IoU, TTA", "tta")):
        assert iou[column].startswith(
            f"{evaluation(folder, 'val', tta)['results'][0]['scores']['iou']:.4f}"
        )
    assert (iou["published, no TTA"], iou["published, TTA"]) == (
        "–",
        "–",
    )  # it is exp5 with other settings
    (dice,) = rows(place / "table_4.csv")
    assert dice["Dice, TTA"].startswith(
        f"{evaluation(folder, 'test', 'tta')['results'][0]['scores']['dice']:.4f}"
    )
    (as_run,) = rows(place / "table_2.csv")
    assert as_run["stages: batch / epochs"] == "32²: 8 / 5, then 64²: 8 / 4"
    assert [row["published, private part"] for row in rows(place / "table_5.csv")] == [
        "0.8247",
        "0.8330",
        "0.8298",
        "0.8356",
    ]
    text = (place / "report.md").read_text()
    for part in (
        "Table II as run",
        "Table III",
        "Table IV",
        "Table V",
        "Table VI",
        "Not comparable",
        "data phantom",
        "data.round=1 data.round1_test=<stage_1_sample_submission.csv> split.group=image",
        "no public truth",
        "empty masks alone",
        "The film's score as a test",
        "Lesions, boundaries and pointing",
        "FROC",
    ):
        assert part in text
    groups = {row["group"]: int(row["films"]) for row in rows(place / "groups.csv")}
    assert groups["sex F"] + groups["sex M"] == 6
    assert "Table III" in printed


def test_a_second_reader_stands_beside_the_run(finished, reported):
    place, printed = reported
    beside = {row["score"]: row for row in rows(place / "readers.csv")}
    assert beside["sensitivity"]["model"].startswith("exp5")
    assert beside["sensitivity"]["reader"] == "ChestX-Det"
    assert 0 < float(beside["Dice on positives"]["reader alone"].split()[0]) < 1
    assert beside["Dice"]["films"] == "6"
    truths = [row["truth"] for row in rows(place / "truths.csv")]
    assert truths[:2] == ["the challenge", "ChestX-Det"]
    assert "Second readers on the same films" in printed
    found = evaluation(finished[0], "val", "tta")
    assert found["readers"][0]["reader"] == "ChestX-Det"
    assert "reader.chestx_det=" in found["command"]


def test_nothing_to_report_is_one_line(tmp_path):
    assert "no finished runs" in complaint(launch(tmp_path, module="pneumo.report"))


@pytest.fixture(params=slow_but([1200], [1200, 390]), ids=["desk", "phone"])
def opened(browser, reported, request):
    """The page, at two widths."""
    with visited(
        browser, (reported[0] / "index.html").as_uri(), request.param, "#surface .main-svg"
    ) as page:
        yield page


def cards(page):
    return {
        card.get_attribute("data-score"): card.locator("b").inner_text()
        for card in page.locator(".card").all()
    }


def test_sliders_move_the_scores(opened, finished):
    part = maps.load(one(finished[0], "exp5") / "predictions" / "val")
    for tta in (True, False):
        opened.locator("#tta").set_checked(tta)
        table = surfaces.surface(part.histograms(tta))
        for i, j in ((74, 8), (4, 0), (98, 49)):
            for slider, value in (("#threshold", i), ("#area", j)):
                opened.locator(slider).evaluate(
                    "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", value
                )
            shown = cards(opened)
            expected = {
                name: "–" if np.isnan(values[i, j]) else f"{values[i, j]:.4f}"
                for name, values in table.items()
            }
            assert {name: shown[name] for name in expected} == expected
            marker = opened.evaluate(
                "[document.getElementById('surface').data[1].x[0], "
                "document.getElementById('surface').data[1].y[0]]"
            )
            assert marker == [surfaces.AREAS[j], surfaces.THRESHOLDS[i]]


def test_the_page_shows_everything_and_fits(opened):
    width = opened.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    for plot in ("curves", "roc", "pr", "calibration", "readers-scores", "readers-truths"):
        assert opened.locator(f"#{plot} .main-svg").count() > 0
    assert (
        opened.evaluate("document.getElementById('curves').data[0].x.length") == 9
    )  # 5 epochs, then 4, on one axis
    line, *_ = opened.evaluate("document.getElementById('readers-truths').layout.shapes")
    assert 0 < line["x0"] == line["x1"] < 1  # the reader's Dice on positives, by the challenge
    text = opened.inner_text("main")
    for part in (
        "Best",
        "False negatives",
        "python -m pneumo.report",
        "python -m pneumo.evaluate run=",
        "Table IV",
        "Split by patient: 0.0 %",
        "pneumo.train +experiment=exp5",
        "weights",
        "raw weights, as each epoch left them before any averaging",
    ):
        assert part in text
    assert opened.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert opened.locator("figure img").count() >= 2
