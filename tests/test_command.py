"""What all command lines share."""

import subprocess
import sys

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
