"""Killed at thirty random moments between the first phantom and the report, and run again, the
commands end in what they end in when nobody disturbs them.
"""

import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from conftest import TINY
from starter import KILLED, Ended, Kill, Starter

from pneumo import seals

RUN = "run=runs/exp5/*/*"
KILLS = 30  # at least


class Stage(NamedTuple):
    """A command of the chain, and how often it is killed; what it does not come to is made up for
    in the next.
    """

    kills: int
    module: str
    arguments: Sequence[str]


CHAIN = (
    Stage(3, "phantoms", ("layout=candid", "out=candid", "images=8", "seed=3")),
    Stage(14, "train", ("+experiment=exp5", *TINY)),
    Stage(3, "predict", (RUN, "on=val")),
    Stage(2, "evaluate", (RUN, "on=val", "resamples=20")),
    Stage(2, "export", (RUN, "out=model", "onnx=true", "resamples=20", "licence=CC0")),
    Stage(3, "predict", ("model=model", "input=candid", "out=masks")),
    Stage(6, "report", ("resamples=20",)),
)


# Films are known by their size and the time they were written, which is another in each chain, and
# with it names of caches, keys of maps and what the report says of the data.
SAME_TIMES = """
from pneumo.data import cache
cache._state = lambda path: (path.stat().st_size, 0)
"""


@pytest.mark.slow
def test_thirty_kills_between_the_first_phantom_and_the_report_change_nothing(tmp_path):
    """The two chains differ in Python's hash seed, too, which orders sets."""
    unversioned = {"GIT_DIR": "none"}  # so that a commit meanwhile is not in what is compared
    quiet = Starter(tmp_path / "quiet", {**unversioned, "PYTHONHASHSEED": "1"})
    killed = Starter(tmp_path / "killed", {**unversioned, "PYTHONHASHSEED": "2"})
    dice, kills, owed = random.Random(13), 0, 0
    for stage in CHAIN:
        whole = quiet.run(stage.module, stage.arguments, before=SAME_TIMES)
        assert whole.status == 0, whole.said
        planned = stage.kills + owed
        done = disturbed(killed, stage, moments(whole, planned, dice), dice)
        kills, owed = kills + done, planned - done
    quiet.close()
    killed.close()
    assert kills >= KILLS
    expected, found = content(quiet.folder), content(killed.folder)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def moments(whole: Ended, count: int, dice: random.Random) -> dict[str, int]:
    """Some changes of files of a quiet run, each with how often it comes after the one before."""
    found: dict[str, int] = {}
    while len(found) < min(count, len(set(whole.changes))):
        found, before = {}, 0
        for place in sorted(dice.sample(range(len(whole.changes)), min(count, len(whole.changes)))):
            change = whole.changes[place]
            found.setdefault(change, Counter(whole.changes[before : place + 1])[change])
            before = place + 1
    return found


def disturbed(starter: Starter, stage: Stage, at: dict[str, int], dice: random.Random) -> int:
    """Run a command until it ends by itself, killing it at each of these moments: at how many."""
    left = dict(at)
    while True:
        late = dice.choice([0.0, dice.uniform(0, 0.02), dice.uniform(0, 1.0)])
        ended = starter.run(stage.module, stage.arguments, Kill(left, late), SAME_TIMES)
        # phantoms are not laid out where they lie already
        if ended.status == 0 or "out=candid: is there already" in ended.said:
            return len(at) - len(left)
        assert ended.status in KILLED, ended.said
        left.pop(next(one for one in reversed(ended.changes) if one in left))


# --- what is compared -----------------------------------------------------------------------------


def content(folder: Path) -> dict[str, Any]:
    """What a chain leaves, by file and folder, without the time it took and its place."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = None
        elif path.name not in (".lock", "train.log"):
            found[name] = _content(path, folder)
    return found


def _content(path: Path, folder: Path) -> Any:
    raw = path.read_bytes()
    if path.suffix == ".ckpt":
        state = torch.load(io.BytesIO(raw), weights_only=True)
        kept = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
        return {key: _bits(state[key]) for key in kept}
    if path.suffix not in (".json", ".yaml"):
        return raw
    text = raw.decode().replace(str(folder), ".")
    known = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    if isinstance(known, dict):
        known.pop(seals.KEY, None)  # of the place, too
    if path.name == "metrics.json":
        known.pop("train_seconds")
    return known


def _bits(value: Any) -> Any:
    """A checkpoint's values with the bytes of tensors in their place."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _bits(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_bits(one) for one in value]
    return value
