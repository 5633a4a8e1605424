"""From dropping a film on the page to its outline there, against the bare network.

    python -m benchmarks page

The network and films of ``prediction``; two threads share each film. Ours: what a browser asks of
the running server, over HTTP and in its order: the film is sent, then come its picture and its
heat, then what was found and the mask whose edge is the outline. Drawing in the browser is left
out. Bare: the same network on the same film in memory, in PyTorch and in ONNX Runtime; the faster
one counts. A round is one film.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import uvicorn

from benchmarks.prediction import MACHINE, alone, made
from benchmarks.table import Row
from pneumo.inference import bundle, server
from pneumo.inference.settings import View


class Browser:
    """One that keeps its connection, as browsers do."""

    def __init__(self, port: int, token: str):
        self.connection = HTTPConnection("127.0.0.1", port)
        self.headers = {"Authorization": f"Bearer {token}"}

    def ask(self, path: str, content: bytes | None = None) -> bytes:
        """The body of an answer."""
        method = "GET" if content is None else "POST"
        self.connection.request(method, path, content, self.headers)
        answer = self.connection.getresponse()
        body = answer.read()
        assert answer.status < 300, body
        return body

    def outline(self, path: Path) -> None:
        """Send a film and fetch what its outline is drawn from."""
        facts = json.loads(self.ask(f"/api/films?name={path.name}", path.read_bytes()))
        for kind in ("film.png", "heat.png", "facts.json", "shown.png"):
            self.ask(f"/api/films/{facts['id']}/{kind}")


@contextmanager
def serving(model: bundle.Bundle) -> Iterator[Browser]:
    """A running page, and a browser that may use it."""
    application = server.application(model, View(keep=2))
    config = uvicorn.Config(application, port=0, log_level="error", access_log=False)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    browser = Browser(port, application.state.token)
    try:
        yield browser
    finally:
        browser.connection.close()
        running.should_exit = True
        thread.join()


def measure(quick: bool) -> list[Row]:
    """Rows by processor time and by the clock."""
    with made(4 if quick else 8, quick) as those:
        onnx = bundle.load(those.model, MACHINE, "onnx")
        name = "a film dropped on the page to its outline"
        with serving(onnx) as browser:
            return alone(name, those, browser.outline, onnx, quick, goal=0.75)
