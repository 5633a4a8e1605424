"""Settings of engines that cannot be are refused by name."""

import pytest

from pneumo.cluster.settings import Local, Ray, Slurm
from pneumo.errors import PneumoError


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


def test_what_sbatch_takes_is_taken():
    assert Slurm(time="2-12:00:00", options=["exclude=node3", "nice=100"]).time == "2-12:00:00"
