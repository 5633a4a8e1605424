"""Five experiments in the least size, and what they come to without a cluster."""

import pytest
import torch
import yaml
from conftest import launch
from safetensors.torch import load_file

FIVE = (
    *("-m", "+experiment=exp1,exp2,exp3,exp4,exp5"),
    *("data=phantom", "data.images=24", "data.seed=3", "scale=mini", "scale.positive_rate=0.34"),
    *("scale.size=0.125", "scale.epochs=0.03", "scale.least_epochs=3"),
    *("log.pictures=0", "log.wandb=disabled", "machine.threads=1"),
    "model.encoder=tu-test_resnet",
)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The folder in which ``python -m pneumo.train`` made the five."""
    folder = tmp_path_factory.mktemp("sweep")
    done = launch(folder, *FIVE)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def same_bits(sweep):
    """Whether what an engine made in a folder is what the sweep made; the run that began twice."""

    def check(folder, twice):
        runs = [path.parent.relative_to(folder) for path in folder.glob("runs/*/*/*/job.json")]
        assert len(runs) == 7
        for run in runs:
            ours, theirs = (
                load_file(where / run / "weights.safetensors") for where in (folder, sweep)
            )
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs), run
            log = (folder / run / "train.log").read_text()
            assert log.count("# 20") == 1 + (run == twice.relative_to(folder)), run
            record = yaml.safe_load((folder / run / "config.yaml").read_text())
            assert record["origin"]["command"].startswith("python -m pneumo.train +experiment=")

    return check
