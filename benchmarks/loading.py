"""Films per second: the cache against decoding and resizing each film anew, as many training
scripts do.

    python benchmarks/loading.py [films]

Both give the same arrays; the times are of the same films in the same process, alternating, medians
of five.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from pneumo.data import cache
from pneumo.data.settings import OnError, PhantomData, SiimData
from pneumo.data.sources import phantom, siim


def main(count: int) -> None:
    """Print both speeds and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "films"
        phantom.generate(PhantomData(name="phantom", images=count), root)
        index = siim.read_index(
            SiimData(name="siim", root=str(root), annotations=str(root / phantom.TABLE))
        )
        films = cache.build(index.items, 512, Path(folder) / "cache")

        def anew() -> list:
            return [cache.prepare(item, 512, 10**8, OnError.stop) for item in index.items]

        def cached() -> list:
            return [
                (np.array(films.images[row]), np.array(films.masks[row])) for row in range(count)
            ]

        assert all(
            np.array_equal(a, b)
            for one, other in zip(anew(), cached(), strict=True)
            for a, b in zip(one, other, strict=True)
        )
        times: dict = {anew: [], cached: []}
        for _ in range(5):
            for way, spent in times.items():
                start = time.perf_counter()
                way()
                spent.append(time.perf_counter() - start)
        slow, fast = (count / median(times[way]) for way in (anew, cached))
        print(
            f"decoding anew: {slow:,.0f} films/s; from the cache: {fast:,.0f} films/s; ratio "
            f"{fast / slow:,.0f} (512², {count} films)"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
