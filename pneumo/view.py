"""``python -m pneumo.view model=… [folder]``: a local page where films are dropped, looked at and compared. Starlette underneath.

The page talks to this process alone. It listens on the loopback address unless told otherwise, answers only requests that name
it, keeps films in memory and nothing on disk.
"""

import secrets
import socket
import sys
import threading
import webbrowser
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from omegaconf import DictConfig

from pneumo import apply, bundle, command, config, dicom_out, inputs, pictures, postprocess, rle
from pneumo.apply import Finding
from pneumo.bundle import Bundle
from pneumo.config import Postprocess, View
from pneumo.errors import PneumoError

SHOWN = 1024  # longest side of what the page draws, pixels


@dataclass
class Shown:
    """One film the page has: its name as the user gave it, and what was found."""

    name: str
    finding: Finding


class Films:
    """The newest films in memory; one film at a time goes through the network."""

    def __init__(self, model: Bundle, settings: View):
        self.model, self.settings = model, settings
        self.kept: OrderedDict[str, Shown] = OrderedDict()
        self._busy = threading.Lock()

    def add(self, name: str, content: bytes) -> str:
        """Read and judge a film's bytes; returns its id. Raises PneumoError."""
        settings = self.settings
        source = inputs.Source(name, content)
        if content[:4] == b"PK\x03\x04":
            raise PneumoError(f"{name}: a zip archive; drop the films themselves, or use python -m pneumo.predict")
        film, notes = apply.read(source.name, content, settings.polarity, settings.colour, settings.max_megapixels * 1_000_000)
        with self._busy:
            finding = apply.find(film, self.model, self.model.rule)
        finding.notes += notes
        key = secrets.token_urlsafe(9)
        self.kept[key] = Shown(name, finding)
        while len(self.kept) > settings.keep:
            self.kept.popitem(last=False)
        return key

    def describe(self, key: str) -> dict[str, Any]:
        """What the page needs of a film besides its pictures."""
        one = self.kept[key]
        rows, columns = one.finding.film.pixels.shape
        return {
            "id": key,
            "name": one.name,
            **apply.describe(one.finding),
            "height": rows,
            "width": columns,
            "dicom": one.finding.film.header is not None,
        }

    def at(self, key: str, threshold: float | None, area: int | None) -> Finding:
        """What was found on a film at other thresholds."""
        found, rule = self.kept[key].finding, self.model.rule
        if threshold is None and area is None:
            return found
        new = Postprocess(
            threshold or rule.binarization_threshold, rule.removal_threshold if area is None else area, rule.removal_size, rule.removal
        )
        return apply.judged(found.film, found.levels, new)


