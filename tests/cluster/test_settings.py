"""Settings of engines that cannot be are refused by name."""

import pytest

from pneumo.cluster.settings import Local, Ray, Slurm
from pneumo.errors import PneumoError
from pneumo.settings import Machine


@pytest.mark.parametrize(
    ("engine", "wrong", "said"),
    [
        (Local, {"jobs": -1}, r"cluster\.jobs=-1"),
        (Local, {"memory": 0}, r"cluster\.memory=0"),
        (Slurm, {"time": "a day"}, r"cluster\.time=a day: must be \[days-\]hours:minutes:seconds"),
        (Slurm, {"options": ["--exclude=node3"]}, r"cluster\.options.*without dashes"),
        (Slurm, {"gpus": -1}, r"cluster\.gpus"),
        (Ray, {"cpus": 0}, r"cluster\.cpus"),
    ],
)
def test_a_value_that_cannot_be_is_named(engine, wrong, said):
    with pytest.raises(PneumoError, match=said):
        engine(**wrong)


@pytest.mark.parametrize(
    ("engine", "machine", "said"),
    [
        (Local(), {"nodes": 2}, "machine.nodes=2: cluster=local gives a fit one machine; use"),
        (Ray(), {"nodes": 2}, "machine.nodes=2: cluster=ray gives a fit one machine; use"),
        (Slurm(), {"devices": 2}, "cluster.gpus=1: must be at least machine.devices=2, or 0"),
        (Ray(gpus=0.5), {"devices": 2}, "cluster.gpus=0.5: must be at least machine.devices=2"),
    ],
)
def test_devices_that_an_engine_cannot_give_a_fit_are_named(engine, machine, said):
    with pytest.raises(PneumoError, match=said):
        engine.check(Machine(**machine))


def test_as_many_devices_as_a_fit_gets_are_fine():
    Slurm(gpus=2).check(Machine(devices=2, nodes=3))
    Slurm(gpus=0).check(Machine(devices=2))
    Ray(gpus=1).check(Machine(devices=2, accelerator="cpu"))
    Local().check(Machine(devices=2))


def test_what_sbatch_takes_is_taken():
    assert Slurm(time="2-12:00:00", options=["exclude=node3", "nice=100"]).time == "2-12:00:00"
