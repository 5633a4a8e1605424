"""A local page where films are dropped, looked at and compared. Starlette underneath.

The page talks to this process alone. It listens on the loopback address unless told otherwise, answers only requests that name
it, keeps films in memory and nothing on disk.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from pneumo.errors import PneumoError
from pneumo.inference import dicom_objects, findings, outputs
from pneumo.inference.bundle import Bundle
from pneumo.inference.findings import Finding
from pneumo.inference.settings import View
from pneumo.masks import pictures, rle
from pneumo.masks.rule import plain, rule_text
from pneumo.masks.settings import Rule

SHOWN = 1024  # longest side of what the page draws, pixels
MEMORY = 2 << 30  # bytes of films in memory; the oldest go


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
        self._busy, self._changing = threading.Lock(), threading.Lock()

    def add(self, name: str, content: bytes) -> str:
        """Read and judge a film's bytes; returns its id. Raises PneumoError."""
        settings = self.settings
        if content[:4] == b"PK\x03\x04":
            raise PneumoError(
                f"{name}: a zip archive; drop the films themselves, or use python -m pneumo.predict"
            )
        with self._busy:
            film, notes = findings.read(
                name,
                content,
                settings.polarity,
                settings.colour,
                settings.max_megapixels * 1_000_000,
            )
            finding = findings.find(film, self.model, self.model.rule)
        if film.header is not None:
            film.header.buffer = None  # the file's bytes
        finding.notes += notes
        key = secrets.token_urlsafe(9)
        with self._changing:
            self.kept[key] = Shown(name, finding)
            while len(self.kept) > 1 and (len(self.kept) > settings.keep or self._size() > MEMORY):
                self.kept.popitem(last=False)
        return key

    def _size(self) -> int:
        return sum(3 * one.finding.film.pixels.nbytes for one in self.kept.values())

    def newest_last(self) -> list[str]:
        """Ids of the films in memory."""
        with self._changing:
            return list(self.kept)

    def describe(self, key: str, found: Finding | None = None) -> dict[str, Any]:
        """What the page needs of a film besides its pictures."""
        one = self.kept[key]
        described = outputs.describe(found or one.finding)
        return {
            "id": key,
            "name": one.name,
            **described,
            "dicom": one.finding.film.header is not None,
        }

    def at(self, key: str, threshold: float | None, area: int | None) -> Finding:
        """What the bundle's rule finds on a film, with other thresholds if they are given. Raises PneumoError."""
        found, rule = self.kept[key].finding, self.model.rule
        if threshold is None and area is None:
            return found
        top = (
            rule.top_threshold
            if threshold is None or rule.top_threshold is None
            else max(rule.top_threshold, threshold)
        )
        new = Rule(
            binarization_threshold=threshold, removal_threshold=area, top_threshold=top
        ).over(rule)
        return findings.judged(found.film, found.levels, new)


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
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import ClientDisconnect, Request
        from starlette.responses import HTMLResponse, JSONResponse, Response
        from starlette.routing import Route
    except ModuleNotFoundError:
        raise PneumoError(
            "the page needs Starlette and uvicorn: pip install -e '.[view]'"
        ) from None

    films, limit = Films(model, settings), settings.max_megabytes << 20
    page = resources.files("pneumo.inference").joinpath("view.html").read_text(encoding="utf-8")

    def refused(status: int, reason: str) -> Response:
        return JSONResponse({"error": reason}, status)

    async def index(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; connect-src 'self'; img-src 'self' blob:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
        headers = {
            "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        }
        return HTMLResponse(page.replace("@@NONCE@@", nonce), headers=headers)

    async def about(request: Request) -> Response:
        known = {
            key: model.card.get(key)
            for key in ("name", "commit", "thresholds", "licence", "intended_use", "limits")
        }
        rule = {
            "threshold": model.rule.binarization_threshold,
            "area": model.rule.removal_threshold,
            "size": model.rule.removal_size,
        }
        scores = (model.card.get("scores") or {}).get("scores")
        return JSONResponse(
            {
                **known,
                **rule,
                "rule": rule_text(plain(model.rule)),
                "scores": scores,
                "max_bytes": limit,
            }
        )

    async def listed(request: Request) -> Response:
        return JSONResponse([films.describe(key) for key in films.newest_last()])

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
                elif (
                    received > 8 * limit
                ):  # until then the rest is taken and dropped: an answer in between would not be heard
                    break
            if received > limit:
                return refused(
                    413, f"{name}: larger than max_megabytes={settings.max_megabytes} allows"
                )
        except ClientDisconnect:
            return refused(400, "the upload was broken off")
        try:
            key = await run_in_threadpool(films.add, name, bytes(content))
        except PneumoError as error:
            return refused(422, str(error))
        return JSONResponse(films.describe(key), 201)

    async def picture(request: Request) -> Response:
        key, kind = request.path_params["key"], request.path_params["kind"]
        try:
            threshold, area = (request.query_params.get(name) for name in ("threshold", "area"))
            asked = (float(threshold) if threshold else None, int(area) if area else None)
            found = await run_in_threadpool(films.at, key, *asked)
            if kind == "facts.json":
                return JSONResponse(films.describe(key, found))
            media, content = await run_in_threadpool(rendered, found, kind, model.name)
        except KeyError:
            return refused(404, "this film is not in memory any more; drop it again")
        except (PneumoError, ValueError) as error:
            return refused(422, str(error))
        return Response(content, media_type=media, headers={"Cache-Control": "no-store"})

    async def headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(
            {
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
        )
        return response

    everywhere = settings.host in ("0.0.0.0", "::")
    allowed = ["*"] if everywhere else ["127.0.0.1", "localhost", "[::1]", settings.host]
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
            Middleware(TrustedHostMiddleware, allowed_hosts=allowed),
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
        case "shown.png":
            return "image/png", small(found.mask * 255)
        case "overlay.png":
            return "image/png", pictures.png(found.overlay())
        case "mask.png":
            return "image/png", pictures.png(found.stored_mask * 255)
        case "rle.txt":
            return "text/plain", rle.encode(found.stored_mask).encode()
        case "seg.dcm":
            if found.film.header is None:
                raise PneumoError("the film is a picture; a DICOM Segmentation needs a DICOM film")
            return "application/dicom", dicom_objects.content(
                dicom_objects.segmentation(found.film.header, found.stored_mask, model)
            )
    raise PneumoError(f"{kind}: no such picture or file")
