"""Search over settings by Optuna: ``python -m pneumo.search +experiment=exp5 +search=lr``.

Every trial is a run that ``pneumo.train`` can make, and ends in one validation score. What is tried
is a list for each setting: ``[1e-4,1e-2,log]`` and ``[8,64,int]`` are ranges (linear, log, int, or
int and log), ``[paper,none]`` are choices:
``'search.space={lr:[1e-4,1e-2,log],averaging:[paper,none]}' search.trials=20``.
The same command goes on where it was stopped; several of it share the trials.
"""

import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import command
from pneumo.settings import checked
from pneumo.training import lineage, search
from pneumo.training.settings import SearchFits


def task(raw: DictConfig) -> None:
    """The command."""
    wanted = checked(raw.search)  # the rest may be no fit before something is tried
    said = HydraConfig.get().overrides.task
    typed = [one for one in said if not one.lstrip("+").startswith(("search=", "search."))]
    trials = search.search(wanted, typed)
    print("\n" + search.table(trials).aligned())
    best = trials.finished()[:1]
    for one in best:
        print(f"\nBest, trial {one.number + 1}; its run is finished, and is made anew by")
        print(f"  {lineage.command_of([*typed, *trials.typed(one)])}")
    print(f"\nTable: {trials.folder / search.TABLE}")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.search"
    command.run(task, SearchFits, "search")
