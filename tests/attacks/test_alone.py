"""No network, no home folder, and a Weights & Biases that is down, slow or refuses."""

import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import TINY, complaint, launch, one

pytestmark = pytest.mark.slow

# one fit, as short as can be
FIT = ("+experiment=exp2", *TINY, "log.pictures=0")
# where no name is found and nothing outside this machine answers
NO_NETWORK = """
import errno, socket
connect, find = socket.socket.connect, socket.getaddrinfo
OWN = ("127.0.0.1", "localhost", "::1", "", None)
def connect_here(self, address, *more):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in OWN:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
    return connect(self, address, *more)
def find_here(host, *more, **named):
    if host not in OWN:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return find(host, *more, **named)
socket.socket.connect, socket.getaddrinfo = connect_here, find_here
"""


@pytest.fixture
def alone(tmp_path):
    """The environment of a process without home, caches and network."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(NO_NETWORK)
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    nowhere = "/proc/nowhere"  # where even root makes no folder
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "HOME": nowhere,
        "XDG_CACHE_HOME": nowhere,
        "XDG_CONFIG_HOME": nowhere,
        "HF_HOME": nowhere,
        "TORCH_HOME": nowhere,
        "MPLCONFIGDIR": nowhere,
        "HF_HUB_OFFLINE": None,
        "HTTPS_PROXY": None,
        "https_proxy": None,
        "HTTP_PROXY": None,
        "http_proxy": None,
        "WANDB_MODE": None,
        "WANDB_API_KEY": None,
    }


@pytest.fixture(params=["down", "hangs", "500", "401", "404"])
def server(request):
    """The environment of a process whose Weights & Biases answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if request.param == "hangs":
                time.sleep(600)
            self.send_response(int(request.param))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST

        def log_message(self, *values):
            """Nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    if request.param == "down":
        running.server_close()
    else:
        threading.Thread(target=running.serve_forever, daemon=True).start()
    port = running.server_address[1]
    address = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": "a" * 40}
    yield {**address, "WANDB_MODE": None}
    if request.param != "down":
        running.shutdown()
        running.server_close()


RECORD = """
import logging, sys
from pathlib import Path
from pneumo import tracking
from pneumo.settings import Tracking
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
logging.getLogger("pneumo").setLevel(logging.INFO)
for number in range(2):
    tracking.record(Tracking(), Path("run"), {"dice": 0.5}, name=f"run{number}", config={})
print("went on")
"""


def test_a_server_that_does_not_help_costs_one_line_and_loses_nothing(server, tmp_path):
    environment = {**os.environ, **server}
    done = subprocess.run(
        [sys.executable, "-c", RECORD],
        cwd=tmp_path,
        env={key: value for key, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "Weights & Biases" in line]
    (said,) = lines
    assert "cannot be reached, so recorded offline; later `wandb sync run/wandb/" in said
    assert done.stdout.splitlines()[-1] == "went on"
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.glob("run/wandb/offline-run-*"))) == 2


def test_a_training_without_network_home_and_key_is_the_same_training(alone, tmp_path):
    digests = []
    for name, environment in (("quiet", {}), ("alone", alone)):
        place = tmp_path / name
        place.mkdir()
        done = launch(place, *FIT, "model.encoder_weights=none", env=environment)
        assert done.returncode == 0, done.stderr
        assert not re.search("Traceback|INFO", done.stderr)  # nor its client's own log
        weights = one(place, "exp2") / "weights.safetensors"
        digests.append(hashlib.sha256(weights.read_bytes()).hexdigest())
    assert "not logged in, so recorded offline" in done.stdout
    assert digests[0] == digests[1]


def test_commands_work_without_network_and_home(alone, finished, model, film, tmp_path):
    run = "run=runs/exp5/*/*"
    for module, *arguments in (
        ("pneumo.evaluate", run, "resamples=20"),
        ("pneumo.export", run, f"out={tmp_path / 'model'}", "resamples=20", "licence=CC0"),
        ("pneumo.predict", f"model={model}", f"input={film}", f"out={tmp_path / 'found'}"),
        ("pneumo.report", "resamples=5"),
    ):
        done = launch(finished[0], *arguments, module=module, env=alone)
        assert done.returncode == 0, (module, done.stderr)
        assert "Traceback" not in done.stderr


def test_pretrained_weights_that_cannot_be_fetched_are_one_line(alone, tmp_path):
    # typed, since a miniature asks for none
    pretrained = ("model.encoder=resnet18", "model.encoder_weights=imagenet")
    told = complaint(launch(tmp_path, *FIT, *pretrained, env=alone))
    assert "could not be fetched from the hub" in told
    assert "model.encoder_weights=none" in told
