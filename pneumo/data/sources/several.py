"""Several data sets in one → annotated films.

Every film keeps its id, with the name of its set before it where two sets have the same. A
patient's number means the same in one set only and so bears the set's name, but for NIH's, which
all sets that read NIH's films keep: a patient who stands in two sets is one patient.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable

from pneumo.data.csv_files import NIH_PATIENT
from pneumo.data.films import Index, Item, patients_from_films
from pneumo.data.settings import Data, SeveralData


def read_index(data: SeveralData, read: Callable[[Data], Index]) -> Index:
    """The films of all sets but the one left out; ``read`` reads one. Raises PneumoError."""
    chosen = {name: one for name, one in data.each.items() if name != data.leave_out}
    found = {name: read(one) for name, one in chosen.items()}
    named = {name: _own(name, index.items) for name, index in found.items()}
    twice = Counter(item.id for items in named.values() for item in items)
    items, set_of = [], {}
    for name, own in named.items():
        for item in own:
            image = f"{name}/{item.id}" if twice[item.id] > 1 else item.id
            items.append(dataclasses.replace(item, id=image))
            set_of[image] = name
    left_aside = {
        f"{reason} ({name})": cases
        for name, index in found.items()
        for reason, cases in index.left_aside.items()
    }
    return Index(items, left_aside, set_of)


def _own(name: str, items: list[Item]) -> list[Item]:
    """The films of one set, with its name before patients and sites."""
    patients = {item.id: item.patient for item in items}
    if not any(patients.values()):
        patients.update(patients_from_films(items))
    return [
        dataclasses.replace(
            item,
            patient=_patient(name, patients[item.id]),
            site=name if item.site is None else f"{name} {item.site}",
        )
        for item in items
    ]


def _patient(name: str, patient: str | None) -> str | None:
    if patient is None or NIH_PATIENT.fullmatch(patient):
        return patient
    return f"{name}: {patient}"
