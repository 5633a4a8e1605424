"""Weights & Biases is told what it should be, and stops nothing."""

import os
import sys
from types import SimpleNamespace

import pytest

from pneumo import tracking
from pneumo.settings import Tracking, Wandb


class Run:
    """Stands in for a run of its client."""

    def __init__(self):
        self.summary, self.logged, self.finished = {}, [], False
        self.log = self.logged.append

    def finish(self):
        self.finished = True


@pytest.fixture
def run(monkeypatch):
    """The run that is started, with the client's tables as plain pairs."""
    made = Run()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Table=lambda *pair: pair))
    monkeypatch.setattr(tracking, "start", lambda *args, **about: made)
    return made


def test_it_is_asked_for_nothing_where_it_is_disabled(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)  # to import it would fail
    assert tracking.start(Tracking(), tmp_path) is None  # by the variable, see conftest.py
    monkeypatch.delenv("WANDB_MODE")
    assert tracking.start(Tracking(wandb=Wandb.disabled), tmp_path) is None
    assert caplog.messages == []
    assert tracking.start(Tracking(wandb=Wandb.offline), tmp_path) is None
    (said,) = caplog.messages
    assert said.startswith("Weights & Biases is not available and is left out")


def test_numbers_tables_and_figures_arrive(run, tmp_path):
    tables = {"scores": (("name", "value"), [("dice", 0.5)])}
    tracking.record(Tracking(), tmp_path, {"dice": 0.5}, tables, {"plot": "a figure"})
    assert run.summary == {"dice": 0.5}
    assert run.logged == [{"scores": (["name", "value"], [["dice", 0.5]]), "plot": "a figure"}]
    assert run.finished


def test_its_failures_are_one_line(run, tmp_path, caplog):
    def fail(values):
        raise RuntimeError("no\nconnection")

    run.log = fail
    tracking.record(Tracking(), tmp_path, {"dice": 0.5})
    assert caplog.messages == ["Weights & Biases failed and is left out (no connection)"]


class Client:
    """Stands in for its client: ``faults`` are raised by what they are named for."""

    def __init__(self, **faults):
        self.faults, self.asked, self.modes = faults, 0, []
        self.Settings = lambda **values: SimpleNamespace(**values)
        self.setup = lambda settings: None

    def login(self, **how):
        self.asked += 1
        self.fail("login")
        return True

    def init(self, mode, **told):
        self.fail(mode)
        self.modes.append(mode)
        return SimpleNamespace(settings=told["settings"])

    def fail(self, name):
        if name in self.faults:
            raise self.faults[name]


@pytest.fixture
def client(monkeypatch, tmp_path):
    """Put a client in the place of the real one."""

    def put(**faults):
        made = Client(**faults)
        monkeypatch.setitem(sys.modules, "wandb", made)
        monkeypatch.delenv("WANDB_MODE")
        monkeypatch.setattr(tracking, "_away", False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name in ("WANDB_ERROR_REPORTING", "WANDB_CACHE_DIR"):
            monkeypatch.setenv(name, "")  # so that what is set is forgotten
            monkeypatch.delenv(name)
        return made

    return put


@pytest.mark.parametrize("when", ["login", "online"])
def test_a_server_that_is_away_is_waited_for_once_and_runs_stay_on_disk(
    client, when, tmp_path, caplog
):
    made = client(**{when: TimeoutError("no\nanswer")})
    for _ in range(2):  # as the fits of one training
        assert tracking.start(Tracking(), tmp_path) is not None
    assert made.modes == ["offline", "offline"]
    assert made.asked == 1
    (said,) = caplog.messages
    assert said == (
        "Weights & Biases cannot be reached, so recorded offline; later "
        f"`wandb sync {tmp_path}/wandb/offline-run-*` (no answer)"
    )


def test_its_waiting_has_an_end(client, tmp_path):
    client()
    settings = tracking.start(Tracking(), tmp_path).settings
    assert settings.init_timeout == tracking.ANSWER < 60
    assert settings.finish_timeout == tracking.FINISH <= 60


def test_a_client_that_fails_altogether_is_left_out(client, tmp_path, caplog):
    client(login=ValueError("key"), offline=OSError("no space"))
    assert tracking.start(Tracking(), tmp_path) is None
    assert caplog.messages[-1] == "Weights & Biases is not available and is left out (no space)"


@pytest.mark.parametrize("has_home", [True, False])
def test_without_a_home_it_keeps_its_own_log_beside_the_run(
    client, has_home, tmp_path, monkeypatch
):
    client()
    if not has_home:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert tracking.start(Tracking(), tmp_path / "run") is not None
    given = None if has_home else str(tmp_path / "run" / "wandb" / "cache")
    assert os.environ.get("WANDB_CACHE_DIR") == given


def test_what_is_not_sent_in_the_end_is_said(caplog):
    def wait():
        raise TimeoutError

    run = SimpleNamespace(finish=wait, settings=SimpleNamespace(sync_dir="runs/wandb/run-1"))
    tracking.finish(run)
    (said,) = caplog.messages
    assert "`wandb sync runs/wandb/run-1`" in said
