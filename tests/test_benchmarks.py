"""The benchmarks that the README cites run; what they say is not tested, only that they say it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "apply.py": (["4"], "ratio to the faster bare pass"),
    "loading.py": (["16"], "films"),
    "memory.py": (["40"], "all: 40 films, peak of"),
    "thresholds.py": (["20", "64"], "extrapolated"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs(name):
    arguments, said = SMALL[name]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / name, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
