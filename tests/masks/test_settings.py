"""Rules that make sense, and those that do not."""

import pytest

from pneumo.errors import PneumoError
from pneumo.masks.settings import Postprocess, Rule


@pytest.mark.parametrize(
    "wrong", [{"top_threshold": 0.4}, {"top_threshold": 1.0}, {"contour_area": -1.0}]
)
def test_impossible_rules_are_refused_by_name(wrong):
    with pytest.raises(PneumoError, match=next(iter(wrong))):
        Postprocess(**wrong)


def test_what_is_typed_goes_over_what_is_declared():
    declared = Postprocess(0.75, 2048, fill_holes=True)
    typed = Rule(binarization_threshold=0.3, fill_holes=False).over(declared)
    assert typed == Postprocess(0.3, 2048, fill_holes=False)
    assert Rule().over(declared) == declared
    with pytest.raises(PneumoError, match=r"top_threshold=0\.4"):
        Rule(top_threshold=0.4).over(declared)
