"""Several data sets in one → annotated films.

Every film keeps its id, with the name of its set before it where two sets have the same. A
patient's number means the same in one set only and so bears the set's name, but for NIH's and
CheXpert's, which all sets that read their films keep: a patient of two sets is one patient.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pneumo.data.films import Index, Item, across_sets, patients_from_films
from pneumo.data.settings import Data, SeveralData
from pneumo.errors import PneumoError


def read_index(data: SeveralData, read: Callable[[Data], Index]) -> Index:
    """The films of all sets but the one left out; ``read`` reads one. Raises PneumoError."""
    chosen = {name: one for name, one in data.each.items() if name != data.leave_out}
    found = {name: read(one) for name, one in chosen.items()}
    named = {name: _own(name, index.items) for name, index in found.items()}
    _check_apart(named)
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
            patient=None if (told := patients[item.id]) is None else across_sets(told, name),
            site=name if item.site is None else f"{name} {item.site}",
        )
        for item in items
    ]


def _check_apart(named: dict[str, list[Item]]) -> None:
    """Refuse a film that stands in two sets, where it might be trained on and held out."""
    place: dict[Path, str] = {}
    both = []
    for name, items in named.items():
        for item in items:
            other = place.setdefault(item.path.resolve(), name)
            if other != name:
                both.append(f"{item.path} in {other} and {name}")
    if both:
        raise PneumoError(
            f"data.sets: {len(both):,} films stand in two sets, so that they could be trained on "
            f"and held out at once, e.g. {both[0]}; give each film once"
        )
