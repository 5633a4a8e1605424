"""What stands in for a network's bundle, for films and for a browser: a bright quarter, a film with
other tags, requests.
"""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom

from pneumo.inference import bundle, dicom_objects, findings
from pneumo.inference.settings import Polarity, Use
from pneumo.masks.rule import plain
from pneumo.masks.settings import Postprocess
from pneumo.training.network import build_network
from pneumo.training.options import Model


class Bright(bundle.Bundle):
    """Stands in for a bundle: probability .9 in the upper left quarter of the upright film."""

    def __init__(self, rule=None):
        data = [{"format": "siim", "name": "x", "training": 1, "validation": 1, "parts": ""}]
        card = {"name": "bright", "members": [], "data": data, "limits": "", "thresholds": {}}
        super().__init__(Path(), card, [], rule or Postprocess(0.5, 0), False, "torch")

    def says(self, film, tta=None):
        levels = np.zeros((32, 32), np.uint8)
        levels[:16, :16] = 230
        return levels, None

    def says_each(self, films, tta=None):
        return [self.says(film, tta) for film in films]


def random_bundle(place):
    """A bundle of a small network with random weights, which finds something everywhere."""
    network = {"name": "small", "encoder": "tu-test_resnet", "encoder_weights": "none"}
    about = {"model": network, "input": {"size": 64}}
    data = [{"name": "siim", "training": 0, "validation": 0, "parts": ""}]
    rule = plain(Postprocess(0.5, 0))
    card = {"name": "random", "tta": False, "postprocess": rule, "data": data}
    bundle.write(place, card, [build_network(Model(**network)).eval()], [about], onnx=False)
    return place


def edited(path, **tags):
    """A film's bytes with other tags."""
    dataset = pydicom.dcmread(path)
    for key, value in tags.items():
        setattr(dataset, key, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def finding(content, rule=None, polarity=Polarity.tags, **use):
    reading = findings.read("x.dcm", content, Use(polarity=polarity, **use))
    return findings.find(reading, Bright(), rule or Postprocess(0.5, 0))


MAKER = dicom_objects.Maker(
    "m", "Model m: trained on 396 drawn phantoms; Dice 0.798 on 44 held out"
)


SHRUNK = {"PixelSpacing": [0.139, 0.139], "ImagerPixelSpacing": [0.139, 0.139]}


def comment(report):
    """The text that a Structured Report ends with."""
    (text,) = (
        item.TextValue
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
    )
    return text


async def answered(application, method, path, receive, **headers):
    """An ASGI application's answer to who has its token: (status, body, headers).

    ``receive`` gives the messages of the body; a header of None is not sent.
    """
    own = {"host": "127.0.0.1", "authorization": f"Bearer {application.state.token}"}
    query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": query[0],
        "raw_path": query[0].encode(),
        "query_string": query[2].encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "headers": [
            (key.replace("_", "-").lower().encode(), value.encode())
            for key, value in {**own, **headers}.items()
            if value is not None
        ],
    }
    sent = []

    async def send(message):
        sent.append(message)

    await application(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    answer = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], body, answer


def asked(application, method, path, content=b"", **headers):
    """The same for a body that is there at once."""
    gone = []  # the client stays until it has the whole answer

    async def receive():
        if gone:
            await asyncio.sleep(3600)
        gone.append(True)
        return {"type": "http.request", "body": content, "more_body": False}

    # in a thread of its own: in the tests' own thread Playwright's loop may be running
    with ThreadPoolExecutor(1) as thread:
        asking = answered(application, method, path, receive, **headers)
        return thread.submit(asyncio.run, asking).result()
