"""Lesion-wise detection: the components of a prediction matched with those of the truth."""

from dataclasses import dataclass

import cv2
import numpy as np

from pneumo.masks.rule import TOP_LEVEL


@dataclass
class Lesions:
    """What became of one film's lesions.

    A lesion is an 8-connected component of the true mask, a candidate one of the prediction; both
    of at least so many pixels. A pair matches if its IoU reaches the least overlap. Each is matched
    once at most, pairs of the highest IoU first.
    """

    count: int  # of lesions
    hit: np.ndarray  # whether each candidate is matched with a lesion, bool (c,)
    # the highest probability that enough pixels of each candidate reach, float (c,)
    score: np.ndarray

    @property
    def hits(self) -> int:
        """Lesions that were found."""
        return int(self.hit.sum())

    @property
    def false(self) -> int:
        """Candidates that are no lesion."""
        return len(self.hit) - self.hits

    @property
    def missed(self) -> int:
        """Lesions that were not found."""
        return self.count - self.hits


def match(
    predicted: np.ndarray, truth: np.ndarray, levels: np.ndarray, least: int, overlap: float
) -> Lesions:
    """Match the components of a predicted mask with those of the truth.

    Args:
        predicted, truth: masks uint8 (H, W) of 0 and 1.
        levels: the probability map, uint8 (H, W), from which candidates have their scores.
        least: pixels; smaller components count on neither side.
        overlap: IoU from which a pair matches, above 0 to 1.
    """
    candidates, sizes = _components(predicted, least)
    lesions, areas = _components(truth, least)
    inside = candidates > 0
    of, on = candidates[inside] - 1, lesions[inside]
    shared = np.bincount(of * (len(areas) + 1) + on, minlength=len(sizes) * (len(areas) + 1))
    shared = shared.reshape(len(sizes), len(areas) + 1)[:, 1:]
    iou = shared / (sizes[:, None] + areas[None] - shared)
    hit, taken = np.zeros(len(sizes), bool), np.zeros(len(areas), bool)
    for pair in np.argsort(-iou, axis=None, kind="stable"):
        candidate, lesion = np.unravel_index(pair, iou.shape)
        if iou[candidate, lesion] < overlap:
            break
        if not hit[candidate] and not taken[lesion]:
            hit[candidate] = taken[lesion] = True
    reached = levels[inside]
    scores = [_score(reached[of == number], least) for number in range(len(sizes))]
    return Lesions(len(areas), hit, np.array(scores, np.float64))


def _components(mask: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (H, W) of the 8-connected components of at least so many pixels, and their areas."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    kept = area >= max(least, 1)
    kept[0] = False  # the background
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return renumbered[labels], area[kept]


def _score(levels: np.ndarray, least: int) -> float:
    """The highest probability that at least ``least`` of some levels (k,) reach; k >= least."""
    return float(np.sort(levels)[-max(least, 1)] / TOP_LEVEL)
