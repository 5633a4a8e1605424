"""Work on many items, in this process or in several."""

import math

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
