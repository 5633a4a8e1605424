"""Train an experiment or a system: ``python -m pneumo.train +experiment=exp5 …``.

Its parents are trained first; what is finished is used as it is. Choose with group=option, set with
key=value; ``-m`` sweeps over lists, ``--cfg job`` prints the configuration without running it.
"""

import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import command
from pneumo.errors import PneumoError
from pneumo.training import lineage, processes, sweep
from pneumo.training.settings import Config, load_config


def task(raw: DictConfig) -> None:
    """One Hydra job: a single run, or one of a sweep."""
    overrides = list(HydraConfig.get().overrides.task)
    if processes.launched():
        raise PneumoError(
            "torchrun starts a fit that is saved already, python -m pneumo.cluster.job <run>; "
            "`python -m pneumo.train … machine.nodes=2`, by itself, says what to type"
        )
    lineage.name_run(raw, overrides)
    config = load_config(raw)
    if config.system is not None:
        rows = lineage.train_system(config.system, overrides)
    else:
        rows = lineage.train(config, overrides)
    if command.is_sweeping():
        command.keep_row(rows[-1])
        return
    print("\n" + sweep.table(rows))
    folder = rows[-1]["folder"]
    print(f"\nNext: look at the pictures in {folder}; scores, thresholds and a page of it:")
    if config.system is not None:
        print(f"  python -m pneumo.evaluate +system={config.system.name} runs_dir={raw.runs_dir}")
    else:
        print(f"  python -m pneumo.evaluate run={folder}")
    print(f"  python -m pneumo.report runs_dir={raw.runs_dir}")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.train"
    command.run(task, Config, "train")
