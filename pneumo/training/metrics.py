"""Dice and IoU per image under the challenge's rule for empty masks, and their means over a set."""

import torch
from torch import Tensor
from torchmetrics import Metric


def dice(prediction: Tensor, target: Tensor) -> Tensor:
    """2|X∩Y| / (|X| + |Y|) of each image, 1 if both are empty. Binary (N, ..., H, W) → float (N,).

    >>> dice(torch.tensor([[[1, 1]], [[0, 0]]]), torch.tensor([[[1, 0]], [[0, 0]]]))
    tensor([0.6667, 1.0000])
    """
    overlap, total = _overlap(prediction, target)
    return torch.where(total == 0, 1.0, 2 * overlap / total.clamp(min=1))


def iou(prediction: Tensor, target: Tensor) -> Tensor:
    """|X∩Y| / |X∪Y| of each image, 1 if both are empty. Binary (N, ..., H, W) → float (N,)."""
    overlap, total = _overlap(prediction, target)
    return torch.where(total == 0, 1.0, overlap / (total - overlap).clamp(min=1))


def _overlap(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    x, y = prediction.flatten(1).bool(), target.flatten(1).bool()
    return (x & y).sum(1).float(), x.sum(1).float() + y.sum(1).float()


class ImageScores(Metric):
    """Means over images, right for any batching and number of processes.

    ``compute`` gives ``dice`` (challenge rule), ``dice_positive`` (films with pneumothorax only), ``iou``, ``sensitivity``
    and ``specificity`` (of finding any pneumothorax in a film), and ``all_empty_dice``, what empty masks alone would
    score. A score over no films is NaN.
    """

    full_state_update = False
    higher_is_better = True
    _names = ("images", "positives", "dice", "dice_positive", "iou", "found", "clear")

    images: Tensor
    positives: Tensor
    dice: Tensor
    dice_positive: Tensor
    iou: Tensor
    found: Tensor
    clear: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in self._names:
            self.add_state(
                name, torch.zeros(()), dist_reduce_fx="sum"
            )  # not float64: Apple's GPUs have none

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add binary masks (N, ..., H, W)."""
        d, i = dice(prediction, target), iou(prediction, target)
        positive = target.flatten(1).bool().any(1)
        marked = prediction.flatten(1).bool().any(1)
        self.images += len(d)
        self.positives += positive.sum()
        self.dice += d.sum()
        self.dice_positive += d[positive].sum()
        self.iou += i.sum()
        self.found += (marked & positive).sum()
        self.clear += (~marked & ~positive).sum()

    def compute(self) -> dict[str, Tensor]:
        """The scores, each a float32 scalar."""
        negatives = self.images - self.positives
        return {
            "dice": self.dice / self.images,
            "dice_positive": self.dice_positive / self.positives,
            "iou": self.iou / self.images,
            "sensitivity": self.found / self.positives,
            "specificity": self.clear / negatives,
            "all_empty_dice": negatives / self.images,
        }
