"""``python -m pneumo.train +experiment=exp5 …``: train an experiment, its parents first; then a table and the next command."""

import json
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pneumo import command, runs
from pneumo.training import lineage, sweep
from pneumo.training.lineage import NAMED
from pneumo.training.settings import SHARED, Config, load_config


def task(raw: DictConfig) -> None:
    """One Hydra job: a single run, or one of a sweep."""
    overrides = list(HydraConfig.get().overrides.task)
    typed = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key, name in zip(("tag", "variant"), runs.tags(overrides, SHARED, NAMED), strict=True):
        if key not in typed:
            raw[key] = name
    rows = lineage.train(load_config(raw), typed)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        with open(Path(HydraConfig.get().sweep.dir) / sweep.JOBS, "a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    else:
        print("\n" + sweep.table(rows))
        print(
            f"\nNext: look at the pictures in {rows[-1]['folder']}; scores, thresholds and a page of it:"
        )
        print(f"  python -m pneumo.evaluate run={rows[-1]['folder']}")
        print(f"  python -m pneumo.report runs_dir={raw.runs_dir}")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.train"
    command.run(task, Config, "train")
