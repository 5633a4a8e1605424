"""What an evaluation found, typed; and the same as plain values, for JSON.

A score that cannot be known (of no films, or without both classes) is None and has no interval.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pneumo.evaluation import calibration
from pneumo.evaluation.scores import NARROW, PAIRED, Difference
from pneumo.masks.rule import plain
from pneumo.masks.settings import Postprocess
from pneumo.masks.truth import Truth


@dataclass
class Scored:
    """Scores of some films by their keys, with 95 % intervals where they were asked for."""

    films: int
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    positives: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        intervals = {key: list(bounds) for key, bounds in self.intervals.items()}
        return {"scores": self.scores, "intervals": intervals}


@dataclass
class Judgement:
    """All films under thresholds that came about as ``how`` says, and groups of films."""

    name: str
    how: str
    rules: list[Postprocess]
    all: Scored
    groups: dict[str, Scored] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        groups = {
            name: {"films": group.films, "positives": group.positives, **group.to_dict()}
            for name, group in self.groups.items()
        }
        return {
            "name": self.name,
            "how": self.how,
            "rules": [plain(rule) for rule in self.rules],
            **self.all.to_dict(),
            "groups": groups,
        }


@dataclass
class Point:
    """A point of a curve: what was asked for, the score from which it holds, and what holds there.

    ``threshold`` is None where not even the highest score may count.
    """

    wanted: float
    threshold: float | None
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **vars(self),
            "intervals": {key: list(pair) for key, pair in self.intervals.items()},
        }


@dataclass
class OfSize:
    """How positives whose masks have at least ``least_px`` pixels at 1024² stand out of negatives.

    Smaller positives are left out. ``scores`` are ``roc_auc`` of the films' score, and the
    ``sensitivity`` of the declared rule.
    """

    least_px: int
    positives: int
    negatives: int
    scores: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    at_specificities: list[Point] = field(default_factory=list)
    at_sensitivities: list[Point] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        points = {
            key: [point.to_dict() for point in getattr(self, key)]
            for key in ("at_specificities", "at_sensitivities")
        }
        intervals = {key: list(pair) for key, pair in self.intervals.items()}
        return {**vars(self), "intervals": intervals, **points}


@dataclass
class Comparison:
    """An evaluation minus that of another run, film by film."""

    run: str
    differences: dict[str, Difference]
    how: str = PAIRED  # what was compared, and how
    fits: tuple[int, int] = (1, 1)  # of each side

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain_values = {
            name: {key: known(value) for key, value in dataclasses.asdict(difference).items()}
            for name, difference in self.differences.items()
        }
        return {"run": self.run, "how": self.how, "fits": list(self.fits), **plain_values}


@dataclass
class Internal:
    """What a model scores on films of its own data that were held out, and where that is from."""

    scored: Scored
    how: str


@dataclass
class Drop:
    """A score of an external minus that of the internal validation, with a 95 % interval."""

    internal: float
    external: float
    difference: float
    interval: tuple[float, float] | None


@dataclass
class Evaluation:
    """Everything that was found of one or several runs on one set of films."""

    runs: list[str]
    weights: list[str]  # SHA-256, or a digest of several
    sizes: list[int]  # sides at which the networks saw the films, pixels
    on: str
    data: str
    tta: bool
    films: int
    positives: int
    patients: int
    films_of_unknown_patient: int
    left_out: int
    # of a validation part, that of the training part it belongs to; None: not known
    seen_in_training: int | None
    patients_in_training: int | None
    results: list[Judgement]
    pixels: calibration.Pixels | None  # None: which pixels show pneumothorax is not known
    commit: str | None
    command: str
    # of the declared result: its films at stated specificities, its lesions at false ones a film
    operating: list[Point] = field(default_factory=list)
    at_sensitivities: list[Point] = field(default_factory=list)  # its films at stated sensitivities
    by_size: list[OfSize] = field(default_factory=list)  # its positives of at least so many pixels
    froc: list[Point] = field(default_factory=list)
    # of the declared result's scores; None where no curve could be fitted on other films
    film_calibration: calibration.Films | None = None
    measures: dict[str, Any] = field(default_factory=dict)  # the rules they and shapes follow
    fits: int = 1  # trainings of one method, each judged for itself, where methods are compared
    against: Comparison | None = None
    truth: Truth = Truth.masks  # what is known of all of these films
    # of another data set: films left out since they or their patients were in training
    excluded: int = 0
    internal: Internal | None = None  # what was scored on its own data
    drops: dict[str, Drop] = field(default_factory=dict)  # these films' scores minus those
    readers: list[Any] = field(default_factory=list)  # second readers, see ``opinions.Opinion``

    @property
    def declared(self) -> Judgement:
        """The result under the thresholds that were declared beforehand."""
        return self.results[0]

    def result(self, name: str) -> Judgement | None:
        """The result of a name (declared, tuned, optimistic), if there is one."""
        return next((result for result in self.results if result.name == name), None)

    @property
    def warnings(self) -> list[str]:
        """What makes the scores worth less than they seem."""
        lines = []
        if self.seen_in_training:
            lines.append(
                f"{self.seen_in_training:,} of these films were in the training data of these "
                "weights"
            )
        elif self.seen_in_training is None:
            lines.append(
                "whether these films were in the training data of these weights is not known"
            )
        if self.patients_in_training:
            lines.append(
                f"{self.patients_in_training:,} of these films are of patients whose other films "
                "were in the training data"
            )
        if self.excluded:
            lines.append(
                f"{self.excluded:,} films of this set were left out: they, or others of their "
                "patients, were in the training data"
            )
        if self.left_out:
            lines.append(
                f"{self.left_out:,} films that belong to this set are not here, cannot be read, or "
                "nobody has said whether they show pneumothorax"
            )
        if self.films_of_unknown_patient and self.declared.all.intervals:
            lines.append(
                f"the patients of {self.films_of_unknown_patient:,} of these films are not known, "
                f"and each counts as one of its own: {NARROW}; data.patients= or patients= names "
                "them"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written beside the maps."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        values["warnings"] = self.warnings
        values["truth"] = self.truth.name
        values["internal"] = None
        if self.internal is not None:
            scored = {"films": self.internal.scored.films, **self.internal.scored.to_dict()}
            values["internal"] = {"how": self.internal.how, **scored}
        values["readers"] = [one.to_dict() for one in self.readers]
        values["drops"] = {key: vars(drop) for key, drop in self.drops.items()}
        values["results"] = [result.to_dict() for result in self.results]
        values["calibration"] = {
            "pixels": plain_values(values.pop("pixels")),
            "films": plain_values(values.pop("film_calibration")),
        }
        for key in ("operating", "at_sensitivities", "by_size", "froc"):
            values[key] = [point.to_dict() for point in getattr(self, key)]
        del values["against"]
        if self.against is not None:
            values["against"] = self.against.to_dict()
        return values


def plain_values(found: Any) -> Any:
    """A dataclass as plain values, NaN as None."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return {key: plain_values(value) for key, value in vars(found).items()}
    return known(found) if isinstance(found, float) else found


def known(value: float) -> float | None:
    """NaN, of a score that does not exist, is no JSON."""
    return float(value) if np.isfinite(value) else None
