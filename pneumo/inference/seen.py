"""Which films, and patients, weights were trained on: as digests, so that a bundle can tell them.

Ids of films are compared as they are. Those of patients mean the same in one data set only, but for
NIH's, which other sets that read NIH's films keep: eight digits.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pneumo.data.csv_files import NIH_PATIENT
from pneumo.inference.maps import Case


@dataclass(frozen=True)
class Trained:
    """Digests of the films, and of their patients, that weights were trained on."""

    films: frozenset[str]
    patients: frozenset[str]
    sets: frozenset[str]  # names of the data sets

    @classmethod
    def on(cls, films: Mapping[str, str | None], *sets: str) -> "Trained":
        """Of films with their patients, of data sets of these names.

        Of several sets, names stand before the patients, and may before the films.
        """
        known = {_own(image, "/", sets) for image in films}
        patients = {_own(patient, ": ", sets) for patient in films.values() if patient}
        return cls(frozenset(map(mark, known)), frozenset(map(mark, patients)), frozenset(sets))

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


def _own(name: str, separator: str, sets: Sequence[str]) -> str:
    """What a film or patient is called in its own set."""
    first, _, rest = name.partition(separator)
    return rest if rest and first in sets else name


def mark(text: str) -> str:
    """A digest that tells one id from another, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
