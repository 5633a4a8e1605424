"""Shared by all tests: the real data's place, a small phantom data set, and how to run a command as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pneumo import phantom
from pneumo.config import PhantomData

os.environ["WANDB_MODE"] = "disabled"  # tests that mean Weights & Biases set their own
os.environ.setdefault("OMP_NUM_THREADS", "2")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("PNEUMO_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "siim" / "stage_2_train.csv.gz").is_file():
        pytest.skip("real SIIM-ACR files are not here; name their folder in PNEUMO_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Twenty-four phantom films, a third of them positive."""
    root = tmp_path_factory.mktemp("phantoms") / "set"
    phantom.generate(PhantomData(name="phantom", images=24, positive_rate=1 / 3, seed=3), root)
    return root


@pytest.fixture
def command(tmp_path):
    """Run ``python -m <module> <arguments>`` in an empty folder; returns the finished process with its text output."""

    def run(module: str, *arguments: str, **options) -> subprocess.CompletedProcess:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **options.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            **options,
        )

    return run
