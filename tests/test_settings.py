"""What all settings share: what is known of a key, and what is refused."""

from dataclasses import dataclass
from enum import Enum

import pytest

from pneumo.errors import PneumoError
from pneumo.settings import Machine, declare, default_of, fields, keys, nearest, settings_from


class Kind(Enum):
    big = "of large size"


@dataclass
class Fit:
    epochs: int = declare(3, "how long it lasts")
    lr: float = declare(0.1, "the learning rate")
    root: str | None = declare(None, "folder of the films", place=True)
    own: bool = declare(True, "whether it is")
    kind: Kind = declare(Kind.big, "how large")
    machine: Machine = declare(factory=Machine, help="where the work is done")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("epocs", "epochs"),
        ("learning_rate", "lr"),
        ("devices", "machine.devices"),
        ("machine.thread", "machine.threads"),
        ("xyzzy", None),
    ],
)
def test_a_key_that_does_not_exist_is_understood_by_spelling_part_or_meaning(typed, meant):
    assert nearest(typed, Fit) == meant


def test_what_a_field_declares_is_known_by_its_key():
    assert keys(Fit, "place") == ["root"]
    assert "machine.accelerator" in keys(Fit)
    defaults = {key: default_of(one) for key, one in fields(Fit) if key != "machine"}
    shown = {key: defaults[key] for key in ("epochs", "root", "own", "kind")}
    assert shown == {"epochs": "3", "root": "null", "own": "true", "kind": "big"}


def test_recorded_values_take_todays_default_where_they_lack_one_and_nothing_else():
    assert settings_from(Fit, {"epochs": 5, "kind": "big"}) == Fit(epochs=5)
    for wrong in ({"epocs": 5}, {"epochs": "five"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            settings_from(Fit, wrong)


@pytest.mark.parametrize(
    "wrong", [{"devices": 0}, {"nodes": 0}, {"workers": -2}, {"threads": -1}, {"precision": "64"}]
)
def test_a_machine_that_cannot_be_is_refused_by_its_key(wrong):
    ((key, value),) = wrong.items()
    with pytest.raises(PneumoError, match=f"machine.{key}={value}: must be"):
        Machine(**wrong)
