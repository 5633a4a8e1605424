"""What the table of the benchmarks says is what was measured; each benchmark runs at tiny sizes.

The figures themselves are not tested: they are the machine's.
"""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, step, table
from benchmarks.growth import Taken, rows_of, svg
from benchmarks.table import NotHere, Row, Spent, Timed

ROOT = Path(__file__).parents[1]


def timed(*seconds, peak=None):
    return Timed([Spent(2 * one, one) for one in seconds], peak)


def test_a_ratio_says_how_many_times_as_fast_ours_is_round_by_round():
    row = table.compared("x", timed(1, 2, 4), timed(3, 8, 20), per=10, at_least=4)
    assert (row.ours, row.other, row.unit) == (200, 800, "ms of CPU a film")
    assert row.ratios == [3, 4, 5]
    assert (row.ratio, row.met) == (4, True)
    assert table.compared("x", timed(1), timed(3), at_least=3.1).met is False
    assert table.compared("x", timed(1), timed(3)).met is None


def test_things_a_second_are_shown_by_the_clock_that_is_asked_for():
    row = table.compared("x", timed(1), timed(4), per=10, rate=True, clock="wall")
    assert (row.ours, row.other, row.unit, row.ratios) == (5, 1.25, "films/s", [4])


def test_the_table_shows_median_range_goal_peaks_and_why_something_was_not_measured():
    row = table.compared("x", timed(1, 2, 4, peak=1.5), timed(3, 8, 20, peak=20), at_least=30)
    shown = table.shown([row, Row("gpu", reason="no GPU")]).rows
    assert shown[0][4:7] == ["4 (3 to 5)", "≥ 30, missed", "1.5 / 20.0"]
    assert shown[1][0] == "gpu"
    assert shown[1][-1] == "not measured: no GPU"


def test_ways_are_timed_in_turn_after_a_round_that_does_not_count(monkeypatch):
    monkeypatch.setattr(table.gc, "collect", lambda: 0)  # takes long after other tests
    order = []
    ways = {name: lambda name=name: order.append(name) for name in "ab"}
    found = table.alternate(ways, rounds=2, warm=1, memory=False)
    assert "".join(order) == "abbaab"
    assert [len(found[name].rounds) for name in "ab"] == [2, 2]


def test_peak_memory_is_what_a_call_takes_beyond_what_was_there():
    before = np.ones(2**23)  # 64 MiB
    assert 31 < table.peak_memory(lambda: np.ones(2**22).sum()) < 50
    assert table.peak_memory(before.sum) < 16


def test_a_benchmark_that_cannot_run_here_is_a_row_with_the_reason(monkeypatch):
    class Absent:
        @staticmethod
        def measure(quick):
            raise NotHere("no GPU on this machine")

    monkeypatch.setattr(table.importlib, "import_module", lambda name: Absent)
    (row,) = table.measured("gpu", quick=True)
    assert (row.name, row.reason) == ("gpu", "no GPU on this machine")


def test_an_unknown_benchmark_is_refused_with_those_that_there_are(capsys):
    with pytest.raises(SystemExit):
        command.main(["thresholdz"])
    assert "thresholds" in capsys.readouterr().err


def test_every_benchmark_has_its_place_in_the_order():
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    helpers = {"__init__", "__main__", "table", "made"}
    assert files - helpers == set(command.NAMES)


@pytest.mark.parametrize(("side", "batch"), sorted({one[:2] for one in (*step.SIZES, *gpu.SIZES)}))
def test_steps_are_timed_of_fits_that_there_can_be(side, batch):
    assert step.config_of(side, batch).batch_size == batch


def test_the_clock_stands_between_the_rounds_of_a_training():
    """Bare steps run there, and a Trainer asks for as many batches as it was told of."""
    seen = []
    feed = step.Feed([0, 1], 3, 2, torch.device("cpu"))
    feed.between = lambda: seen.append(len(feed.spent))
    assert len(list(feed)) == len(feed) == 2 + 3 * 2 + 1
    assert seen == [0, 1]
    assert len(feed.spent) == 2


GROWN = [
    *(Taken("index", films, films / 50, films / 100, 5.0) for films in (100, 1_000, 10_000)),
    *(Taken("bootstrap", films, films, films**2 / 1e4, films) for films in (100, 1_000)),
]


def test_growth_tells_a_stage_that_is_linear_from_one_that_is_not():
    index, bootstrap = rows_of(GROWN)
    assert (index.name, index.ratio, index.met) == ("index, 10,000 films", 1, True)
    assert index.limit == "MiB at most: 5 for 100, 5 for 1,000, 5 for 10,000"
    assert bootstrap.ratio == pytest.approx(0.1)
    assert bootstrap.met is False


def test_linear_growth_is_a_straight_line_in_the_figure():
    root = ElementTree.fromstring(svg(GROWN))
    words = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"index", "bootstrap", "seconds of CPU", "MiB at most", "10,000"} <= words
    paths = [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path")]
    line = next(path for path in paths if path.count("L") == 2)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split()) for point in line[1:].split("L"))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y1


@pytest.mark.slow
@pytest.mark.parametrize("name", command.NAMES)
def test_a_benchmark_runs(name):
    done = launched("benchmarks", name, "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Quick: the figures mean nothing." in done.stdout


@pytest.mark.slow
def test_what_is_measured_on_a_gpu_runs_in_miniature_without_one(tmp_path):
    rows = tmp_path / "rows.json"
    done = launched("benchmarks.gpu", "--device", "cpu", "--quick", "--json", rows)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fits, is stopped, goes on" in done.stdout
    assert rows.is_file()


def launched(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=ROOT,
    )
