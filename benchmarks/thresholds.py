"""Every B-TH × R-TH at once, against the nested loop over thresholds, areas and films that people
write.

    python benchmarks/thresholds.py [films] [side]

Both read the same uint8 maps and masks. The loop is timed on a part of the grid and of the films,
spread over both, and its time is extrapolated to all of it; on that part both must give the same
Dice for every film. The one pass is timed whole: histograms from the arrays, then the surface. Peak
memory is what each allocates beyond the arrays (tracemalloc).
"""

import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from pneumo.evaluation import surfaces
from pneumo.evaluation.surfaces import AREAS, THRESHOLDS
from pneumo.masks.histograms import Histograms, histogram


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


def measured(work: Callable[..., np.ndarray], *arguments: Any) -> tuple[np.ndarray, float, float]:
    """Result, seconds, and peak MiB (of a second call: tracing slows it down)."""
    start = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - start
    tracemalloc.start()
    work(*arguments)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return result, seconds, peak


def main(count: int, side: int) -> None:
    """Print both times, the ratio and the peak memory of both."""
    maps, masks = films(count, side)
    areas = tuple(area * side * side // 1024**2 for area in AREAS)
    some_ts, some_areas, some = (
        THRESHOLDS[4::10],
        areas[3::10],
        np.arange(0, count, max(1, count // 200)),
    )
    slow, seconds, slow_peak = measured(nested_loop, maps[some], masks[some], some_ts, some_areas)
    share = (len(some_ts) / len(THRESHOLDS)) * (len(some_areas) / len(areas)) * (len(some) / count)
    fast, quick, fast_peak = measured(one_pass, maps, masks, THRESHOLDS, areas)
    same = one_pass(maps[some], masks[some], some_ts, some_areas)
    assert np.allclose(slow, same, rtol=0, atol=1e-12), np.abs(slow - same).max()
    whole = seconds / share
    print(
        f"{count:,} films at {side}², {len(THRESHOLDS)} thresholds × {len(areas)} areas; same "
        "mean Dice on the part both computed"
    )
    print(
        f"nested loop: {whole:,.0f} s, extrapolated from {seconds:.1f} s ({share:.2%} of it), "
        f"{slow_peak:.1f} MiB"
    )
    print(f"one pass:    {quick:.2f} s, histograms included, {fast_peak:.1f} MiB")
    print(f"ratio:       {whole / quick:,.0f}, extrapolated as the loop's time is")
    assert fast.shape == (len(THRESHOLDS), len(areas))


if __name__ == "__main__":
    main(*(int(one) for one in (sys.argv[1:] + ["2000", "512"][len(sys.argv) - 1 :])))
