"""Shared by all tests: the real data's place, a small phantom data set, and how to run a command as
a user does.
"""

import atexit
import contextlib
import csv
import functools
import io
import json
import logging
import os
import pickle
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hydra.core.config_store import ConfigStore
from hypothesis import Phase, settings
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from starter import Starter

from pneumo.data.settings import PhantomData
from pneumo.data.sources import phantom
from pneumo.inference import maps
from pneumo.settings import PLACES

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks for its newest version when imported
os.environ["WANDB_MODE"] = "disabled"  # tests that mean Weights & Biases set their own
# threads of several workers would wait for one another
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
# else each composition copies all that it does not change, a third of its time
ConfigStore.__deepcopy__ = lambda store, memo: store
ROOT = Path(__file__).parents[1]
# properties: the same examples in every run, however slow the machine
settings.register_profile("same", derandomize=True, deadline=None, max_examples=50)
# whoever only asks whether a property fails needs no smallest example of it
phases = [Phase.explicit, Phase.generate]
settings.register_profile("first", settings.get_profile("same"), phases=phases)
settings.load_profile(os.environ.get("PNEUMO_EXAMPLES", "same"))


@pytest.fixture(autouse=True, scope="session")
def elsewhere(tmp_path_factory):
    """An empty folder to work in, since runs of the checkout would be taken for a test's own."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def threads():
    """As many as a command of its own has, whatever a test before stated: maps differ by a level
    from one number to another.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("PNEUMO_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "siim" / "stage_2_train.csv.gz").is_file():
        pytest.skip("real SIIM-ACR files are not here; name their folder in PNEUMO_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def second_readers(real_data) -> Path:
    """What other readers said of the challenge's films, as they published it."""
    folder = real_data / "second_readers"
    if not folder.is_dir():
        pytest.skip("second_readers/ is not beside the real SIIM-ACR files")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Twenty-four phantom films, a third of them positive."""
    root = tmp_path_factory.mktemp("phantoms") / "set"
    phantom.generate(PhantomData(name="phantom", images=24, positive_rate=1 / 3, seed=3), root)
    return root


def write_film(path, array, bits=None, **tags):
    """Write an uncompressed DICOM film."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
        SecondaryCaptureImageStorage,
        ExplicitVRLittleEndian,
    )
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = (
        SecondaryCaptureImageStorage,
        generate_uid(entropy_srcs=[str(path)]),
    )
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = array.shape
    data.BitsAllocated = array.dtype.itemsize * 8
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, 0
    data.PixelData = array.tobytes()
    for key, value in tags.items():
        setattr(data, key, value)
    data.save_as(path, enforce_file_format=True)
    return path


def write_picture(path, shape=(96, 128)):
    """Write a film of noise as PNG or JPEG; other names have other noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path.name)))
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


TINY = (
    *("data=phantom", "data.images=24", "data.seed=3"),  # six validation films of five patients
    *("scale=mini", "scale.positive_rate=0.34"),
    *("scale.size=0.125", "epochs=4", "scale.epochs=0.03", "batch_size=8", "averaging.epochs=2"),
    *("log.pictures=2", "log.pictures_every=2", "machine.threads=1", "split.validation=0.25"),
    "log.checkpoints=true",
    "model.encoder=tu-test_resnet",  # half a million weights; the paper's has twenty-one million
)


@functools.cache
def starter() -> Starter:
    """Starts the commands of all tests of this process."""
    started = Starter(Path(tempfile.mkdtemp(prefix="pneumo-tests-")))
    atexit.register(shutil.rmtree, started.folder, ignore_errors=True)
    atexit.register(started.close)
    return started


def launch(
    folder, *arguments, module="pneumo.train", env=None, **options
) -> subprocess.CompletedProcess:
    """Run ``python -m <module> <arguments>`` in a folder; returns the finished process with its
    text output. It is forked from one that has imported all, unless it needs an environment of its
    own.
    """
    if not (env or options) and module.startswith("pneumo."):
        ended = starter().run(module.removeprefix("pneumo."), arguments, folder=folder)
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.CompletedProcess(command, ended.status, ended.out, ended.err)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={key: value for key, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=1500,
        **options,
    )


def say(module, arguments, folder, monkeypatch):
    """Run a command in this process: its exit status, what it printed, and its errors."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [f"pneumo.{module}", *arguments])
    logger = logging.getLogger("pneumo")  # a command sends its news to the screen
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
        runpy.run_module(f"pneumo.{module}", run_name="__main__", alter_sys=True)
    PLACES[1:] = []  # the folder of a --config-dir, which a process of its own would forget
    return stop.value.code, out.getvalue(), err.getvalue()


def slow_but(quick, values):
    """Parameters of a test: ``quick`` as they are, the rest of ``values`` for the slow tests."""
    return [
        pytest.param(value, marks=[] if value in quick else pytest.mark.slow) for value in values
    ]


def one(folder, experiment) -> Path:
    """The only run of an experiment."""
    (path,) = (folder / "runs" / experiment).glob("*/*")
    return path


def complaint(done, status=1) -> str:
    """The one line of an error, and no traceback."""
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def once(tmp_path_factory, name, make):
    """A folder that ``make`` fills, and what it returns: one process of the tests does it, and each
    has a copy of its own.
    """
    own = tmp_path_factory.mktemp(name) / name
    first = own
    if "PYTEST_XDIST_WORKER" in os.environ:
        first = tmp_path_factory.getbasetemp().parent / name
    kept = first.with_name(f"{name}.returned")
    with FileLock(f"{first}.lock"):
        if not kept.exists():
            first.mkdir()
            kept.write_bytes(pickle.dumps(make(first)))
    if own != first:
        shutil.copytree(first, own)
    return own, pickle.loads(kept.read_bytes())


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with one finished exp5 (both stages) on 24 phantoms at 32² and 64², and the command
    that made it.
    """

    def make(folder):
        done = launch(folder, "+experiment=exp5", *TINY)
        assert done.returncode == 0, done.stderr
        return done

    return once(tmp_path_factory, "exp5", make)


@pytest.fixture(scope="session")
def predicted(finished):
    """exp5's maps of its validation part."""
    folder, _ = finished
    done = launch(folder, "run=runs/exp5/*/*", "on=val", module="pneumo.predict")
    assert done.returncode == 0, done.stderr
    return folder, maps.load(one(folder, "exp5") / "predictions" / "val")


@pytest.fixture
def command(tmp_path):
    """Run ``python -m <module> <arguments>`` in an empty folder."""
    return lambda module, *arguments, **options: launch(
        tmp_path, *arguments, module=module, **options
    )


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium or Chrome."""
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        assert not os.environ.get("CI"), "CI must have a browser"
        pytest.skip("no Chromium or Chrome on this machine")
    from playwright.sync_api import sync_playwright

    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=quiet)
        yield running
        running.close()


TOKENS = {}  # address of a page → what its requests must show


def asking(url, data=None, method=None, **headers):
    """A request that the page at this address answers."""
    token = next((TOKENS[address] for address in TOKENS if url.startswith(address)), None)
    headers = {"Authorization": f"Bearer {token}", **headers} if token else headers
    return urllib.request.Request(url, data=data, headers=headers, method=method)


@contextlib.contextmanager
def serving(folder, *arguments):
    """``python -m pneumo.view`` in a folder: its address, and the lines that it said before.

    Its token is in TOKENS. Afterwards it must end without a traceback, and without having told the
    token again.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "pneumo.view", *arguments, f"port={port}", "open=false"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    for line in process.stdout:
        if line.startswith("http://"):
            break
        said.append(line)
    else:
        pytest.fail(process.stderr.read())
    address, _, token = line.split()[0].partition("?token=")
    assert address == f"http://127.0.0.1:{port}/"
    TOKENS[address] = token
    for _ in range(100):
        try:
            urllib.request.urlopen(asking(address), timeout=30).close()
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    try:
        yield address, said
    finally:
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
        del TOKENS[address]
    assert "Traceback" not in errors
    assert token not in rest + errors


@contextlib.contextmanager
def visited(browser, url, width, ready, **options):
    """A page once something on it is there; afterwards, it must neither have failed nor asked
    anybody but its own server.
    """
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    faults, outside = [], []
    own = ("data:", "blob:", "file:" if url.startswith("file:") else url)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda one: outside.append(one.url) if not one.url.startswith(own) else None)
    page.goto(f"{url}?token={TOKENS[url]}" if url in TOKENS else url)
    page.wait_for_selector(ready)
    assert url not in TOKENS or page.url == url  # the token does not stay in sight
    yield page
    page.close()
    assert faults == []
    assert outside == []


