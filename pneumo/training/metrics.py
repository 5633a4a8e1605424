"""Scores of validation films while training: the ones of ``masks.scores``, over all processes."""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from pneumo.masks.scores import Films, summary
from pneumo.masks.truth import Truth


class ImageScores(Metric):
    """Pixel counts of every film, and at the end the scores of all of them.

    Right for any batching and number of processes. ``compute`` gives each score of
    ``pneumo.masks.scores`` that needs no image-level score and that what is known of the films
    (``truth``) gives; one over no films is NaN.
    """

    full_state_update = False
    higher_is_better = True
    counts: list[Tensor]

    def __init__(self, truth: Truth = Truth.masks) -> None:
        super().__init__()
        self.truth = truth
        self.add_state("counts", [], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add binary masks (N, ..., H, W)."""
        x, y = prediction.flatten(1).bool(), target.flatten(1).bool()
        self.counts.append(torch.stack([x.sum(1), y.sum(1), (x & y).sum(1)], dim=1))

    def compute(self) -> dict[str, float]:
        """The scores."""
        # a list of batches, or, gathered from several processes, one tensor
        counts = dim_zero_cat(self.counts) if len(self.counts) else torch.zeros((0, 3))
        predicted, truth, overlap = counts.cpu().numpy().astype(np.int64).T
        films = Films(predicted, truth, overlap)
        films.truths = [self.truth]
        return {key: float(one[0]) for key, one in summary(films).items()}
