"""Attacks on the local page: by other users of the machine, and on its memory."""

import asyncio
import json
import socket
import sys
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
import uvicorn
from conftest import say, write_film
from inference.stand_ins import Bright, answered, asked

from pneumo.data.settings import MaskSize
from pneumo.inference import bundle, server
from pneumo.inference.settings import View
from pneumo.masks import pictures

FILM = pictures.png(np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8))
DOORS = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/api/model"),
    ("GET", "/api/films"),
    ("POST", "/api/films?name=a.png"),
    ("DELETE", "/api/films"),
    ("DELETE", "/api/films/{key}"),
    ("GET", "/api/films/{key}/film.png"),
    ("GET", "/api/films/{key}/facts.json"),
    ("GET", "/api/films/{key}/correction"),
    ("PUT", "/api/films/{key}/correction"),
    ("DELETE", "/api/films/{key}/correction"),
    ("GET", "/nothing"),
]
KEYS = {
    "nothing": {},
    "an empty cookie": {"cookie": "pneumo-8765="},
    "another token": {"authorization": "Bearer {other}"},
    "another cookie": {"cookie": "pneumo-8765={other}"},
    "the beginning of the token": {"authorization": "Bearer {token:.20}"},
    "more than the token": {"authorization": "Bearer {token}x"},
    "the cookie of another port": {"cookie": "pneumo-8766={token}"},
    "a name and a password": {"authorization": "Basic {token}"},
    "letters that are no ASCII": {"authorization": "Bearer ÿ", "cookie": "pneumo-8765=ÿ"},
}


@pytest.fixture
def page(tmp_path):
    """The application with a film, and the film's key."""
    settings = View(corrections=str(tmp_path / "corrections"), reader="Dr A")
    application = server.application(Bright(), settings)
    return application, application.state.films.add("first.png", FILM)


def in_one_loop(answers):
    """What an asynchronous generator yields, as a list."""

    async def collected():
        return [one async for one in answers]

    # in a thread of its own: in the tests' own thread Playwright's loop may be running
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, collected()).result()


def sending(content):
    """The messages of a body that is there at once."""

    async def receive():
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


async def unread():
    raise AssertionError("the body of a stranger's request was read")


@pytest.mark.parametrize("shown", KEYS)
def test_who_has_no_token_is_refused_unread_at_every_door(page, shown):
    application, key = page
    known = {"token": application.state.token, "other": "A" * len(application.state.token)}
    headers = {name: value.format(**known) for name, value in KEYS[shown].items()}
    headers = {"authorization": None, **headers}

    async def at_every_door():
        for method, path in DOORS:
            yield (
                method,
                await answered(application, method, path.format(key=key), unread, **headers),
            )

    for method, (status, body, answer) in in_one_loop(at_every_door()):
        assert status == 403
        assert method == "HEAD" or json.loads(body)["error"] == server.CLOSED
        assert answer["cross-origin-resource-policy"] == "same-origin"
    assert application.state.films.newest_last() == [key]


def test_the_printed_address_lets_in_once_and_a_cookie_from_then_on(page):
    application, _ = page
    token = application.state.token
    status, body, answer = asked(application, "GET", f"/?token={token}", authorization=None)
    assert status == 200
    assert b'http-equiv="refresh" content="0; url=/"' in body
    assert token.encode() not in body
    kept, _, limits = answer["set-cookie"].partition("; ")
    assert kept == f"pneumo-8765={token}"
    assert {"httponly", "samesite=strict", "path=/"} <= set(limits.lower().split("; "))
    status, body, answer = asked(application, "GET", "/", authorization=None, cookie=kept)
    assert (status, b"pneumo" in body, "set-cookie" in answer) == (200, True, False)
    wrong = asked(application, "GET", f"/?token={token[:-1]}", authorization=None)
    elsewhere = asked(application, "GET", f"/api/films?token={token}", authorization=None)
    assert (wrong[0], elsewhere[0]) == (403, 403)
    assert "set-cookie" not in wrong[2]


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "token", "Token"])
def test_programs_show_the_token_in_a_header(page, kind):
    application, _ = page
    header = f"{kind} {application.state.token}"
    assert asked(application, "GET", "/api/films", authorization=header)[0] == 200


