"""One of several equal parts of the films, for a process or a machine of its own: a shard.

A shard holds whole batches, in the order of the films. So a network is given the same films
together as in one process that does all of them, and says the same of them bit for bit.

The shards of one piece of work lie side by side in a folder, each in a folder of its own with files
of its own. They do not write into one file: machines that share a network file system write whole
pages there, so that two of them could undo each other's rows at the border.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.settings import require

NAMED = re.compile(r"(\d+)of(\d+)")
BEGUN = re.compile(r"\.?(\d+)of(\d+)(\.(\w+\.)?partial)?")
WRITING = "being written"
SHOWN = 5  # shards of a list that is cut short
Part = TypeVar("Part")


@dataclass(frozen=True, order=True)
class Shard:
    """The ``number``-th of ``count`` parts, counted from 1."""

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> "Shard":
        """Of ``2/8``. Raises PneumoError."""
        written = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        rule = "k/n, the k-th of n parts, such as 2/8"
        require(written is not None, "shard", text, rule)
        assert written is not None
        shard = cls(*map(int, written.groups()))
        require(1 <= shard.number <= shard.count, "shard", text, f"{rule}: k from 1 to n")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.number}of{self.count}"

    def rows(self, total: int, batch: int) -> slice:
        """Its part of ``total`` films that are done in batches of ``batch``.

        Raises PneumoError if there are fewer batches than shards.
        """
        batches = -(-total // batch)
        if batches < self.count:
            raise PneumoError(
                f"shard={self}: {total:,} films are {batches:,} batches of {batch} (batch_size), "
                f"so there can be at most {batches:,} shards"
            )
        begin, end = (batches * place // self.count for place in (self.number - 1, self.number))
        return slice(begin * batch, min(end * batch, total))


def whole_in(folder: Path) -> list[Shard]:
    """The shards whose folders lie in a folder, in order."""
    written = [NAMED.fullmatch(path.name) for path in folder.glob("*of*")]
    return sorted(Shard(*map(int, one.groups())) for one in written if one)


def count_in(folder: Path) -> int:
    """How many shards those are parts of that were begun in a folder; 0 if none was.

    Raises PneumoError if they are not parts of the same whole.
    """
    written = [BEGUN.fullmatch(path.name) for path in folder.glob("*of*")]
    counts = sorted({int(one[2]) for one in written if one})
    if len(counts) > 1:
        text = " and ".join(f"{count:,}" for count in counts)
        raise PneumoError(
            f"{folder}: holds shards of {text}, which cannot be joined; delete those of one count"
        )
    return counts[0] if counts else 0


def check_count(folder: Path, shard: Shard) -> None:
    """Raise PneumoError if a shard does not go with those that were begun in a folder."""
    if count_in(folder) not in (0, shard.count):
        raise PneumoError(
            f"shard={shard}: {folder} holds shards of {count_in(folder):,}; go on with these, or "
            "delete that folder"
        )


def lock_of(folder: Path, shard: Shard) -> Path:
    """The folder that a process holds (``runs.lock``) while it works on a shard."""
    return folder / f"{shard.folder}.lock"


class Fault(Exception):
    """Why a shard is not to be joined, in a few words that follow "is"."""


class NotJoined(PneumoError):
    """Shards that are not there, or do not belong together: what is wrong with each.

    ``command`` makes a shard, but for its number. Without it nothing is said of what to do.
    """

    def __init__(self, folder: Path, faults: Mapping[Shard, str], command: str = "") -> None:
        self.folder, self.faults = folder, faults
        self.typed: dict[str, str] = {}  # settings that the others were made with
        text = f"{folder}: not joined, shard "
        text += _shortened([f"{shard} is {fault}" for shard, fault in faults.items()])
        idle = [f"shard={shard}" for shard, fault in faults.items() if fault != WRITING]
        if command and idle:
            text += f"; make it: {command} {idle[0]}"
            text += f" (then {_shortened(idle[1:])})" if idle[1:] else ""
            text += f"; or delete {folder} to do all films at once"
        super().__init__(text)

    def __reduce__(self) -> tuple[type["NotJoined"], tuple[Path, Mapping[Shard, str]]]:
        return NotJoined, (self.folder, self.faults)


def _shortened(parts: list[str]) -> str:
    rest = [f"{len(parts) - SHOWN:,} more"] if len(parts) > SHOWN else []
    return ", ".join(parts[:SHOWN] + rest)


def collected(
    folder: Path,
    count: int,
    read: Callable[[Path, Shard], tuple[Sequence[int], Part]],
    verify: Callable[[Path, Part], None] = lambda place, part: None,
) -> list[Part]:
    """All shards of a folder, in order.

    Args:
        folder: that of the shards.
        count: how many there must be.
        read: a shard's folder → begin and end of its films, and what is to be joined; it raises
            Fault.
        verify: the same → what takes long to look at, once all else is as it must be; it raises
            Fault too.

    Raises:
        NotJoined: with what is wrong of each, unless all are there and each begins where the one
            before ends.
    """
    parts: list[Part] = []
    faults: dict[Shard, str] = {}
    end = 0
    for number in range(1, count + 1):
        shard = Shard(number, count)
        place = folder / shard.folder
        try:
            if runs.is_held(lock_of(folder, shard)):
                raise Fault(WRITING)
            if not place.is_dir():
                raise Fault("missing")
            ends, part = read(place, shard)
            if not faults and ends[0] != end:
                raise Fault("made with another batch_size than those before")
            end = ends[1]
            parts.append(part)
        except Fault as fault:
            faults[shard] = str(fault)
    if faults:
        raise NotJoined(folder, faults)
    for number, part in enumerate(parts, 1):
        try:
            verify(folder / Shard(number, count).folder, part)
        except Fault as fault:
            faults[Shard(number, count)] = str(fault)
    if faults:
        raise NotJoined(folder, faults)
    return parts