def small(image: np.ndarray) -> bytes:
    """A film or a map, at most 1024 pixels long, as PNG."""
    factor = min(1.0, SHOWN / max(image.shape))
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return pictures.png(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def application(model: Bundle, settings: View) -> Any:
    """The page's server (an ASGI application)."""
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import HTMLResponse, JSONResponse, Response
        from starlette.routing import Route
    except ModuleNotFoundError:
        raise PneumoError("the page needs Starlette and uvicorn: pip install -e '.[view]'") from None

    films, limit = Films(model, settings), settings.max_megabytes << 20
    page = resources.files("pneumo").joinpath("view.html").read_text(encoding="utf-8")

    def refused(status: int, reason: str) -> Response:
        return JSONResponse({"error": reason}, status)

    async def index(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; connect-src 'self'; img-src 'self' blob:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
        headers = {"Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
        return HTMLResponse(page.replace("@@NONCE@@", nonce), headers=headers)

    async def about(request: Request) -> Response:
        rule = model.rule
        known = {key: model.card.get(key) for key in ("name", "commit", "thresholds", "licence", "intended_use", "limits")}
        scores = (model.card.get("scores") or {}).get("scores")
        share = postprocess.removal_pixels(Postprocess(0.5, 1_000_000, rule.removal_size), (1, 1)) / 1e6
        return JSONResponse(
            {
                **known,
                "scores": scores,
                "threshold": rule.binarization_threshold,
                "area": rule.removal_threshold,
                "share": share,
                "size": rule.removal_size,
            }
        )

    async def listed(request: Request) -> Response:
        return JSONResponse([films.describe(key) for key in films.kept])

    async def upload(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            return refused(403, "films are taken from this page only")
        name = Path(request.query_params.get("name") or "film").name[:200]
        content, received = bytearray(), 0
        try:
            async for chunk in request.stream():
                received += len(chunk)
                if received <= limit:
                    content += chunk
                elif received > 8 * limit:  # until then the rest is taken and dropped: an answer in between would not be heard
                    break
            if received > limit:
                return refused(413, f"{name}: larger than max_megabytes={settings.max_megabytes} allows")
        except ClientDisconnect:
            return refused(400, "the upload was broken off")
        try:
            key = await run_in_threadpool(films.add, name, bytes(content))
        except PneumoError as error:
            return refused(422, str(error))
        return JSONResponse(films.describe(key), 201)

    async def picture(request: Request) -> Response:
        key, kind = request.path_params["key"], request.path_params["kind"]
        if key not in films.kept:
            return refused(404, "this film is not in memory any more; drop it again")
        try:
            threshold, area = (request.query_params.get(name) for name in ("threshold", "area"))
            found = films.at(key, float(threshold) if threshold else None, int(area) if area else None)
            media, content = await run_in_threadpool(rendered, found, kind, model.name)
        except (PneumoError, ValueError) as error:
            return refused(422, str(error))
        headers = {"Cache-Control": "no-store"}
        return Response(content, media_type=media, headers=headers)

    async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(
            {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"}
        )
        return response

    from starlette.middleware.base import BaseHTTPMiddleware

    application = Starlette(
        routes=[
            Route("/", index),
            Route("/api/model", about),
            Route("/api/films", listed),
            Route("/api/films", upload, methods=["POST"]),
            Route("/api/films/{key}/{kind}", picture),
        ],
        # a name that some other site points here is not ours
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", settings.host]),
            Middleware(BaseHTTPMiddleware, dispatch=headers),
        ],
    )
    application.state.films = films
    return application


def rendered(found: Finding, kind: str, model: str) -> tuple[str, bytes]:
    """One of a film's pictures or files → (media type, bytes). Raises PneumoError for an unknown kind."""
    match kind:
        case "film.png":
            return "image/png", small(found.film.pixels)
        case "probability.png":
            return "image/png", small(found.levels)
        case "overlay.png":
            return "image/png", pictures.png(found.overlay())
        case "mask.png":
            return "image/png", pictures.png(found.stored_mask * 255)
        case "rle.txt":
            return "text/plain", rle.encode(found.stored_mask).encode()
        case "seg.dcm":
            if found.film.header is None:
                raise PneumoError("the film is a picture; a DICOM Segmentation needs a DICOM film")
            return "application/dicom", dicom_out.content(dicom_out.segmentation(found.film.header, found.stored_mask, model))
    raise PneumoError(f"{kind}: no such picture or file")


def task(raw: DictConfig) -> None:
    """The command: serve until Ctrl-C."""
    settings = config.typed(raw)
    if not settings.model:
        raise PneumoError("model is not set: give a bundle, model=<folder> (python -m pneumo.export makes one)")
    model = bundle.load(Path(settings.model), settings.machine, settings.engine)
    served = application(model, settings)
    import uvicorn

    if settings.folder:
        for source in inputs.sources([settings.folder], settings.max_megabytes << 20):
            if source.content is not None and source.is_film and len(served.state.films.kept) < settings.keep:
                try:
                    served.state.films.add(Path(source.name).name, source.content)
                except PneumoError as error:
                    print(f"left out: {error}")
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PneumoError(f"host={settings.host} port={settings.port}: cannot be opened ({reason}); choose another with port=") from None
    address = f"http://{settings.host}:{settings.port}/"
    print(f"{address} (stop with Ctrl-C)", flush=True)
    if settings.host not in ("127.0.0.1", "localhost", "::1"):
        print("Others can reach this page, and films dropped on it, without a password.", flush=True)
    if settings.open:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    with listening:
        uvicorn.Server(uvicorn.Config(served, log_level="error", access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    # the folder may stand alone, as in `python -m pneumo.view model=model films/`
    sys.argv = ["pneumo.view", *(one if one.startswith("-") or "=" in one else f"folder={one}" for one in sys.argv[1:])]
    command.run(task, "view", "judging")
