"""Hand over fits to a cluster: ``python -m pneumo.submit +study=two_stage cluster=slurm``.

Takes what ``pneumo.train`` and ``pneumo.study`` take, sweeps too. Parents are made before children,
each fit once; what is finished is left out. ``status`` behind the same words shows how far all is.
"""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import command
from pneumo.cluster.settings import OWN, Action, Local, Ray, Slurm, Submit
from pneumo.errors import PneumoError
from pneumo.settings import checked
from pneumo.tables import counted

if TYPE_CHECKING:  # torch takes seconds, and help needs none
    from pneumo.cluster.graph import Fit, Graph
    from pneumo.cluster.state import Standing


STATUS = ("status", "action=status")


class Submission:
    """What the jobs of one command ask for."""

    def __init__(self) -> None:
        self.fits: list[Fit] = []
        self.typed = [one for one in sys.argv[1:] if one not in STATUS]

    def add(self, raw: DictConfig) -> None:
        """Plan what one Hydra job asks for: a single command, or one of a sweep."""
        from pneumo.cluster import graph

        self.settings: Submit = checked(raw)
        said = list(HydraConfig.get().overrides.task)
        typed = [one for one in said if _section(one) not in (*OWN, "sweep", "hydra")]
        self.fits += graph.of(self.settings, typed)

    def end(self) -> None:
        """Hand the fits over, or say how far they are."""
        from pneumo.cluster import local, ray, slurm, state
        from pneumo.cluster.graph import Graph

        graph = Graph(self.fits)
        if self.settings.action is Action.status:
            print(state.table(self._standings(graph)))
        else:
            for fit in graph.left:
                self.settings.cluster.check(fit.config.machine)
            graph.check()
            match self.settings.cluster:
                case Slurm():
                    place = Path(self.settings.runs_dir)
                    last = self._judge() if self.settings.report else []
                    count = slurm.submit(graph, self.settings.cluster, place, last)
                    print(f"{counted(count, 'fit')} handed to SLURM")
                case Ray():
                    self._shown(graph, ray.make(graph, self.settings.cluster))
                case Local():
                    self._shown(graph, local.make(graph, self.settings.cluster))
        self._conclude(graph)
        here = self.settings.action is Action.submit and not graph.left
        if here and self.settings.report:
            sys.exit(subprocess.run([sys.executable, "-m", *self._judge()], check=False).returncode)

    def _standings(self, graph: "Graph") -> "dict[Path, Standing]":
        """How far each fit is, also by what SLURM says where that is the engine."""
        from pneumo.cluster import slurm, state

        asked = isinstance(self.settings.cluster, Slurm)
        return state.standings(graph, slurm.standings(graph) if asked else {})

    def _shown(self, graph: "Graph", now: "list[dict[str, Any]]") -> None:
        """The table of the finished fits, those that were made now with the time they took."""
        from pneumo.training import lineage, sweep

        made = {row["folder"]: row for row in now}
        rows = [
            made.get(str(path)) or lineage.row(fit.config, False, 0.0)
            for path, fit in graph.fits.items()
            if path in graph.done
        ]
        if rows:
            print("\n" + sweep.table(rows))

    def _judge(self) -> list[str]:
        """The command that says what the fits are worth."""
        if self.settings.study is None:
            return ["pneumo.report", f"runs_dir={self.settings.runs_dir}"]
        words = [one for one in self.typed if _section(one) not in OWN]
        return ["pneumo.study", *words]

    def _conclude(self, graph: "Graph") -> None:
        """How many fits are how far, which failed and why, and what to do next.

        Raises PneumoError if some failed.
        """
        from pneumo.cluster import state

        found = self._standings(graph)
        print("\n" + "\n".join([*state.failures(graph, found), state.told(found)]), flush=True)
        if not graph.left:
            print(f"\nNext: scores and tables:\n  {shlex.join(['python', '-m', *self._judge()])}")
            return
        how = shlex.join(["python", "-m", "pneumo.submit", *self.typed])
        print(f"\nTo go on from what is finished:\n  {how}\nHow far it is:\n  {how} status")
        lost = [one for one in found.values() if one.state in state.LOST]
        if lost and self.settings.action is Action.submit:
            raise PneumoError(f"{counted(len(lost), 'fit')} failed or cannot be made; see above")


def _section(override: str) -> str:
    return override.lstrip("+").partition("=")[0].partition(".")[0]


if __name__ == "__main__":
    sys.argv = ["pneumo.submit", *sys.argv[1:]]
    submission = Submission()
    sys.argv[1:] = [STATUS[1] if one == STATUS[0] else one for one in sys.argv[1:]]
    command.run(submission.add, Submit, "submit", end=submission.end)
