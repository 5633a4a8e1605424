"""Which films the page shows of a run; tests/commands/test_report.py opens it in a browser."""

import numpy as np
from evaluation.synthetic import synthetic

from pneumo.evaluation import choosing, page
from pneumo.masks.settings import Postprocess

# pixels of prediction, truth and both; films 0 and 4 show no pneumothorax
PREDICTED = [50, 100, 100, 0, 90, 100, 0, 100]
TRUTH = [0, 100, 100, 10, 0, 100, 20, 100]
OVERLAP = [0, 90, 10, 0, 0, 50, 0, 70]


def test_the_gallery_shows_films_of_each_kind_the_most_telling_first(tmp_path):
    part = synthetic(tmp_path, "a", films=8)
    outcomes = choosing.outcomes([part], Postprocess(), tta=True)
    columns = (PREDICTED, TRUTH, OVERLAP)
    outcomes.predicted, outcomes.truth, outcomes.overlap = map(np.array, columns)
    shown = page._gallery(part, outcomes, Postprocess(), 2)
    assert {kind: [film["id"] for film in films] for kind, films in shown.items()} == {
        "Best": ["1", "7"],
        "Median of those found": ["7", "5"],
        "Worst of those found": ["2", "5"],
        "False positives": ["4", "0"],
        "False negatives": ["6", "3"],
    }
    first = shown["Best"][0]
    assert (first["dice"], first["truth"], first["predicted"]) == (0.9, 100, 100)
    assert first["picture"] is None  # the film is not there any more
