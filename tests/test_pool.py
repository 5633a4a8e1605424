"""Work on many items, in this process or in several."""

import math
import subprocess
import sys

import pytest

from pneumo import pool

SQUARES = [float(i * i) for i in range(10)]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_item_comes_with_its_own_result(workers):
    found = dict(pool.each(math.sqrt, SQUARES, "Roots", workers))
    assert found == {float(i * i): float(i) for i in range(10)}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_that_fails_stops_the_work_with_its_error(workers):
    with pytest.raises(ValueError, match=r"domain|nonnegative"):
        list(pool.each(math.sqrt, [*SQUARES, -1.0], "Roots", workers))


@pytest.mark.slow
def test_the_processes_of_a_killed_one_end(tmp_path):
    """Killed, it cannot tell them, and nobody else would."""
    (tmp_path / "waiting.py").write_text(
        "import math\n"
        "from pneumo import pool\n"
        "if __name__ == '__main__':\n"
        "    for item, _ in pool.each(math.sqrt, range(10**9), 'Roots', 2):\n"
        "        print(item, flush=True)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "waiting.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    for _ in range(100):
        assert parent.stdout.readline()
    parent.kill()
    parent.communicate(timeout=60)  # they hold the other end too, so it closes with the last one
