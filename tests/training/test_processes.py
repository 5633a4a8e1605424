"""The processes that torchrun starts for one fit: who is first, and who speaks."""

import threading
from pathlib import Path

import pytest
from torch.distributed import HashStore

from pneumo.errors import PneumoError
from pneumo.settings import Machine
from pneumo.training import processes


@pytest.fixture
def started(monkeypatch):
    """Be a process that torchrun has started."""
    store = HashStore()
    monkeypatch.setattr(processes, "_shared", lambda: store)

    def be(rank, here=2, all_nodes=4):
        known = {"RANK": rank, "LOCAL_RANK": rank % here, "LOCAL_WORLD_SIZE": here}
        for name, value in {**known, "WORLD_SIZE": all_nodes, "TORCHELASTIC_RUN_ID": "x"}.items():
            monkeypatch.setenv(name, str(value))

    return be


def test_without_torchrun_a_process_is_first_and_tells_nobody(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not processes.launched()
    assert processes.is_first()
    assert processes.fails_first()
    assert processes.on_node() == 0
    processes.say(processes.BEGUN)


def test_the_others_wait_for_the_word_of_the_first(started):
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(processes.first_said()))
    started(3)
    assert not processes.is_first()
    assert processes.on_node() == 1
    waiting.start()
    processes.say(processes.ENDED)  # not theirs to say
    started(0)
    assert not processes._shared().check(["fit"])
    assert heard == []
    processes.say(processes.BEGUN)
    waiting.join(60)
    assert heard == [processes.BEGUN]


def test_one_process_says_why_a_fit_failed(started):
    started(2)
    assert processes.fails_first()
    started(0)
    assert not processes.fails_first()


def test_a_process_that_was_killed_is_known_by_its_connection(started):
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1")
    assert not processes.lost_another(gone)
    started(0)
    assert processes.lost_another(gone)
    assert not processes.lost_another(RuntimeError("another"))


def test_a_fit_has_the_devices_that_torchrun_started_processes_for(started):
    started(0, here=2, all_nodes=6)
    saved = Machine(accelerator="cpu", threads=1)
    assert processes.as_started(saved) == Machine("cpu", devices=2, nodes=3, threads=1)
    started(0, here=2, all_nodes=5)
    with pytest.raises(PneumoError, match="2 processes on this node and 5 in all; give"):
        processes.as_started(saved)


def test_what_is_typed_on_each_node():
    one, two = Machine(devices=4), Machine(devices=4, nodes=2)
    end = "--nproc-per-node=4 -m pneumo.cluster.job runs/a"
    assert processes.by_hand(Path("runs/a"), one) == f"torchrun --standalone {end}"
    meeting = "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=<first node>:29400"
    assert processes.by_hand(Path("runs/a"), two) == f"torchrun {meeting} {end}"
