"""Scores and thresholds of finished runs: ``python -m pneumo.evaluate run=runs/…/fold0-seed0``.

``-m postprocess.binarization_threshold=0.3,0.4,0.5`` sweeps, and ends with a table and a plot.
"""

import dataclasses
import json
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pneumo import command
from pneumo.evaluation.settings import Evaluate, Tune
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """One Hydra job: a single evaluation, or one of a sweep."""
    from pneumo.evaluation import evaluation, sweep  # torch takes seconds, and help needs none

    settings = checked(raw)
    overrides = list(HydraConfig.get().overrides.task)
    sweeping = HydraConfig.get().mode is RunMode.MULTIRUN
    if sweeping and not any(one.startswith("tune=") for one in overrides):
        settings = dataclasses.replace(settings, tune=Tune.none)  # a sweep scores what it sweeps
    found, path = evaluation.evaluate(settings)
    if sweeping:
        row = {
            "overrides": overrides,
            "films": found.films,
            "weights": found.weights,
            **found.declared.all.scores,
        }
        with open(Path(HydraConfig.get().sweep.dir) / sweep.JOBS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return
    print(evaluation.describe(found))
    print(f"\nIn full: {path}\nFilms one by one: {path.with_suffix('.csv')}")
    evaluation.track(settings, found, path)


if __name__ == "__main__":
    sys.argv[0] = "pneumo.evaluate"
    command.run(task, Evaluate, "evaluate", "commands")
