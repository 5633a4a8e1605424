import pytest
import segmentation_models_pytorch as smp
import torch

from pneumo.masks.truth import Truth
from pneumo.training import metrics
from pneumo.training.settings import Handoff

FIVE = [  # prediction, truth: both empty, false positive, false negative, perfect, half
    ([0, 0, 0, 0], [0, 0, 0, 0], 1.0, 1.0),
    ([1, 1, 0, 0], [0, 0, 0, 0], 0.0, 0.0),
    ([0, 0, 0, 0], [1, 1, 0, 0], 0.0, 0.0),
    ([1, 1, 0, 0], [1, 1, 0, 0], 1.0, 1.0),
    ([1, 1, 0, 0], [1, 0, 1, 0], 0.5, 1 / 3),
]
PREDICTION, TARGET = (torch.tensor([case[i] for case in FIVE]).reshape(5, 1, 2, 2) for i in (0, 1))


def test_scores_whatever_the_batches():
    whole, parts = metrics.ImageScores(), metrics.ImageScores()
    whole.update(PREDICTION, TARGET)
    for i in range(0, 5, 2):
        parts.update(PREDICTION[i : i + 2], TARGET[i : i + 2])
    scores = {name: round(float(value), 4) for name, value in whole.compute().items()}
    assert scores == {
        "dice": 0.5,
        "dice_positive": 0.5,
        "dice_found": 0.75,
        "iou": 0.4667,
        "iou_stepped": 0.4,
        "iou_mean_precision": 0.4,
        "sensitivity": 0.6667,
        "specificity": 0.5,
        "all_empty_dice": 0.4,
    }
    assert {name: round(float(value), 4) for name, value in parts.compute().items()} == scores


def test_empty_masks_do_not_win_what_best_watches():
    """As in the challenge 78 films of 100 are negative. A network finds the others to a Dice of .8,
    and marks a quarter of the negative ones: a better network than none, with a worse IoU.
    """
    truth = torch.zeros(100, 1, 4, 4)
    truth[78:, :, :, :3] = 1
    found = torch.zeros_like(truth)
    found[78:, :, :, :2] = 1
    found[:20, :, 0, 0] = 1
    watched = {}
    for name, prediction in (("network", found), ("empty masks", torch.zeros_like(truth))):
        scores = metrics.ImageScores()
        scores.update(prediction, truth)
        watched[name] = scores.compute()
    score = Handoff().score.name
    assert watched["network"]["iou"] < watched["empty masks"]["iou"]
    assert watched["network"][score] == pytest.approx(0.8)
    assert watched["empty masks"][score] == 0


def test_counts_gathered_from_several_processes_are_one_tensor():
    whole, gathered = metrics.ImageScores(), metrics.ImageScores()
    for scores in (whole, gathered):
        scores.update(PREDICTION, TARGET)
    gathered.counts = torch.cat(gathered.counts)
    assert gathered.compute() == whole.compute()


def test_challenge_dice_equals_an_independent_library():
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.rand(64, 1, 8, 8, generator=generator) > 0.97 for _ in range(2))
    scores = metrics.ImageScores()
    scores.update(prediction, target)
    stats = smp.metrics.get_stats(prediction.long(), target.long(), mode="binary")
    dice = smp.metrics.f1_score(*stats, reduction="micro-imagewise")
    iou = smp.metrics.iou_score(*stats, reduction="micro-imagewise")
    assert scores.compute()["dice"] == pytest.approx(float(dice))
    assert scores.compute()["iou"] == pytest.approx(float(iou))


@pytest.mark.parametrize("truth", [Truth.labels, Truth.boxes])
def test_films_without_masks_are_only_found_or_not(truth):
    """A mask of a whole film, or of a box, would make any Dice look like one."""
    scores = metrics.ImageScores(truth)
    scores.update(PREDICTION, TARGET)
    assert scores.compute() == {"sensitivity": pytest.approx(2 / 3), "specificity": 0.5}
