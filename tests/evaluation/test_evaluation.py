"""By which thresholds runs are judged, and how to judge them so again."""

import dataclasses
from types import SimpleNamespace

import pytest

from pneumo.errors import PneumoError
from pneumo.evaluation import evaluation
from pneumo.evaluation.members import Member
from pneumo.evaluation.settings import Evaluate
from pneumo.masks.settings import Postprocess, Rule


def runs(*rules):
    records = [SimpleNamespace(config=SimpleNamespace(postprocess=rule)) for rule in rules]
    return [Member(None, about) for about in records]


def test_runs_of_different_thresholds_are_judged_only_by_thresholds_that_are_typed():
    both = runs(Postprocess(0.55, 2048), Postprocess(0.75, 2048))
    with pytest.raises(PneumoError, match=r"B-TH 0\.55.*; B-TH 0\.75.*binarization_threshold="):
        evaluation.declared_rule(Evaluate(), both)
    typed = Evaluate(postprocess=Rule(binarization_threshold=0.6))
    assert evaluation.declared_rule(typed, both) == Postprocess(0.6, 2048)
    assert evaluation.declared_rule(Evaluate(), both[:1] * 2) == Postprocess(0.55, 2048)


def test_runs_whose_maps_are_not_used_declare_no_thresholds():
    used, telling = runs(Postprocess(0.55, 2048), Postprocess(0.75, 2048))
    telling = dataclasses.replace(telling, weight=0.0)
    assert evaluation.declared_rule(Evaluate(), [used, telling]) == Postprocess(0.55, 2048)
