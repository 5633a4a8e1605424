"""What submitting, planning and the doctor take: which engine, and what a fit may use there."""

import re
from dataclasses import dataclass
from enum import Enum

from pneumo.errors import PneumoError
from pneumo.evaluation.settings import StudyFits
from pneumo.settings import Machine, declare, register, register_options, require
from pneumo.training.settings import Config


class Action(Enum):
    """What is done with the fits."""

    submit = "submit"
    status = "status"


@dataclass
class Cluster:
    """An engine that runs fits, and what each of them may use."""

    name: str = declare(help="name of the engine")
    memory: float = declare(8.0, "main memory that a fit takes, GB")

    def __post_init__(self) -> None:
        require(self.memory > 0, "cluster.memory", self.memory, "above 0")

    def check(self, machine: Machine) -> None:
        """Raise PneumoError for a fit that this engine cannot give the devices it needs."""
        if machine.nodes > 1:
            raise PneumoError(
                f"machine.nodes={machine.nodes}: cluster={self.name} gives a fit one machine; use "
                "cluster=slurm, or python -m pneumo.train, which says what to type on each node"
            )


@dataclass
class Local(Cluster):
    """Processes on this machine."""

    name: str = declare("local", "name of the engine")
    jobs: int = declare(
        0, "fits at a time; 0: one for each GPU or, without one, as cores and memory allow"
    )

    def __post_init__(self) -> None:
        Cluster.__post_init__(self)
        require(self.jobs >= 0, "cluster.jobs", self.jobs, "0 (as many as fit) or more")


@dataclass
class Slurm(Cluster):
    """Jobs of SLURM, by submitit."""

    name: str = declare("slurm", "name of the engine")
    partition: str | None = declare(None, "partition of SLURM; null: its own default")
    account: str | None = declare(None, "account of SLURM; null: its own default")
    qos: str | None = declare(None, "quality of service of SLURM; null: its own default")
    time: str = declare("1-00:00:00", "limit of one attempt, [days-]hours:minutes:seconds")
    notice: int = declare(
        120, "seconds before that limit at which a fit is told to save itself and is queued again"
    )
    cpus: int = declare(4, "cores of a fit")
    gpus: int = declare(1, "GPUs of a fit; 0 for none")
    options: list[str] = declare(
        factory=list, help="more options of sbatch, as [exclude=node3,nice=100]"
    )
    setup: list[str] = declare(
        factory=list, help="lines of shell before a fit, as ['module load cuda']"
    )

    def __post_init__(self) -> None:
        Cluster.__post_init__(self)
        rule = "[days-]hours:minutes:seconds, such as 12:00:00"
        require(re.fullmatch(TIME, self.time) is not None, "cluster.time", self.time, rule)
        require(self.notice >= 1, "cluster.notice", self.notice, "at least 1")
        require(self.cpus >= 1, "cluster.cpus", self.cpus, "at least 1")
        require(self.gpus >= 0, "cluster.gpus", self.gpus, "0 or more")
        for one in self.options:
            written = re.fullmatch(r"[a-z][a-z-]*=\S+", one) is not None
            require(written, "cluster.options", one, "name=value without dashes")

    def check(self, machine: Machine) -> None:
        """As of all engines; several nodes are given."""
        _check_gpus(self.gpus, machine)


TIME = r"(\d+-)?\d{1,3}:\d\d:\d\d"


@dataclass
class Ray(Cluster):
    """Tasks of Ray."""

    name: str = declare("ray", "name of the engine")
    address: str | None = declare(
        None, "of a cluster, or auto; null: one on this machine for as long as the fits take"
    )
    cpus: float = declare(1.0, "cores of a fit")
    gpus: float = declare(0.0, "GPUs of a fit; .5 lets two share one")
    retries: int = declare(3, "attempts after a worker died")

    def __post_init__(self) -> None:
        Cluster.__post_init__(self)
        require(self.cpus > 0, "cluster.cpus", self.cpus, "above 0")
        require(self.gpus >= 0, "cluster.gpus", self.gpus, "0 or more")
        require(self.retries >= 0, "cluster.retries", self.retries, "0 or more")

    def check(self, machine: Machine) -> None:
        """As of all engines."""
        Cluster.check(self, machine)
        _check_gpus(self.gpus, machine)


def _check_gpus(given: float, machine: Machine) -> None:
    """Raise PneumoError if a fit gets GPUs, but fewer on a node than it has devices there."""
    few = 0 < given < machine.devices and machine.accelerator != "cpu"
    rule = f"at least machine.devices={machine.devices}, or 0 for a fit on the CPU"
    require(not few, "cluster.gpus", f"{given:g}", rule)


@dataclass
class Submit(StudyFits):
    """What ``python -m pneumo.submit`` takes: an experiment, a system or a study, and where."""

    cluster: Cluster = declare(help="where the fits are made")
    action: Action = declare(
        Action.submit, "submit, or status: what is finished, running, waiting and failed"
    )
    report: bool = declare(
        False, "once all fits are finished, judge the study, or make the report of all runs"
    )


@dataclass
class Planning(StudyFits):
    """What ``python -m pneumo.plan`` takes: an experiment, a system or a study."""

    measure: float = declare(
        60.0, "seconds of measuring, all kinds of steps together; 0 goes by finished runs alone"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.measure >= 0, "measure", self.measure, "0 or more")


@dataclass
class Checkup(Config):
    """What ``python -m pneumo.doctor`` takes: what a training takes, to see what that needs."""


OWN = ("action", "cluster", "report")  # what is no setting of the fits

register_options("cluster", local=Local, slurm=Slurm, ray=Ray)
register("doctor_schema", Checkup)
register("plan_schema", Planning)
register("submit_schema", Submit)
