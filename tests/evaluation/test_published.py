"""Our scores beside the published figures."""

from types import SimpleNamespace

from pneumo.evaluation import published
from pneumo.evaluation.results import Judgement, Scored


def finished_run(scores, intervals, *parts):
    """A run of exp5 as declared, of which the same was found on all parts."""
    about = SimpleNamespace(config=SimpleNamespace(experiment="exp5", variant=""))
    judgement = Judgement("declared", "", [], Scored(1, scores, intervals))
    found = SimpleNamespace(result=lambda name: judgement if name == "declared" else None)
    return published.Run(None, about, [], dict.fromkeys(parts, found))


def test_several_runs_of_one_experiment_are_a_mean_with_its_spread():
    def run(dice):
        return finished_run({"dice": dice, "iou": None}, {"dice": (0.1, 0.9)}, ("val", True))

    assert published._over([run(0.5), run(0.7)], "val", True, "dice") == "0.6000 ± 0.1414"
    assert published._over([run(0.5)], "val", True, "dice") == "0.5000 [0.100, 0.900]"
    assert published._over([run(None), run(0.5)], "val", True, "dice") == "0.5000 [0.100, 0.900]"
    assert published._over([run(0.5)], "val", True, "iou") == "–"
    assert published._over([run(0.5)], "val", True, "dice", "tuned") == "–"


def test_published_figures_stand_beside_the_experiments_as_declared():
    scores = {"iou": 0.5, "iou_stepped": 0.4}
    run = finished_run(scores, {}, ("val", False), ("val", True))
    (row,) = published._table_3({run.name: [run]}, "").rows
    assert row == ["exp5", "0.5000", "0.5000", "0.4000", "0.7638", "0.7822"]
