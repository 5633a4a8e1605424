"""What a user sees of ``python -m pneumo.phantoms``."""

import shlex

import pytest
from conftest import say


@pytest.mark.parametrize("layout", ["candid", "padchest", "labels"])
def test_the_command_that_it_ends_with_checks_what_was_written(tmp_path, monkeypatch, layout):
    typed = [f"layout={layout}", f"out={layout} set", "images=12"]
    status, out, errors = say("phantoms", typed, tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert f"written: {layout} set, 12 phantoms" in out
    line = next(line for line in out.splitlines() if line.startswith("Next: "))
    module, *given = shlex.split(line)[3:]
    assert module == "pneumo.siim"
    status, out, errors = say("siim", given, tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "4  of them positive" in out
    assert ("Known of them: " in out) == (layout != "candid")
    assert ("with a chest tube" in out) == (layout == "candid")


def test_a_layout_that_there_is_not_is_one_line(tmp_path, monkeypatch):
    status, _, errors = say("phantoms", ["layout=mimic", "out=x"], tmp_path, monkeypatch)
    assert status == 1
    (line,) = errors.strip().splitlines()
    assert "candid" in line
    status, _, errors = say("phantoms", ["layout=candid"], tmp_path, monkeypatch)
    assert (status, errors) == (1, "error: out is not set: give a folder to write, out=…\n")
