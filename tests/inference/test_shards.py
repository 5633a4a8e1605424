"""Parts of the films: which films each has, and which parts belong together."""

import re

import pytest

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.inference import shards
from pneumo.inference.settings import Predict
from pneumo.inference.shards import NotJoined, Shard


@pytest.mark.parametrize(("films", "batch", "count"), [(100, 1, 8), (100, 16, 7), (33, 16, 3)])
def test_shards_are_equal_parts_of_whole_batches(films, batch, count):
    parts = [Shard(number, count).rows(films, batch) for number in range(1, count + 1)]
    each = [list(range(films))[part] for part in parts]
    assert [film for part in each for film in part] == list(range(films))
    assert all(part.start % batch == 0 for part in parts)
    batches = [-(-len(part) // batch) for part in each]
    assert max(batches) - min(batches) <= 1


@pytest.mark.parametrize("text", ["0/8", "9/8", "8", "two of 8", "2/8/3", "-1/8", "1/0", ""])
def test_what_is_no_part_is_refused_with_an_example(text):
    with pytest.raises(PneumoError, match=rf"^shard={text}: must be k/n.* such as 2/8"):
        Predict(shard=text)


def test_more_shards_than_batches_are_refused():
    with pytest.raises(PneumoError, match=r"33 films are 3 batches of 16 .* at most 3 shards"):
        Shard(1, 4).rows(33, 16)


def test_shards_of_several_counts_are_never_mixed(tmp_path):
    assert shards.count_in(tmp_path / "none") == 0
    (tmp_path / "2of8").mkdir()
    assert shards.count_in(tmp_path) == 8
    shards.check_count(tmp_path, Shard(3, 8))
    with pytest.raises(PneumoError, match=r"shard=1/4: .* holds shards of 8; go on with these"):
        shards.check_count(tmp_path, Shard(1, 4))
    (tmp_path / ".1of4.0a1b2c.partial").mkdir()  # being written
    with pytest.raises(PneumoError, match="shards of 4 and 8, which cannot be joined"):
        shards.count_in(tmp_path)


def test_what_keeps_shards_from_being_joined_is_said_of_each(tmp_path):
    for number in (1, 2, 4):
        (tmp_path / Shard(number, 5).folder).mkdir()

    def read(place, shard):
        if shard.number == 2:
            raise shards.Fault("of other weights")
        return [shard.number - 1, shard.number], place.name

    with runs.lock(shards.lock_of(tmp_path, Shard(4, 5))), pytest.raises(NotJoined) as told:
        shards.collected(tmp_path, 5, read)
    assert str(told.value) == (
        f"{tmp_path}: not joined, shard 2/5 is of other weights, 3/5 is missing, "
        "4/5 is being written, 5/5 is missing"
    )
    again = str(NotJoined(told.value.folder, told.value.faults, "make"))
    assert "; make it: make shard=2/5 (then shard=3/5, shard=5/5); or delete" in again
    for number in (3, 5):
        (tmp_path / Shard(number, 5).folder).mkdir()
    whole = shards.collected(
        tmp_path, 5, lambda place, shard: ([shard.number - 1, shard.number], place.name)
    )
    assert whole == ["1of5", "2of5", "3of5", "4of5", "5of5"]


def test_shards_that_do_not_follow_on_each_other_are_not_joined(tmp_path):
    for number in (1, 2):
        (tmp_path / Shard(number, 2).folder).mkdir()
    ends = {1: [0, 16], 2: [32, 40]}
    with pytest.raises(NotJoined, match=re.escape("2/2 is made with another batch_size")):
        shards.collected(tmp_path, 2, lambda _, shard: (ends[shard.number], None))
