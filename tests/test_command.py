"""What all command lines share."""

import subprocess
import sys

import pytest
from conftest import say


def test_reading_only_the_beginning_of_what_is_printed_is_no_error(finished):
    """As in ``python -m pneumo.list | head -1``."""
    command = [sys.executable, "-u", "-c", HEAD, sys.executable]
    done = subprocess.run(command, cwd=finished[0], capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert done.stdout.startswith("run ")


HEAD = """
import subprocess, sys
one = subprocess.Popen([sys.argv[1], "-m", "pneumo.list"], stdout=subprocess.PIPE)
print(one.stdout.readline().decode())
one.stdout.close()
one.wait()
"""


def test_help_gives_every_setting_with_its_default(tmp_path, monkeypatch):
    status, out, _ = say("list", ["--help"], tmp_path, monkeypatch)
    assert status == 0
    settings = [line.split()[:2] for line in out.splitlines() if line.startswith("  ")]
    assert settings == [["runs_dir", "runs"], ["prune", "false"]]


def test_a_place_may_have_blanks_brackets_and_quotes(tmp_path, monkeypatch):
    place = "my runs (1), o'clock"
    status, _, errors = say("list", [f"runs_dir={place}"], tmp_path, monkeypatch)
    assert (status, errors) == (1, f"error: runs_dir={place}: no such folder\n")
    (tmp_path / place).mkdir()
    status, out, _ = say("list", [f"runs_dir={place}"], tmp_path, monkeypatch)
    assert (status, out) == (0, f"{place}: no runs yet\n")


@pytest.mark.parametrize("own", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]])
@pytest.mark.parametrize("module", ["evaluate", "predict"])
def test_a_system_of_ones_own_is_found_by_every_command(tmp_path, monkeypatch, module, own):
    (tmp_path / "mine" / "system").mkdir(parents=True)
    (tmp_path / "mine" / "system" / "both.yaml").write_text(
        "# @package _global_\ndefaults:\n  - /experiment: exp2\n"
        "system: {name: both, experiments: [exp2, exp5], blend: mean}\n"
    )
    status, _, errors = say(module, [*own, "+system=both"], tmp_path, monkeypatch)
    assert status == 1
    assert errors.startswith("error: system both: no finished run of exp2, fold 0, below runs; ")
    assert errors.count("\n") == 1
    status, _, errors = say(module, ["+system=both"], tmp_path, monkeypatch)
    assert (status, errors.partition(";")[0]) == (1, "error: system=both: no such choice")