def test_each_page_has_a_token_of_its_own_that_cannot_be_guessed():
    tokens = {server.application(Bright(), View()).state.token for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 43  # 32 bytes


def test_tokens_are_compared_in_constant_time(page, monkeypatch):
    compared = []
    monkeypatch.setattr(server.secrets, "compare_digest", lambda *both: compared.append(both))
    asked(page[0], "GET", "/?token=x", cookie="pneumo-8765=y", authorization="Bearer z")
    asked(page[0], "GET", "/", cookie="pneumo-8765=y", authorization="Bearer z")
    assert {offered for _, offered in compared} == {b"x", b"y", b"z"}


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Run the command up to where it would serve: what it said, its socket's address, uvicorn's
    settings, and what a browser would open.
    """

    def start(*typed):
        seen = {}

        def run(self, sockets):
            seen.update(address=sockets[0].getsockname(), config=self.config)
            paths = [Path(url2pathname(urlsplit(url).path)) for url in opened.get("urls", [])]
            seen["opened"] = [path.read_text() for path in paths]
            seen["rights"] = [path.parent.stat().st_mode & 0o777 for path in paths]

        class Now:
            def __init__(self, after, work, arguments):
                opened["work"], opened["urls"] = work, arguments

            def start(self):
                pass

        opened = {}
        monkeypatch.setattr(bundle, "load", lambda *given: Bright())
        monkeypatch.setattr(uvicorn.Server, "run", run)
        monkeypatch.setattr("threading.Timer", Now)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = ["model=model", f"port={port}", *typed]
        monkeypatch.setattr(sys, "path", list(sys.path))
        code, said, faults = say("view", arguments, tmp_path, monkeypatch)
        assert (code, faults) == (0, "")
        return said, seen, opened

    return start


def test_only_this_machine_is_listened_to_unless_asked_otherwise(started):
    said, seen, _ = started("open=false")
    assert seen["address"][0] == "127.0.0.1"
    assert "Other machines" not in said
    said, seen, _ = started("open=false", "host=0.0.0.0")
    assert seen["address"][0] == "0.0.0.0"
    assert "Other machines can reach this page" in said


def test_the_token_is_printed_once_and_stands_in_no_log_and_on_no_command_line(started):
    said, seen, opened = started()
    config = seen["config"]
    token = config.app.state.token
    assert said.count(token) == 1
    assert f"http://127.0.0.1:{seen['address'][1]}/?token={token} " in said
    assert (config.access_log, config.log_level) == (False, "error")
    assert opened["work"] is webbrowser.open
    (url,) = opened["urls"]
    assert url.startswith("file:")
    assert token not in url
    (page,) = seen["opened"]
    assert f"/?token={token}" in page
    assert seen["rights"] == [0o700]
    assert not Path(url2pathname(urlsplit(url).path)).exists()  # gone when the page is


@pytest.mark.parametrize(
    ("count", "keep"), [(12, 5), pytest.param(500, 64, marks=pytest.mark.slow)]
)
def test_of_many_films_the_newest_are_kept(count, keep):
    application = server.application(Bright(), View(keep=keep))

    async def posted():
        for number in range(count):
            path = f"/api/films?name={number}.png"
            yield await answered(application, "POST", path, sending(FILM))

    ids = [json.loads(body)["id"] for _, body, _ in in_one_loop(posted())]
    assert len(set(ids)) == count
    assert application.state.films.newest_last() == ids[-keep:]
    assert asked(application, "GET", f"/api/films/{ids[0]}/film.png")[0] == 404


def test_films_are_dropped_before_they_fill_the_memory(monkeypatch, tmp_path):
    """By what they hold: pixels, and the tags of a DICOM file, which may be larger."""
    pixels = np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16)
    plain = write_film(tmp_path / "a.dcm", pixels, 12).read_bytes()
    fat = write_film(tmp_path / "b.dcm", pixels, 12, EncapsulatedDocument=b"x" * 200_000)
    fat = fat.read_bytes()
    monkeypatch.setattr(server, "MEMORY", 1 << 17)
    films = server.Films(Bright(), View(keep=10_000))
    for number in range(20):
        films.add(f"{number}.dcm", plain)
    assert 8 <= len(films.kept) <= 10  # of 3 × 64 × 64 bytes and some tags
    films.add("fat.dcm", fat)
    films.add("last.dcm", plain)
    assert [shown.name for shown in films.kept.values()] == ["last.dcm"]
    mask = np.ones((64, 64), np.uint8)
    table = tmp_path / "t.csv"
    table.write_text("ImageId,EncodedPixels\na,0 4096\n")
    known = View(annotations=str(table), mask_size=MaskSize.film)
    films = server.Films(Bright(), known)
    sizes = [films.kept[films.add(name, plain)].size for name in ("a.dcm", "other.dcm")]
    assert sizes[0] == sizes[1] + mask.nbytes


class Crowd:
    """Many uploads at once; it counts how many bodies are in memory, received but not judged."""

    def __init__(self, application):
        self.application, self.open, self.most = application, 0, 0
        films = application.state.films
        self.judge, films.add = films.add, self.add

    def add(self, name, content):
        try:
            return self.judge(name, content)
        finally:
            self.open -= 1

    async def send(self, number):
        pieces = [FILM[:100], FILM[100:]]

        async def receive():
            if len(pieces) == 2:
                self.open += 1
                self.most = max(self.most, self.open)
            await asyncio.sleep(0)
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        path = f"/api/films?name={number}.png"
        status, body, _ = await answered(self.application, "POST", path, receive)
        return status, json.loads(body)

    async def all(self, *counts):
        for count in counts:
            yield await asyncio.gather(*map(self.send, range(count)))


def test_uploads_wait_unread_and_too_many_are_told_so(page, monkeypatch):
    monkeypatch.setattr(server, "WAITING", 30)
    crowd = Crowd(page[0])
    answers, later = in_one_loop(crowd.all(50, 20))
    assert crowd.most == server.UPLOADS
    statuses = [status for status, _ in answers]
    assert (statuses.count(201), statuses.count(503)) == (32, 18)
    assert all("30 uploads wait already" in told["error"] for code, told in answers if code == 503)
    assert {status for status, _ in later} == {201}


def test_an_upload_that_stands_still_gives_its_place_to_others(page, monkeypatch):
    monkeypatch.setattr(server, "STALLED", 0.02)
    application, _ = page

    async def stalled():
        await asyncio.sleep(3600)

    async def together():
        path = "/api/films?name=a.png"
        several = (answered(application, "POST", path, stalled) for _ in range(4))
        for one in await asyncio.gather(*several):
            yield one

    assert {status for status, _, _ in in_one_loop(together())} == {408}
    assert asked(application, "POST", "/api/films?name=b.png", FILM)[0] == 201
