"""A local page where films are dropped, looked at and compared. Starlette underneath.

The page talks to this process alone. It listens on the loopback address unless told otherwise,
answers only requests that name it, and keeps films in memory and nothing on disk. With
``corrections=<folder>`` it writes readers' corrections there: masks, film ids and digests, who and
when, but no pixel of a film.

Other users of this machine must not reach the films, nor other sites that are open in the same
browser. The attacks and defences:

- Other users: every program on this machine reaches a loopback address. The address that the
  command prints holds a random token. Who opens it gets a cookie, which scripts cannot read; every
  request without cookie or token is refused before anything of it is read. Browsers send cookies
  to all ports of a host, so do not open pages of users whom you do not trust on the same address.
- Exhausted memory: at most ``UPLOADS`` bodies are read at a time, others wait unread.
- DNS rebinding: a site lets its own name point to this machine, so that the browser takes its
  scripts for ours. Requests whose Host header names another host are refused.
- Cross-site requests: a page of another site sends a film here, which fills the memory, or changes
  a correction. Requests that change anything are refused if their Origin header names another site.
- Script injection: a file's name, shown on the page, holds markup. The Content-Security-Policy
  lets only the page's own script run, known by a nonce that is new for every answer.
- Embedding: another site shows the page in a frame, or loads its pictures. The headers forbid both.
"""

import asyncio
import contextlib
import hashlib
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from pneumo import templates
from pneumo.data import dicom
from pneumo.data.dicom import Film
from pneumo.data.films import name_of
from pneumo.data.settings import MaskSize
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.inference import corrections, dicom_objects, findings, outputs, painting
from pneumo.inference.bundle import Bundle
from pneumo.inference.corrections import Basis, Changed, Corrected, Corrections, State
from pneumo.inference.findings import Finding
from pneumo.inference.privacy import OutputNames
from pneumo.inference.settings import View
from pneumo.masks import pictures, rle
from pneumo.masks.rule import plain, rule_text
from pneumo.masks.settings import Postprocess, Rule

GONE = "this film is not in memory any more; drop it again"
PHANTOMS_ONLY = "Trained on drawn phantoms: what it says of a real film means nothing."
MEMORY = 2 << 30  # bytes of films in memory; beyond that the oldest are dropped
UPLOADS = 2  # bodies in memory at a time: one is judged while the next is received
WAITING = 256  # uploads that wait for their turn, unread; others are refused
STALLED = 60  # seconds in which something of an upload must arrive
CLOSED = (
    "this page is open only to who has its token: use the address that the command printed, which "
    "ends in ?token=…"
)


@dataclass
class Shown:
    """One film the page has."""

    name: str  # as the user gave it
    file: str  # what its downloads are called; tells nothing of the patient
    finding: Finding
    truth: np.ndarray | None  # uint8 of 0 and 1, of the upright film's shape, where it is known
    sha256: str  # of the file
    tags: int  # bytes of the file beyond its pixels, which may be many

    @property
    def size(self) -> int:
        """Bytes in memory: pixels, levels, mask and truth have one size."""
        arrays = 3 + (self.truth is not None)
        return arrays * self.finding.film.pixels.nbytes + self.tags


