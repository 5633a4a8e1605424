"""Lesions and boundaries of whole sets of films."""

import numpy as np
import pytest
from evaluation.synthetic import synthetic

from pneumo.evaluation import choosing, shapes
from pneumo.evaluation.settings import Measures
from pneumo.masks.settings import Postprocess


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
