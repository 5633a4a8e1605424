"""What this machine has, and what is missing for which command: ``python -m pneumo.doctor``.

One line each, without asking the network. What a training takes (``+experiment=exp5 data.root=…``)
is looked for as that training would need it.
"""

import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from pneumo import command
from pneumo.cluster import equipment
from pneumo.cluster.settings import Checkup
from pneumo.errors import PneumoError
from pneumo.settings import checked
from pneumo.training import lineage


def task(raw: DictConfig) -> None:
    """The command."""
    settings = lineage.scaled(checked(raw), list(HydraConfig.get().overrides.task))
    vital = []
    for finding in equipment.findings(settings):
        print(finding, flush=True)
        if finding.is_vital:
            vital.append(finding.name)
    if vital:
        raise PneumoError(f"most commands will not work: {', '.join(vital)}; see above")


if __name__ == "__main__":
    sys.argv[0] = "pneumo.doctor"
    command.run(task, Checkup, "doctor")