class Films:
    """The newest films in memory; one film at a time goes through the network."""

    def __init__(self, model: Bundle, settings: View):
        self.model, self.settings = model, settings
        self.kept: OrderedDict[str, Shown] = OrderedDict()
        self.refused: list[str] = []  # films of the folder that could not be used, and why
        self.table = siim.read_table(Path(settings.annotations)) if settings.annotations else None
        self.spacings = findings.spacings(settings)
        self.corrections: Corrections | None = None
        if settings.corrections:
            self.corrections = Corrections(Path(settings.corrections), settings.reader or "")
        self._busy, self._changing = threading.Lock(), threading.Lock()

    def add(self, name: str, content: bytes) -> str:
        """Read and judge a film's bytes; returns its id. Raises PneumoError."""
        settings = self.settings
        if content[:4] == b"PK\x03\x04":
            raise PneumoError(
                f"{name}: a zip archive; drop the films themselves, or use python -m pneumo.predict"
            )
        with self._busy:
            reading = findings.read(name, content, settings, self.model, self.spacings)
            finding = findings.find(reading, self.model, self.model.rule)
        if reading.film.header is not None:
            reading.film.header.buffer = None  # frees the file's bytes
        key = secrets.token_urlsafe(9)
        with self._changing:
            file = OutputNames().own(name, reading.film, content)
            truth = self._truth(name, reading.film)
            sha256 = hashlib.sha256(content).hexdigest()
            tags = 0
            if reading.film.header is not None:
                tags = max(0, len(content) - 2 * reading.film.pixels.size)
            self.kept[key] = Shown(name, file, finding, truth, sha256, tags)
            while len(self.kept) > 1 and (len(self.kept) > settings.keep or self._size() > MEMORY):
                self.kept.popitem(last=False)
        return key

    def _truth(self, name: str, film: Film) -> np.ndarray | None:
        """The mask that the table of run lengths has of a film, upright."""
        if self.table is None:
            return None
        known = [one for one in (name_of(Path(name)), film.uid or "") if one in self.table.rows]
        if not known:
            return None
        is_mirror = film.header is None and self.settings.mask_size is MaskSize.challenge
        shape = rle.SHAPE if is_mirror else film.stored_shape
        try:
            mask = rle.union(self.table.masks(known[0]), shape)
        except rle.RLEError:  # of another size than this film
            return None
        mask = dicom.upright(mask, film.orientation)
        size = (film.pixels.shape[1], film.pixels.shape[0])
        return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)

    def remove(self, key: str | None) -> None:
        """Forget a film, or all. Raises KeyError."""
        with self._changing:
            if key is None:
                self.kept.clear()
                self.refused.clear()
            else:
                del self.kept[key]

    def _size(self) -> int:
        """Bytes of the films in memory."""
        return sum(shown.size for shown in self.kept.values())

    def newest_last(self) -> list[str]:
        """Ids of the films in memory."""
        with self._changing:
            return list(self.kept)

    def described(self) -> list[dict[str, Any]]:
        """What the page needs of every film in memory."""
        told = []
        for key in self.newest_last():
            with contextlib.suppress(KeyError):  # forgotten meanwhile
                told.append(self.describe(key))
        return told

    def describe(self, key: str, found: Finding | None = None) -> dict[str, Any]:
        """What the page needs of a film besides its pictures."""
        shown = self.kept[key]
        described = outputs.describe(found or shown.finding)
        return {
            "id": key,
            "name": shown.name,
            "sha256": shown.sha256,
            "file": shown.file,
            "truth": shown.truth is not None,
            "correction": self._correction_facts(key),
            **described,
            "dicom": shown.finding.film.header is not None,
        }

    def at(self, key: str, threshold: float | None, area: int | None) -> Finding:
        """What the bundle's rule finds on a film, with other thresholds if they are given.

        Raises PneumoError.
        """
        finding = self.kept[key].finding
        if threshold is None and area is None:
            return finding
        return findings.judged(
            finding.reading,
            finding.levels,
            self.rule(threshold, area),
            self.model.curve,
            finding.presence,
        )

    def rule(self, threshold: float | None, area: int | None) -> Postprocess:
        """The bundle's rule, with other thresholds if they are given. Raises PneumoError."""
        rule = self.model.rule
        # the top threshold may not lie below the binarisation threshold
        top = rule.top_threshold
        if top is not None and threshold is not None:
            top = max(top, threshold)
        changed = Rule(binarization_threshold=threshold, removal_threshold=area, top_threshold=top)
        return changed.over(rule)

    def correction(
        self, key: str, threshold: float | None, area: int | None
    ) -> tuple[State, np.ndarray]:
        """Where a film's correction stands, and its mask over the upright film.

        Without a correction that is what the bundle finds at these thresholds. Raises PneumoError,
        KeyError.
        """
        store, film = self._correctable(key)
        state = store.of(film)
        mask = state.mask
        if mask is None:
            return state, self.at(key, threshold, area).mask
        return state, dicom.upright(mask, self.kept[key].finding.film.orientation)

    def correct(
        self,
        key: str,
        content: bytes,
        threshold: float | None,
        area: int | None,
        seen: str | None,
        draft: bool,
    ) -> State:
        """Keep a painted mask (a PNG) as a film's draft, or save it; see ``Corrections``.

        Raises PneumoError, KeyError.
        """
        store, film = self._correctable(key)
        orientation = self.kept[key].finding.film.orientation
        basis = Basis(
            self.model.name,
            [str(member["sha256"]) for member in self.model.card["members"]],
            plain(self.rule(threshold, area)),
            self.at(key, threshold, area).stored_mask,
        )
        state = store.of(film)
        found, current = (
            dicom.upright(basis.mask if mask is None else mask, orientation)
            for mask in (state.basis, state.mask)
        )
        painted = painting.read(content, (found.shape[0], found.shape[1]))
        mask = dicom.stored(painting.applied(painted, current, found), orientation)
        keep = store.draft if draft else store.save
        return keep(film, mask, basis, state.version if seen is None else seen)

    def withdraw(self, key: str, seen: str | None, only_draft: bool) -> State:
        """Take a film's correction back, or its draft alone. Raises PneumoError, KeyError."""
        store, film = self._correctable(key)
        return store.withdraw(film, seen, only_draft)

    def _correctable(self, key: str) -> tuple[Corrections, Corrected]:
        """The store, and the film as it knows it. Raises PneumoError, KeyError."""
        if self.corrections is None:
            raise PneumoError(
                "this page keeps no corrections; start it with corrections=<folder> reader=<name>"
            )
        shown = self.kept[key]
        film = shown.finding.film
        image = corrections.image_of(shown.name, film)
        return self.corrections, Corrected(image, shown.sha256, film.stored_shape)

    def _correction_facts(self, key: str) -> dict[str, Any] | None:
        """Where a film's correction stands; None if it cannot be corrected."""
        if self.corrections is None:
            return None
        try:
            store, film = self._correctable(key)
            return store.of(film).describe()
        except PneumoError:
            return None


