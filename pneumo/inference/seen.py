"""Which films, and patients, weights were trained on: as digests, so that a bundle can tell them.

Ids of films are compared as they are. Those of patients mean the same in one data set only, but for
NIH's, which other sets that read NIH's films keep: eight digits.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pneumo.inference.maps import Case

NIH_PATIENT = re.compile(r"\d{8}")


@dataclass(frozen=True)
class Trained:
    """Digests of the films, and of their patients, that weights were trained on."""

    films: frozenset[str]
    patients: frozenset[str]
    sets: frozenset[str]  # names of the data sets

    @classmethod
    def on(cls, films: Mapping[str, str | None], name: str) -> "Trained":
        """Of films with their patients, of a data set of this name."""
        patients = {patient for patient in films.values() if patient}
        return cls(frozenset(map(mark, films)), frozenset(map(mark, patients)), frozenset({name}))

    @classmethod
    def join(cls, each: Iterable["Trained"]) -> "Trained":
        """What any of several was trained on."""
        films, patients, sets = zip(
            *((one.films, one.patients, one.sets) for one in each), strict=True
        )
        none: frozenset[str] = frozenset()
        return cls(none.union(*films), none.union(*patients), none.union(*sets))

    def has(self, case: Case) -> bool:
        """Whether it was trained on this very film."""
        return mark(case.id) in self.films

    def has_patient(self, case: Case, name: str) -> bool:
        """Whether it was trained on a film of the patient; ``name`` is that of the film's set."""
        if case.patient is None or not (name in self.sets or NIH_PATIENT.fullmatch(case.patient)):
            return False
        return mark(case.patient) in self.patients

    def to_dict(self) -> dict[str, list[str]]:
        """Plain values, sorted so that their order tells nothing."""
        return {key: sorted(values) for key, values in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trained":
        """Of plain values."""
        return cls(*(frozenset(map(str, values[key])) for key in ("films", "patients", "sets")))


def mark(text: str) -> str:
    """A digest that tells one id from another, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
