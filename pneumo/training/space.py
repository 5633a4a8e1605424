"""What a search tries: ranges and choices of settings, and what can be no part of a search."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pneumo import runs
from pneumo.errors import PneumoError
from pneumo.settings import OPTIONS, fields, keys, no_such_setting, options_of
from pneumo.training.settings import Config

LINEAR, LOG, INT = "linear", "log", "int"
HOW = "[low,high,linear], [low,high,log], [low,high,int], [low,high,int,log], or a list of choices"
# what decides which films a trial is judged on, or how many
JUDGING = ("data", "split", "fold", "seed", "scale")


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    whole: bool  # whole numbers alone
    log: bool  # equal factors are equally likely, not equal differences

    @property
    def samples(self) -> list[str]:
        """Its ends, as they are typed."""
        return [self.typed(self.low), self.typed(self.high)]

    def typed(self, value: float) -> str:
        """A value as it is typed: three digits say enough, and stay within the range."""
        if self.whole:
            return str(int(value))
        return repr(min(max(float(f"{value:.3g}"), self.low), self.high))

    def __str__(self) -> str:
        words = ", whole numbers" * self.whole + ", logarithmic" * self.log
        return f"{self.samples[0]} to {self.samples[1]}{words}"


@dataclass(frozen=True)
class Choices:
    """Some values, as they are typed."""

    samples: list[str]

    def __str__(self) -> str:
        return f"one of {' '.join(self.samples)}"


Searched = Range | Choices


def read(wanted: Mapping[str, Any], typed: Sequence[str]) -> dict[str, Searched]:
    """The space of a search by its keys; a key may be nested as in YAML or joined by dots.

    Args:
        wanted: ``search.space`` as it was composed.
        typed: what was typed besides, which no trial may set anew.

    Raises:
        PneumoError: nothing to search, a setting that does not exist or does not belong into a
            search, or a range or choice that is none.
    """
    space = {}
    for key, values in runs.leaves(dict(wanted)).items():
        _check_key(key, typed)
        space[key] = _searched(key, values)
    if not space:
        raise PneumoError(
            "search.space is not set: say what is tried, "
            "'search.space={lr:[1e-4,1e-2,log],averaging:[paper,none]}', or add +search=<name>, "
            f"one of {', '.join(options_of('search'))}"
        )
    return space


def _check_key(key: str, typed: Sequence[str]) -> None:
    """Raise PneumoError for a key that does not exist, or that is no part of what is learnt."""
    section = key.partition(".")[0]
    if section == "postprocess":
        raise PneumoError(
            f"search.space: {key}: thresholds are not searched by training; "
            "python -m pneumo.evaluate run=<run> chooses them from its maps"
        )
    if section in JUDGING:
        raise PneumoError(
            f"search.space: {key}: changes what a trial is judged by, so that trials could not be "
            f"compared; type {key}=<value> beside the search"
        )
    known = dict(fields(Config))
    if key not in known:
        raise PneumoError(f"search.space: {no_such_setting(key, Config)}")
    aside = [*keys(Config, "incidental"), *keys(Config, "named"), *keys(Config, "place"), "system"]
    if key in aside or section in aside:
        raise PneumoError(f"search.space: {key}: a name or a place, not what is learnt or how")
    inner = [one for one in known if one.startswith(f"{key}.")]
    if inner and key not in OPTIONS and not options_of(key):
        raise PneumoError(f"search.space: {key}: a group of settings; name one of it, {inner[0]}")
    for one in typed:
        theirs = one.lstrip("+").partition("=")[0]
        if theirs == key:
            raise PneumoError(f"search.space: {key}: is typed, too ({one}); leave out either")


def _searched(key: str, listed: Any) -> Searched:
    """A range or choices, from a list. Raises PneumoError."""
    if not isinstance(listed, list):
        raise PneumoError(f"search.space: {key}={listed}: must be {HOW}")
    values = list(listed)
    words = []
    while values and values[-1] in (LINEAR, LOG, INT):
        words.append(values.pop())
    if not words:
        return _choices(key, values)
    said = f"search.space: {key}=[{','.join(map(str, listed))}]"
    numbers = [one for one in values if isinstance(one, int | float) and math.isfinite(one)]
    if len(values) != 2 or len(numbers) != 2 or {LINEAR, LOG} <= set(words):
        raise PneumoError(f"{said}: must be {HOW}")
    if options_of(key):
        raise PneumoError(f"{said}: has names, not numbers: {', '.join(options_of(key))}")
    low, high = numbers
    whole, log = INT in words, LOG in words
    if low >= high:
        raise PneumoError(f"{said}: an empty range; the lower end comes first")
    if whole and any(one != int(one) for one in numbers):
        raise PneumoError(f"{said}: ends of a range of whole numbers are whole numbers")
    if log and low <= 0:
        raise PneumoError(f"{said}: a logarithmic range begins above 0")
    return Range(low, high, whole, log)


def _choices(key: str, values: Sequence[Any]) -> Choices:
    samples = [_typed(one) for one in values]
    if len(samples) < 2 or len(set(samples)) < len(samples):
        told = ",".join(samples)
        raise PneumoError(f"search.space: {key}=[{told}]: at least two choices, each once")
    names = options_of(key)
    for one in samples:
        if names and one not in names:
            raise PneumoError(
                f"search.space: {key}={one}: no such choice; one of {', '.join(names)}"
            )
    return Choices(samples)


def _typed(value: Any) -> str:
    """A value as Hydra's grammar has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    text = str(value)
    if re.fullmatch(r"[\w./:+-]+", text, re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
