"""Disk, memory and device-hours of fits beforehand: ``python -m pneumo.plan +study=two_stage …``.

Takes what ``pneumo.train`` and ``pneumo.study`` take, sweeps too. A minute of the real fits is
measured on this machine (``measure=``) and scaled; beside it stands what finished runs took.
"""

import sys
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import command
from pneumo.cluster.settings import Planning
from pneumo.settings import checked

if TYPE_CHECKING:  # torch takes seconds, and help needs none
    from pneumo.cluster.graph import Fit


class Plans:
    """What the jobs of one command ask for."""

    def __init__(self) -> None:
        self.fits: list[Fit] = []

    def add(self, raw: DictConfig) -> None:
        """The fits of one Hydra job: a single command, or one of a sweep."""
        from pneumo.cluster import graph

        settings = checked(raw)
        self.seconds = settings.measure
        said = HydraConfig.get().overrides.task
        own = ("measure=", "sweep=", "hydra.")
        typed = [one for one in said if not one.lstrip("+").startswith(own)]
        self.fits += graph.of(settings, typed)

    def end(self) -> None:
        """Measure, and say what all of them need."""
        from pneumo.cluster import costs
        from pneumo.cluster.graph import Graph

        graph = Graph(self.fits)
        kinds = costs.kinds_of(graph, self.seconds)
        print(costs.table(kinds, graph).aligned())
        print("\n" + "\n".join(costs.told(kinds, graph)))


if __name__ == "__main__":
    sys.argv[0] = "pneumo.plan"
    plans = Plans()
    command.run(plans.add, Planning, "plan", end=plans.end)
