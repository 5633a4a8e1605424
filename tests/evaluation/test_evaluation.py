"""By which thresholds runs are judged, and how to judge them so again."""

from types import SimpleNamespace

import pytest

from pneumo.errors import PneumoError
from pneumo.evaluation import evaluation
from pneumo.evaluation.settings import Evaluate
from pneumo.masks.settings import Postprocess, Rule


def runs(*rules):
    return [SimpleNamespace(config=SimpleNamespace(postprocess=rule)) for rule in rules]


def test_runs_of_different_thresholds_are_judged_only_by_thresholds_that_are_typed():
    both = runs(Postprocess(0.55, 2048), Postprocess(0.75, 2048))
    with pytest.raises(PneumoError, match=r"B-TH 0\.55.*; B-TH 0\.75.*binarization_threshold="):
        evaluation.declared_rule(Evaluate(), both)
    typed = Evaluate(postprocess=Rule(binarization_threshold=0.6))
    assert evaluation.declared_rule(typed, both) == Postprocess(0.6, 2048)
    assert evaluation.declared_rule(Evaluate(), both[:1] * 2) == Postprocess(0.55, 2048)
