"""What is missing is told with the command that needs it and the command that gets it."""

import re
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import constants

from pneumo.cluster import equipment
from pneumo.training import lineage

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def planned():
    """What ``+experiment=exp2 data=phantom`` composes to."""
    return lineage.declared(["+experiment=exp2", "data=phantom"])


def found(config, monkeypatch, **env):
    """Every finding by its name."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, str(value))
    return {one.name: one for one in equipment.findings(config)}


def test_every_extra_of_the_project_is_looked_for():
    extras = {
        extra: {re.match(r"[\w-]+", one)[0] for one in wanted}
        for extra, wanted in PROJECT["optional-dependencies"].items()
    }
    assert set(extras) == set(equipment.EXTRAS)
    for extra, (packages, _) in equipment.EXTRAS.items():
        assert set(packages) == extras[extra] or (extra == "dev" and set(packages) < extras[extra])


def test_the_versions_of_python_are_those_of_the_project():
    least, below = (".".join(map(str, one)) for one in equipment.PYTHON)
    assert PROJECT["requires-python"] == f">={least},<{below}"


def test_a_missing_package_is_told_with_who_needs_it_and_how_it_is_had(planned, monkeypatch):
    known = equipment.version_of
    monkeypatch.setattr(
        equipment, "version_of", lambda one: None if one in ("ray", "timm") else known(one)
    )
    told = found(planned, monkeypatch)
    assert str(told["extra ray"]) == (
        "missing  extra ray         ray: pneumo.submit cluster=ray; pip install -e '.[ray]'"
    )
    assert not told["extra ray"].is_vital
    assert told["packages"].is_vital
    assert re.search(r"every command needs timm[<>=.,\d]+: pip install", told["packages"].told)


def test_a_place_that_cannot_be_written_to_is_told_and_nothing_is_left_behind(
    planned, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(planned, "runs_dir", str(tmp_path / "file" / "runs"))
    monkeypatch.setattr(planned.data, "cache", str(tmp_path / "films" / "cache"))
    told = found(planned, monkeypatch)
    assert "runs_dir=<folder> chooses another" in told["runs_dir"].told
    assert not told["runs_dir"].is_here
    assert told["data.cache"].is_here
    assert "to be made" in told["data.cache"].told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_encoder_weights_are_looked_for_where_the_hub_s_client_keeps_them(
    planned, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    lacking = found(planned, monkeypatch)["encoder weights"]
    assert not lacking.is_here
    assert "first fit fetches them" in lacking.told
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE keeps" in found(planned, monkeypatch)["encoder weights"].told
    kept = tmp_path / "models--smp-hub--resnet34.imagenet" / "snapshots" / "7a57"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").write_bytes(b"")
    assert found(planned, monkeypatch)["encoder weights"].is_here


def test_a_login_is_known_by_the_key_that_was_kept(planned, tmp_path, monkeypatch):
    keys = tmp_path / "netrc"
    assert not found(planned, monkeypatch, NETRC=keys)["W&B login"].is_here
    keys.write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    told = found(planned, monkeypatch, NETRC=keys)["W&B login"]
    assert told.is_here
    assert "secret" not in told.told
    own = found(planned, monkeypatch, NETRC=keys, WANDB_BASE_URL="https://wandb.ours.org")
    assert not own["W&B login"].is_here
    assert found(planned, monkeypatch, NETRC=keys, WANDB_MODE="offline")["W&B login"].is_here