def shrunk(image: np.ndarray) -> np.ndarray:
    """A film or a map, uint8 (rows, columns), at most 1024 pixels long."""
    rows, columns = painting.shown_shape(image.shape)
    return cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)


def small(image: np.ndarray) -> bytes:
    """The same as PNG."""
    return pictures.png(shrunk(image))


def in_own_words(error: Exception) -> str:
    """An error without the advice for the command line: ``key=value`` means nothing here."""
    text = re.sub(r" \([^()]*\b\w+=[^()]*\)", "", str(error))
    clauses = [clause for clause in text.split("; ") if not re.search(r"\b[\w.]+=\w", clause)]
    return "; ".join(clauses) or text


class Crowded(Exception):
    """Too many uploads wait already."""


class Turns:
    """Uploads take turns, so that few bodies are in memory at a time; others wait unread."""

    def __init__(self) -> None:
        self._free, self._waiting = asyncio.Semaphore(UPLOADS), 0

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the block. Raises Crowded."""
        if self._waiting >= WAITING:
            raise Crowded
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


def same(token: str, offered: str) -> bool:
    """Whether what is offered is the token; the time it takes does not tell where they differ."""
    return secrets.compare_digest(token.encode(), offered.encode("utf-8", "surrogatepass"))


def application(model: Bundle, settings: View) -> Any:
    """The page's server (an ASGI application).

    ``state.token`` is what a request must show: as ``/?token=…``, which a browser keeps as a
    cookie, or in the header ``Authorization: Bearer …``.
    """
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
    page = templates.load("pneumo.inference", "view.html")
    token, cookie = secrets.token_urlsafe(), f"pneumo-{settings.port}"
    turns = Turns()

    def refused(status: int, reason: str) -> Response:
        return JSONResponse({"error": reason}, status)

    def has_token(request: Request) -> bool:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        header = value.strip() if kind.lower() in ("bearer", "token") else ""
        return any(same(token, one) for one in (header, request.cookies.get(cookie, "")))

    def at_the_door(request: Request) -> Response | None:
        """The answer to who has no token, or brings it for the first time; None lets in."""
        typed = request.query_params.get("token") if request.url.path == "/" else None
        if typed is not None and same(token, typed):
            # Not an HTTP redirect: followed from another site or a file, its next request would
            # lack a strict cookie. What this answer asks for comes from this page itself.
            entered = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0; url=/">')
            entered.set_cookie(cookie, token, httponly=True, samesite="strict")
            return entered
        return None if has_token(request) else refused(403, CLOSED)

    async def index(request: Request) -> Response:
        # Against script injection: only what bears this nonce runs. Against embedding: no site may
        # show the page in a frame (frame-ancestors).
        nonce = secrets.token_urlsafe(16)
        policy = (
            "default-src 'none'; connect-src 'self'; img-src 'self' blob:; "
            f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy}
        return HTMLResponse(page.render(nonce=nonce), headers=headers)

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
                "experience": model.experience,
                "warning": PHANTOMS_ONLY if model.knows_phantoms_only else "",
                "max_bytes": limit,
                "reader": settings.reader if settings.corrections else None,
            }
        )

    async def listed(request: Request) -> Response:
        listed = await run_in_threadpool(films.described)
        return JSONResponse({"films": listed, "refused": films.refused})

    def from_elsewhere(request: Request) -> bool:
        # against cross-site requests: browsers name the page that sends one in its Origin
        origin = request.headers.get("origin")
        return bool(origin) and urlsplit(str(origin)).netloc != request.headers.get("host")

    async def remove(request: Request) -> Response:
        if from_elsewhere(request):
            return refused(403, "films are removed from this page only")
        try:
            films.remove(request.path_params.get("key"))
        except KeyError:
            return refused(404, "this film is not in memory any more")
        return JSONResponse({})

    async def received(request: Request) -> bytes | Response:
        """The body of a request, or the answer if it cannot be had."""
        content, length = bytearray(), 0
        try:
            # Browsers do not read an answer before they have sent everything. So that they see why
            # a film is refused, the rest of one that is too large is received and dropped, within
            # reason.
            async with asyncio.timeout(STALLED) as patience:
                async for chunk in request.stream():
                    patience.reschedule(asyncio.get_running_loop().time() + STALLED)
                    length += len(chunk)
                    if length <= limit:
                        content += chunk
                    elif length > 8 * limit:
                        break
        except ClientDisconnect:
            return refused(400, "the upload was broken off")
        except TimeoutError:
            return refused(408, f"the upload stood still for {STALLED:g} seconds")
        if length > limit:
            name = Path(request.query_params.get("name") or "mask").name[:200]
            return refused(413, f"{name}: larger than {settings.max_megabytes} MiB")
        return bytes(content)

    async def upload(request: Request) -> Response:
        if from_elsewhere(request):
            return refused(403, "films are taken from this page only")
        name = Path(request.query_params.get("name") or "film").name[:200]
        content = await received(request)
        if isinstance(content, Response):
            return content
        try:
            key = await run_in_threadpool(films.add, name, content)
            told = await run_in_threadpool(films.describe, key)
        except KeyError:
            return refused(404, GONE)
        except PneumoError as error:
            return refused(422, in_own_words(error))
        return JSONResponse(told, 201)

    def asked(request: Request) -> tuple[float | None, int | None]:
        """The thresholds of the page's sliders, if they were moved. Raises ValueError."""
        threshold, area = (request.query_params.get(key) for key in ("threshold", "area"))
        return float(threshold) if threshold else None, int(area) if area else None

    def seen_by(request: Request) -> str | None:
        """The version of a correction that the page has, of the header If-Match."""
        return request.headers.get("if-match", "").strip('"') or None

    def stands(state: State, content: bytes | None = None) -> Response:
        """Where a correction stands, or its picture; its version is the header ETag."""
        headers = {"ETag": f'"{state.version}"', "Cache-Control": "no-store"}
        if content is not None:
            return Response(content, media_type="image/png", headers=headers)
        return JSONResponse(state.describe(), headers=headers)

    async def correction(request: Request) -> Response:
        key, is_draft = request.path_params["key"], request.query_params.get("draft") == "true"
        if request.method not in ("GET", "HEAD") and from_elsewhere(request):
            return refused(403, "corrections are made on this page only")
        try:
            if request.method == "DELETE":
                return stands(
                    await run_in_threadpool(films.withdraw, key, seen_by(request), is_draft)
                )
            threshold, area = asked(request)
            if request.method == "PUT":
                content = await received(request)
                if isinstance(content, Response):
                    return content
                seen = seen_by(request)
                return stands(
                    await run_in_threadpool(
                        films.correct, key, content, threshold, area, seen, is_draft
                    )
                )
            state, mask = await run_in_threadpool(films.correction, key, threshold, area)
            if request.query_params.get("size") != "film":
                mask = painting.shown(mask)
            return stands(state, pictures.png(mask * 255))
        except KeyError:
            return refused(404, GONE)
        except Changed as error:
            return refused(412, str(error))
        except (PneumoError, ValueError) as error:
            return refused(422, str(error))

    async def picture(request: Request) -> Response:
        key, kind = request.path_params["key"], request.path_params["kind"]
        try:
            threshold, area = asked(request)
            finding = await run_in_threadpool(films.at, key, threshold, area)
            if kind == "facts.json":
                return JSONResponse(await run_in_threadpool(films.describe, key, finding))
            shown = films.kept[key]
            if kind == "truth.png":
                if shown.truth is None:
                    return refused(404, "no truth is known of this film")
                return Response(small(shown.truth * 255), media_type="image/png")
            media, content = await run_in_threadpool(rendered, finding, kind, model)
        except KeyError:
            return refused(404, GONE)
        except (PneumoError, ValueError) as error:
            return refused(422, str(error))
        headers = {"Cache-Control": "no-store"}
        return Response(content, media_type=media, headers=headers)

    async def guarded(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = at_the_door(request)
        if response is None and request.method in ("POST", "PUT"):
            try:
                async with turns.one():
                    response = await call_next(request)
            except Crowded:
                response = refused(503, f"{WAITING} uploads wait already; send it again later")
        elif response is None:
            response = await call_next(request)
        # other sites may not load the films as pictures or scripts, nor learn their addresses
        response.headers.update(
            {
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
        )
        return response

    # When it listens on all addresses, the names that lead here are not known, and DNS rebinding is
    # not guarded against.
    everywhere = settings.host in ("0.0.0.0", "::")
    allowed = ["*"] if everywhere else ["127.0.0.1", "localhost", "[::1]", settings.host]
    application = Starlette(
        routes=[
            Route("/", index),
            Route("/api/model", about),
            Route("/api/films", listed),
            Route("/api/films", upload, methods=["POST"]),
            Route("/api/films", remove, methods=["DELETE"]),
            Route("/api/films/{key}", remove, methods=["DELETE"]),
            Route("/api/films/{key}/correction", correction, methods=["GET", "PUT", "DELETE"]),
            Route("/api/films/{key}/{kind}", picture),
        ],
        # against DNS rebinding: a request must name this host, not one of another site that points
        # here
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=allowed),
            Middleware(BaseHTTPMiddleware, dispatch=guarded),
        ],
    )
    application.state.films, application.state.token = films, token
    return application


def rendered(found: Finding, kind: str, model: Bundle) -> tuple[str, bytes]:
    """One of a film's pictures or files → (media type, bytes).

    Raises PneumoError for an unknown kind.
    """
    match kind:
        case "film.png":
            return "image/png", small(found.film.pixels)
        case "heat.png":
            return "image/png", pictures.png(pictures.heat_colours(shrunk(found.levels)))
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
                dicom_objects.segmentation(found.film.header, found.stored_mask, found.maker(model))
            )
    raise PneumoError(f"{kind}: no such picture or file")
