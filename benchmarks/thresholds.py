"""Every B-TH × R-TH at once, against the nested loop over thresholds, areas and films that people
write.

Both read the same uint8 maps and masks. The loop is timed on a part of the grid and of the films,
spread over both, and its time is extrapolated to all of it; on that part both must give the same
Dice for every film. The one pass is timed whole: histograms from the arrays, then the surface.
"""

import numpy as np

from benchmarks import table
from benchmarks.table import Row
from pneumo.evaluation import surfaces
from pneumo.evaluation.surfaces import AREAS, THRESHOLDS
from pneumo.masks.histograms import Histograms, histogram

SYSTEMS = 5


def films(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth maps uint8 and true masks of which two thirds are empty, (count, side, side) each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    maps, masks = np.zeros((count, side, side), np.uint8), np.zeros((count, side, side), np.uint8)
    for film in range(count):
        cx, cy, width = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.03, 0.15)
        bump = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / width**2)
        maps[film] = 255 * np.clip(bump * rng.uniform(0, 1.1), 0, 1)
        if film % 3 == 0:
            masks[film] = bump > rng.uniform(0.3, 0.7)
    return maps, masks


def nested_loop(
    maps: np.ndarray, masks: np.ndarray, ts: tuple[float, ...], areas: tuple[int, ...]
) -> np.ndarray:
    """Mean Dice for each threshold and area, as the challenge's public kernels compute it."""
    scores = np.zeros((len(ts), len(areas)))
    for i, t in enumerate(ts):
        for j, area in enumerate(areas):
            dices = []
            for p, truth in zip(maps, masks, strict=True):
                mask = p > t * 255
                if mask.sum() < area:
                    mask = np.zeros_like(mask)
                total = mask.sum() + truth.sum()
                dices.append(1.0 if total == 0 else 2 * (mask * truth).sum() / total)
            scores[i, j] = np.mean(dices)
    return scores


def one_pass(
    maps: np.ndarray, masks: np.ndarray, ts: tuple[float, ...], areas: tuple[int, ...]
) -> np.ndarray:
    """The same from histograms."""
    total, inside = (np.array(part) for part in zip(*map(histogram, maps, masks), strict=True))
    return surfaces.surface(Histograms(total, inside), ts, areas)["dice"]


def measure(quick: bool) -> list[Row]:
    """The surface of one system, against the loop; and of several, against so many single ones."""
    count, side = (6, 32) if quick else (600, 512)
    maps, masks = films(count, side)
    areas = tuple(area * side * side // 1024**2 for area in AREAS)
    some_ts, some_areas = THRESHOLDS[4::30], areas[3::20]
    some = np.arange(0, count, max(1, count // 60))
    share = (len(some_ts) / len(THRESHOLDS)) * (len(some_areas) / len(areas)) * (len(some) / count)
    slow = nested_loop(maps[some], masks[some], some_ts, some_areas)
    same = one_pass(maps[some], masks[some], some_ts, some_areas)
    assert np.allclose(slow, same, rtol=0, atol=1e-12), np.abs(slow - same).max()
    timed = table.alternate(
        {
            "ours": lambda: one_pass(maps, masks, THRESHOLDS, areas),
            "loop": lambda: nested_loop(maps[some], masks[some], some_ts, some_areas),
        },
        rounds=1 if quick else 3,
        warm=0 if quick else 1,
    )
    loop = timed["loop"]
    loop.rounds = [table.Spent(one.wall / share, one.cpu / share) for one in loop.rounds]
    title = f"{len(THRESHOLDS)} thresholds × {len(areas)} areas, {side}²"
    whole = table.compared(
        title,
        timed["ours"],
        loop,
        per=count,
        against="nested loop over thresholds, areas and films",
        limit=f"{count} films; the loop extrapolated from {share:.1%}; same Dice where both looked",
    )
    return [whole, _several(maps[:, :, ::-1], maps, masks, areas, title, quick)]


def _several(
    others: np.ndarray,
    maps: np.ndarray,
    masks: np.ndarray,
    areas: tuple[int, ...],
    title: str,
    quick: bool,
) -> Row:
    """Several systems: the bare counting of their pixels is what bounds it."""
    each = [np.ascontiguousarray((maps, others)[number % 2]) for number in range(SYSTEMS)]
    timed = table.alternate(
        {
            "surfaces": lambda: [one_pass(one, masks, THRESHOLDS, areas) for one in each],
            "counting": lambda: [
                [np.bincount(film.ravel(), minlength=256) for film in one] for one in each
            ],
        },
        rounds=1 if quick else 3,
        warm=0 if quick else 1,
        memory=False,
    )
    return table.compared(
        f"{title}, {SYSTEMS} systems",
        timed["surfaces"],
        timed["counting"],
        per=SYSTEMS * len(maps),
        of="map",
        against="numpy's count of the levels alone, without truth and surface",
    )
