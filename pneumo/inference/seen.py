"""Which films, and patients, weights were trained on: as digests, so that a bundle can tell them.

Ids of films are compared as they are in their own set. A patient's means the same in one set only,
but for those that several sets share (``films.across_sets``).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pneumo.data.films import across_sets
from pneumo.inference.maps import Case


@dataclass(frozen=True)
class Trained:
    """Digests of the films, and of their patients, that weights were trained on."""

    films: frozenset[str]
    patients: frozenset[str]

    @classmethod
    def on(cls, films: Mapping[str, str | None], name: str) -> "Trained":
        """Of films with their patients, of a data set of this name."""
        patients = {across_sets(patient, name) for patient in films.values() if patient}
        return cls(frozenset(map(mark, map(_plain, films))), frozenset(map(mark, patients)))

    @classmethod
    def join(cls, each: Iterable["Trained"]) -> "Trained":
        """What any of several was trained on."""
        films, patients = zip(*((one.films, one.patients) for one in each), strict=True)
        none: frozenset[str] = frozenset()
        return cls(none.union(*films), none.union(*patients))

    def has(self, case: Case) -> bool:
        """Whether it was trained on this very film."""
        return mark(_plain(case.id)) in self.films

    def has_patient(self, case: Case, name: str) -> bool:
        """Whether it was trained on a film of the patient; ``name`` is that of the film's set."""
        return case.patient is not None and mark(across_sets(case.patient, name)) in self.patients

    def to_dict(self) -> dict[str, list[str]]:
        """Plain values, sorted so that their order tells nothing."""
        return {key: sorted(values) for key, values in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trained":
        """Of plain values."""
        return cls(*(frozenset(map(str, values[key])) for key in ("films", "patients")))


def _plain(image: str) -> str:
    """A film's id in its own set: where several sets are one, a set's name may stand before it."""
    return image.rpartition("/")[2]


def mark(text: str) -> str:
    """A digest that tells one id from another, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
