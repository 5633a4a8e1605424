"""A local page to look at films: ``python -m pneumo.view model=model films/``."""

import itertools
import socket
import sys
import tempfile
import threading
import webbrowser
from pathlib import Path

from omegaconf import DictConfig

from pneumo import command
from pneumo.errors import PneumoError, visible
from pneumo.inference.settings import View
from pneumo.settings import checked


def task(raw: DictConfig) -> None:
    """The command: serve until Ctrl-C."""
    # torch takes seconds, and help needs none
    from pneumo.inference import bundle, corrections, inputs, server

    settings = checked(raw)
    if not settings.model:
        raise PneumoError(
            "model is not set: give a bundle, model=<folder> (python -m pneumo.export makes one)"
        )
    model = bundle.load(Path(settings.model), settings.machine, settings.engine)
    served = server.application(model, settings)
    import uvicorn

    if settings.folder:
        for source in inputs.sources([settings.folder], settings.max_megabytes << 20):
            if (
                source.content is not None
                and source.is_film
                and len(served.state.films.kept) < settings.keep
            ):
                try:
                    served.state.films.add(Path(source.name).name, source.content)
                except PneumoError as error:
                    served.state.films.refused.append(server.in_own_words(error))
                    print(f"left out: {visible(str(error))}")
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PneumoError(
            f"host={settings.host} port={settings.port}: cannot be opened ({reason}); choose "
            "another with port="
        ) from None
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}/?token={served.state.token}"
    print(f"{address} (stop with Ctrl-C)", flush=True)
    if settings.host not in ("127.0.0.1", "localhost", "::1"):
        print(
            "Other machines can reach this page. Who has its whole address, or listens on the "
            "network, sees its films.",
            flush=True,
        )
    if settings.corrections:
        print(
            f"Corrections by {settings.reader} are kept in {settings.corrections}. To train on "
            f"them: data.root=<the films> data.mask_size=film "
            f"data.annotations={Path(settings.corrections) / corrections.TABLE}",
            flush=True,
        )
    with listening, tempfile.TemporaryDirectory(prefix="pneumo-") as private:
        if settings.open:
            # Against other users, who see the command line of a browser: it is given a file that
            # only this user may read, and the file leads to the address.
            file = Path(private) / "open.html"
            file.write_text(f'<meta http-equiv="refresh" content="0; url={address}">')
            threading.Timer(1.0, webbrowser.open, [file.as_uri()]).start()
        uvicorn.Server(uvicorn.Config(served, log_level="error", access_log=False)).run(
            sockets=[listening]
        )


if __name__ == "__main__":
    # the folder may stand alone, as in `python -m pneumo.view model=model films/`
    typed = ["pneumo.view"]
    for before, one in itertools.pairwise(sys.argv):
        alone = not one.startswith("-") and "=" not in one and not before.startswith("-")
        typed.append(f"folder={one}" if alone else one)
    sys.argv = typed
    command.run(task, View, "view", "commands")
