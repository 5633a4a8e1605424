"""What a user sees of ``python -m pneumo.submit``."""

import pytest
import torch
import yaml
from conftest import TINY, complaint, launch, one, say
from safetensors.torch import load_file


def test_mistakes_are_one_line_and_nothing_is_made(tmp_path, monkeypatch):
    def refused(*typed):
        status, _, errors = say("submit", list(typed), tmp_path, monkeypatch)
        assert status == 1
        assert len(errors.splitlines()) == 1
        return errors

    assert "did you mean cluster=slurm?" in refused("+experiment=exp5", "cluster=slrm")
    assert "belongs to cluster=slurm" in refused("+experiment=exp5", "cluster.partition=gpu")
    assert "no experiment chosen" in refused("data=phantom")
    phantoms = ("+experiment=exp2", "data=phantom", "model.encoder_weights=none")
    assert "cluster=local gives a fit one machine; use" in refused(*phantoms, "machine=nodes")
    assert not list(tmp_path.iterdir())


def test_help_lists_engines_and_what_is_trained(tmp_path, monkeypatch):
    status, out, _ = say("submit", ["--help"], tmp_path, monkeypatch)
    assert status == 0
    for shown in ("cluster=local|ray|slurm", "+study=", "+system=", "+experiment=", "+sweep="):
        assert shown in out


def test_status_of_finished_and_planned_fits_and_the_command_to_go_on(finished, monkeypatch):
    own = ["+experiment=exp5", *TINY]
    status, out, _ = say("submit", [*own, "status"], finished[0], monkeypatch)
    assert status == 0
    assert f"{one(finished[0], 'exp5').relative_to(finished[0])}  finished" in out
    assert "1 fit: 1 finished" in out
    status, out, _ = say("submit", ["-m", *own, "seed=0,1", "status"], finished[0], monkeypatch)
    assert status == 0
    assert "3 fits: 1 finished, 2 to be made" in out
    assert f"  python -m pneumo.submit -m {' '.join(own)} seed=0,1\n" in out


@pytest.mark.slow
def test_a_chain_in_processes_gives_what_a_training_gives(finished, tmp_path):
    """Bits and the recorded command are those of the fits alone."""
    own = ("+experiment=exp5", *TINY)
    done = launch(tmp_path, *own, "cluster.jobs=2", module="pneumo.submit")
    assert done.returncode == 0, done.stderr
    assert "2 fits: 2 finished" in done.stdout
    assert done.stdout.count(": begun") == 2
    for experiment in ("exp5_stage1", "exp5"):
        theirs, ours = one(finished[0], experiment), one(tmp_path, experiment)
        whole, split = (load_file(where / "weights.safetensors") for where in (theirs, ours))
        assert all(torch.equal(whole[key], split[key]) for key in whole)
        record = yaml.safe_load((ours / "config.yaml").read_text())
        assert record["origin"]["command"].startswith(
            "python -m pneumo.train +experiment=exp5 data=phantom"
        )
    again = launch(tmp_path, *own, module="pneumo.submit")
    assert again.returncode == 0
    assert "begun" not in again.stdout


@pytest.mark.slow
def test_a_fit_that_fails_is_listed_with_its_line_and_its_siblings_are_made(tmp_path):
    (tmp_path / "broken.py").write_text(
        "def loss(logits, masks):\n"
        "    if logits.requires_grad and len(logits) > 2:\n"
        "        raise RuntimeError('broken')\n"
        "    return logits.mean() * 0\n"
    )
    short = [argument for argument in TINY if not argument.startswith(("epochs", "averaging"))]
    own = (*short, "epochs=1", "averaging=none", "loss.own=null,broken.loss", "+experiment=exp2")
    done = launch(tmp_path, "-m", *own, module="pneumo.submit")
    assert "1 fit failed" in complaint(done)
    assert "2 fits: 1 finished, 1 failed" in done.stdout
    assert "failed: runs/exp2/" in done.stdout
    assert "RuntimeError: broken\n  python -m pneumo.train " in done.stdout
    assert "loss.own=broken.loss" in done.stdout
