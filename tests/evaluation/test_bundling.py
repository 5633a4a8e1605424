"""A bundle says what it is made of, and how well that did."""

import json
from types import SimpleNamespace

import pytest
from evaluation.synthetic import synthetic

from pneumo.evaluation import bundling
from pneumo.inference import bundle
from pneumo.masks.settings import Postprocess


def test_the_card_says_everything_and_nothing_is_pickled(model, finished):
    card = bundle.read_card(model)
    assert {
        "name",
        "commit",
        "input",
        "output",
        "postprocess",
        "thresholds",
        "scores",
        "data",
        "licence",
        "intended_use",
        "limits",
    } <= set(card)
    assert card["licence"] == "CC0"
    assert "not for diagnosis" in card["limits"]
    assert card["thresholds"] == "declared by the experiment"
    assert (
        card["scores"]["intervals"]["dice"][0]
        <= card["scores"]["scores"]["dice"]
        <= card["scores"]["intervals"]["dice"][1]
    )
    assert card["members"][0]["onnx_difference"] < 1e-4
    assert str(finished[0]) not in json.dumps(card)
    assert {path.suffix for path in model.iterdir()} == {".json", ".safetensors", ".onnx"}


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