@pytest.fixture(scope="session")
def model(finished, tmp_path_factory) -> Path:
    """A bundle of the finished exp5, with ONNX."""

    def make(folder):
        done = launch(
            finished[0],
            "run=runs/exp5/*/*",
            f"out={folder / 'model'}",
            "onnx=true",
            "resamples=20",
            "licence=CC0",
            module="pneumo.export",
        )
        assert done.returncode == 0, done.stderr
        assert "Next: python -m pneumo.predict model=" in done.stdout

    return once(tmp_path_factory, "bundle", make)[0] / "model"


@pytest.fixture(scope="session")
def film(finished) -> Path:
    """One phantom DICOM file."""
    return sorted((finished[0] / "runs" / "phantom").glob("24-*/**/*.dcm"))[0]


@pytest.fixture(scope="module")
def whole(finished, model, film, tmp_path_factory) -> Path:
    """A folder for the tests of a file: two finished runs, the bundle of one and a film."""
    place = tmp_path_factory.mktemp("whole") / "whole"
    shutil.copytree(finished[0], place)
    shutil.copytree(model, place / "model")
    shutil.copy(film, place / "film.dcm")
    return place


def second_reader(predictions, folder) -> list[str]:
    """Files of a reader who draws boxes around the true masks, moved by 40 pixels, and misses every
    third: settings that name them. The films take the names of NIH's first ones.
    """
    with open(ROOT / "pneumo" / "data" / "sources" / "chestx_det_names.csv", newline="") as file:
        known = [row for row in csv.reader(file) if row[0][:1].isdigit()]
    films, names = [], ["ImageId,name"]
    for place, case in enumerate(predictions.cases):
        serial, nih = known[place][:2]
        names.append(f"{case.id},{nih}")
        rows, columns = np.nonzero(case.mask())
        sees = len(rows) and place % 3
        polygons = []
        if sees:
            left, right = np.clip([columns.min() + 40, columns.max() + 40], 0, 1023).tolist()
            top, bottom = int(rows.min()), int(rows.max())
            polygons = [[[left, top], [right, top], [right, bottom], [left, bottom]]]
        films.append(
            {
                "file_name": f"{serial}.png".replace(".png.png", ".png"),
                "syms": ["Pneumothorax"] * len(polygons),
                "polygons": polygons,
            }
        )
    (folder / "reader.json").write_text(json.dumps(films))
    (folder / "names.csv").write_text("\n".join(names))
    return [
        f"reader.chestx_det={folder / 'reader.json'}",
        f"reader.names={folder / 'names.csv'}",
    ]
