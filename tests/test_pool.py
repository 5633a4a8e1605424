"""Work on many items, in this process or in several."""

import math
import os
import subprocess
import sys
import threading

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


def where(item):
    return os.getpid()


@pytest.mark.parametrize("more", [False, True])
def test_processes_are_started_for_more_than_a_few_items_alone(more, monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 2)
    found = [process for _, process in pool.each(where, range(pool.FEW + more), "Processes")]
    assert len(found) == pool.FEW + more
    assert (os.getpid() not in found) == more


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


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_work_ahead_comes_in_order_and_its_error_in_its_place(threads):
    assert list(pool.ahead(math.sqrt, SQUARES, threads, 4)) == list(range(10))
    results = pool.ahead(math.sqrt, [4.0, -1.0, 9.0], threads, 4)
    assert next(results) == 2
    with pytest.raises(ValueError, match=r"domain|nonnegative"):
        next(results)


def test_work_ahead_overlaps_but_takes_no_more_items_than_it_may():
    """The first result comes only after the second item's work has begun, never the fifth's."""
    begun = [threading.Event() for _ in range(8)]
    taken = []

    def items():
        for number in range(8):
            taken.append(number)
            yield number

    def work(number):
        begun[number].set()
        if number == 0:
            assert begun[1].wait(20)
        return number

    results = pool.ahead(work, items(), 2, 4)
    for number in range(8):
        assert next(results) == number
        assert len(taken) <= number + 4
    assert list(results) == []


def test_work_that_nobody_waits_for_any_more_is_dropped():
    done = []
    results = pool.ahead(lambda number: done.append(number) or number, range(100), 1, 5)
    assert next(results) == 0
    results.close()
    assert len(done) <= 5
    assert not [one for one in threading.enumerate() if one.name.startswith("ThreadPool")]


def test_stages_one_behind_the_other_keep_order_and_bounds():
    taken = []
    first = pool.ahead(lambda number: taken.append(number) or number, range(50), 3, 4)
    second = pool.ahead(lambda number: 2 * number, first, 2, 3)
    for number in range(50):
        assert next(second) == 2 * number
        assert len(taken) <= number + 8
