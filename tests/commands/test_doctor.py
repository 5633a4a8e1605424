"""What a user sees of ``python -m pneumo.doctor``."""

import socket

import pytest
from conftest import say

from pneumo.cluster import equipment


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_one_line_for_each_thing_and_nothing_asked_or_left(tmp_path, monkeypatch):
    films = tmp_path / "films"
    status, out, errors = say("doctor", [f"data.root={films}"], tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert all(line.startswith(("ok       ", "missing  ")) for line in lines)
    (told,) = [line for line in lines if "data=siim" in line]
    assert told.startswith("missing")
    assert "data.annotations is not set" in told
    assert not list(tmp_path.iterdir())


def test_what_a_training_takes_is_looked_for_as_that_training_needs_it(tmp_path, monkeypatch):
    own = ["+experiment=modern", "data=phantom", "scale=mini"]
    status, out, _ = say("doctor", own, tmp_path, monkeypatch)
    assert status == 0
    assert "ok       data=phantom" in out
    assert "ok       encoder weights   none: nothing to fetch" in out
    assert "of tu-" in say("doctor", own[:2], tmp_path, monkeypatch)[1]


def test_the_status_says_when_no_command_will_work(tmp_path, monkeypatch):
    monkeypatch.setattr(equipment, "version_of", lambda package: None)
    status, out, errors = say("doctor", ["data=phantom"], tmp_path, monkeypatch)
    assert (status, errors) == (1, "error: most commands will not work: packages; see above\n")
    assert "missing  extra onnx" in out
