"""What an evaluation found, as JSON."""

import json

import numpy as np
from evaluation.synthetic import synthetic

from pneumo.evaluation import choosing
from pneumo.evaluation.results import Comparison
from pneumo.masks.settings import Postprocess


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
