"""What a user sees of ``python -m pneumo.list``."""

import shutil

import pytest
from conftest import one, say


@pytest.fixture
def place(finished, tmp_path):
    """A folder with finished runs of one's own."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    return tmp_path


def test_runs_are_listed_with_state_scores_and_size_and_lose_their_checkpoints(place, monkeypatch):
    status, out, _ = say("list", [], place, monkeypatch)
    assert status == 0
    assert "Checkpoints of finished runs take" in out
    lines = [line for line in out.splitlines() if line.startswith("runs/exp5")]
    assert len(lines) == 2
    assert all(" finished " in line for line in lines)
    status, out, _ = say("list", ["prune=true"], place, monkeypatch)
    assert "Removed the checkpoints of 2 runs" in out
    assert not list((place / "runs").rglob("*.ckpt"))
    assert "prune" not in say("list", [], place, monkeypatch)[1]
    metrics = one(place, "exp5") / "metrics.json"
    kept = metrics.read_text()
    metrics.unlink()
    assert "stopped after epoch 4 of 4" in say("list", [], place, monkeypatch)[1]
    metrics.write_text(kept)
