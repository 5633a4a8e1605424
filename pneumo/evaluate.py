"""Scores and thresholds of finished runs: ``python -m pneumo.evaluate run=runs/…/fold0-seed0``.

``-m postprocess.binarization_threshold=0.3,0.4,0.5`` sweeps, and ends with a table and a plot.
"""

import dataclasses
import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import command
from pneumo.evaluation.settings import Evaluate, Tune
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """One Hydra job: a single evaluation, or one of a sweep."""
    from pneumo.evaluation import evaluation, wording  # torch takes seconds, and help needs none

    settings = checked(raw)
    overrides = list(HydraConfig.get().overrides.task)
    if command.is_sweeping() and not any(one.startswith("tune=") for one in overrides):
        settings = dataclasses.replace(settings, tune=Tune.none)  # a sweep scores what it sweeps
    found, path = evaluation.evaluate(settings, measured=not command.is_sweeping())
    if command.is_sweeping():
        about = {"overrides": overrides, "films": found.films, "weights": found.weights}
        command.keep_row({**about, **found.declared.all.scores})
        return
    print(wording.describe(found, settings.detail))
    print(f"\nIn full: {path}\nFilms one by one: {path.with_suffix('.csv')}")
    evaluation.track(settings, found, path)


if __name__ == "__main__":
    sys.argv[0] = "pneumo.evaluate"
    command.run(task, Evaluate, "evaluate", "commands")
