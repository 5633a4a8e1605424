"""Files that mean harm, in every place where a user can put one.

Whatever they hold, nothing of it is run, memory stays bounded, and what cannot be used is refused
in one line. Each entry of a table is an attack; ``pytest --collect-only`` counts them.
"""

import contextlib
import csv
import gzip
import inspect
import io
import json
import os
import pickle
import resource
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import pytorch_lightning as pl
import torch
from conftest import say, write_film
from inference.stand_ins import Bright
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless
from pytorch_lightning.demos.boring_classes import BoringModel
from safetensors.torch import save

from pneumo import files, mistakes, runs, seals
from pneumo.data import cache, csv_files, dicom, spacing
from pneumo.data.films import Item, patients_from_films
from pneumo.data.settings import CocoData
from pneumo.data.sources import coco, folder, siim
from pneumo.errors import PneumoError, one_line
from pneumo.inference import applying, bundle, corrections, inputs, maps, outputs, painting, server
from pneumo.inference.corrections import Corrections
from pneumo.inference.engine import onnx_engine
from pneumo.inference.privacy import OutputNames
from pneumo.inference.settings import Names, Predict, Save, View
from pneumo.masks.rule import plain
from pneumo.masks.settings import Postprocess
from pneumo.settings import CONF, PLACES, Machine
from pneumo.tables import Table, cell
from pneumo.training import fit, record, weights
from pneumo.training.network import build_network
from pneumo.training.options import Model

LINE = 700  # characters of an error, at most
GREY = np.random.default_rng(0).integers(0, 4000, (48, 40)).astype(np.uint16)


@pytest.fixture(autouse=True)
def canary(tmp_path):
    """A folder that hostile code would make; it must not be there afterwards."""
    made = tmp_path / "code was run"
    yield made
    PLACES[1:] = []  # a --config-dir, which a process of its own would forget
    assert not made.exists()


class Evil:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@contextlib.contextmanager
def bounded(megabytes=300):
    """The process cannot get more memory than this meanwhile."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def traced(megabytes):
    """Python's own memory, and what zlib and numpy ask it for, stays below this meanwhile."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()


def refusal(work):
    """The one line with which something is refused."""
    with pytest.raises(PneumoError) as caught:
        work()
    text = one_line(caught.value)
    assert 0 < len(text) < LINE
    assert "not enough memory" not in text
    return text


def harmless(work):
    """Do something that may succeed or be refused, and nothing else."""
    try:
        return work()
    except PneumoError as error:
        text = str(error)
    assert "not enough memory" not in text
    return None


# ---- films: DICOM


def film(tmp_path, array=GREY, **tags):
    return write_film(tmp_path / "film.dcm", array, 12 if array.itemsize > 1 else None, **tags)


def with_tags(tmp_path, **tags):
    """A film's bytes; a tag that is bytes is written raw, under the kind of value that it has."""
    dataset = pydicom.dcmread(film(tmp_path))
    for key, value in tags.items():
        if isinstance(value, tuple):
            kind, raw = value
            tag = pydicom.tag.Tag(key)
            raw = RawDataElement(tag, kind, len(raw), raw, 0, False, True)
            dataset._dict[tag] = raw
        else:
            setattr(dataset, key, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def packed(tmp_path, frames, syntax, **tags):
    """A film whose pixels are compressed, as these bytes."""
    dataset = pydicom.dcmread(film(tmp_path, GREY.astype(np.uint8)))
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    for key, value in tags.items():
        setattr(dataset, key, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def jpeg(rows, columns, quality=5):
    return cv2.imencode(".jpg", np.zeros((rows, columns), np.uint8), [1, quality])[1].tobytes()


def element(group, number, kind, value):
    value += b"\0" * (len(value) % 2)
    if kind in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sHI", group, number, kind, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, kind, len(value)) + value


def deflated(preamble=b"\0" * 128 + b"DICM", padding=0, unpacked=40 << 20):
    """A small file that unpacks to many bytes."""
    meta = b"".join(
        [
            element(2, 1, b"OB", b"\0\1"),
            element(2, 2, b"UI", b"1.2.840.10008.5.1.4.1.1.7"),
            element(2, 3, b"UI", b"1." + b"2" * padding),
            element(2, 0x10, b"UI", DeflatedExplicitVRLittleEndian.encode()),
        ]
    )
    meta = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
    pack = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = pack.compress(element(8, 0x16, b"UI", b"1.2"))
    body += pack.compress(struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, unpacked))
    body += b"".join(pack.compress(bytes(1 << 20)) for _ in range(unpacked >> 20))
    return preamble + meta + body + pack.flush()


def nested(depth):
    """Sequences in sequences, of no stated length."""
    begin = struct.pack("<HH2sHI", 0x40, 0x100, b"SQ", 0, 0xFFFFFFFF)
    return begin + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) if depth else b""


FILMS = {
    "nothing": lambda at: b"",
    "one byte": lambda at: b"D",
    "a preamble alone": lambda at: b"\0" * 128,
    "the mark alone": lambda at: b"\0" * 128 + b"DICM",
    "a program": lambda at: b"\x7fELF" + bytes(range(256)) * 20,
    "a web page": lambda at: b"<html><script>alert(1)</script>" * 50,
    "a pickle": lambda at: pickle.dumps(Evil(at / "code was run")),
    "no pixels": lambda at: with_tags(at, Rows=0),
    "60000² pixels": lambda at: with_tags(at, Rows=60000, Columns=60000),
    "65535² pixels": lambda at: with_tags(at, Rows=65535, Columns=65535),
    "fewer bytes than pixels": lambda at: with_tags(at, Rows=9000, Columns=9000),
    "a billion frames": lambda at: with_tags(at, NumberOfFrames=10**9),
    "65535 samples a pixel": lambda at: with_tags(at, SamplesPerPixel=65535),
    "64 bits a pixel": lambda at: with_tags(at, BitsAllocated=64),
    "3 bits a pixel": lambda at: with_tags(at, BitsAllocated=3),
    "no bits a pixel": lambda at: with_tags(at, BitsAllocated=0, BitsStored=0),
    "more bits stored than allocated": lambda at: with_tags(at, BitsStored=4000),
    "an unknown kind of number": lambda at: with_tags(at, PixelRepresentation=7),
    "an unknown transfer syntax": lambda at: packed(at, [b"12"], "1.2.3.4"),
    "a deflated bomb": lambda at: deflated(),
    "a deflated bomb behind a long head": lambda at: deflated(padding=5000),
    "a deflated bomb without preamble": lambda at: deflated(preamble=b""),
    "sequences 50,000 deep": lambda at: film(at).read_bytes() + nested(1) * 50_000,
    "an element of 4 GB": lambda at: (
        film(at).read_bytes()[:-40] + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 0xFFFFFFF0)
    ),
    "a JPEG bomb": lambda at: packed(at, [jpeg(16000, 16000)], JPEGBaseline8Bit),
    "a JPEG of another size": lambda at: packed(at, [jpeg(480, 400)], JPEGBaseline8Bit),
    "half a JPEG": lambda at: packed(at, [jpeg(48, 40)[:200]], JPEGBaseline8Bit),
    "a JPEG of two frames": lambda at: packed(at, [jpeg(48, 40)] * 2, JPEGBaseline8Bit),
    "run lengths of 4 billion segments": lambda at: packed(at, [b"\xff" * 64], RLELossless),
    "run lengths that repeat for ever": lambda at: packed(
        at, [struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 50_000], RLELossless
    ),
    "a window of no width": lambda at: with_tags(at, WindowCenter="0", WindowWidth="0"),
    "a window of no numbers": lambda at: with_tags(
        at, WindowCenter=("DS", b"abcd"), WindowWidth=("DS", b"nan ")
    ),
    "a slope without end": lambda at: with_tags(at, RescaleSlope=("DS", b"1e999 ")),
    "a slope of no number": lambda at: with_tags(at, RescaleSlope=("DS", b"x;rm -rf")),
    "a table of levels of another length": lambda at: with_tags(
        at, ModalityLUTSequence=("SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff")
    ),
    "spacing of no numbers": lambda at: with_tags(at, PixelSpacing=("DS", b"a\\b ")),
    "a spacing without end": lambda at: with_tags(at, PixelSpacing=("DS", b"inf\\1e400 ")),
    "an age of words": lambda at: with_tags(at, PatientAge=("AS", b"`id`")),
    "a modality of an unknown kind": lambda at: with_tags(at, Modality=("ZZ", b"CR")),
    "an id of an unknown kind": lambda at: with_tags(at, PatientID=("ZZ", b"1234")),
    "a name of an unknown kind": lambda at: with_tags(at, PatientName=("ZZ", b"Doe^")),
    "a UID of an unknown kind": lambda at: with_tags(at, SOPInstanceUID=("ZZ", b"1.23")),
    "rows of an unknown kind": lambda at: with_tags(at, Rows=("ZZ", b"48")),
    "several rows": lambda at: with_tags(at, Rows=("US", b"\x30\0\x28\0")),
    "a body part that is a sequence": lambda at: with_tags(at, BodyPartExamined=("SQ", b"CHEST ")),
    "an unknown alphabet": lambda at: with_tags(
        at, SpecificCharacterSet=("CS", b"no_such "), PatientName=("PN", b"\xff\xfe\xfd^")
    ),
    "an orientation of signs": lambda at: with_tags(at, PatientOrientation=("CS", b"=\\@;")),
    "a palette without colours": lambda at: with_tags(
        at, PhotometricInterpretation="PALETTE COLOR"
    ),
}


@pytest.mark.filterwarnings("ignore")  # of pydicom and Pillow, on the way to the refusal
@pytest.mark.parametrize("name", FILMS)
def test_hostile_films_are_refused_or_harmless(name, tmp_path, monkeypatch):
    """Dropped on the page, in a folder of films, and by their tags alone."""
    monkeypatch.setattr(dicom, "MAX_UNPACKED", 1 << 20)
    content = FILMS[name](tmp_path)
    path = tmp_path / "hostile.dcm"
    path.write_bytes(content)
    with bounded(), contextlib.redirect_stderr(io.StringIO()):
        with traced(30):
            harmless(lambda: server.Films(Bright(), View(colour=True)).add("a.dcm", content))
        harmless(lambda: dicom.read(path))
        harmless(lambda: dicom.read_tags(path))
        harmless(lambda: patients_from_films([Item("a", path, [])]))


@pytest.mark.parametrize("kind", ["plain", "JPEG"])
@pytest.mark.filterwarnings("ignore")
def test_films_cut_or_changed_anywhere_are_refused_or_harmless(kind, tmp_path):
    if kind == "JPEG":
        content = packed(tmp_path, [jpeg(48, 40, 50)], JPEGBaseline8Bit, Rows=48, Columns=40)
    else:
        content = film(tmp_path, PatientID="4711", PixelSpacing=[0.1, 0.1]).read_bytes()
    rng = np.random.default_rng(0)
    cuts = [content[:place] for place in np.linspace(0, len(content) - 1, 60, dtype=int)]
    flipped = []
    for _ in range(140):
        changed = bytearray(content)
        for place in rng.integers(128, min(len(content), 1000), rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        flipped.append(bytes(changed))
    shown = server.Films(Bright(), View(keep=2))
    with bounded():
        for hostile in (*cuts, *flipped):
            harmless(lambda hostile=hostile: shown.add("a.dcm", hostile))
            (tmp_path / "a.dcm").write_bytes(hostile)
            harmless(lambda: dicom.read_tags(tmp_path / "a.dcm"))


HEADERS = {
    "a formula as UID": {"SOPInstanceUID": ("UI", b"=cmd|' /C calc'!A0")},
    "a path as UID": {"SOPInstanceUID": ("UI", b"../../../../etc/cron.d/x")},
    "markup as name": {"PatientName": "<img src=x onerror=alert(1)>"},
    "a name of 60 KB": {"PatientName": ("PN", b"x" * 60_000)},
    "a date that is none": {"PatientBirthDate": ("DA", b"99999999"), "StudyDate": ("DA", b"x-y ")},
    "a time that is none": {"StudyTime": ("TM", b"99:99:99")},
    "a UID of letters": {"StudyInstanceUID": ("UI", b"abc "), "SeriesInstanceUID": ("UI", b"x ")},
    "a number that is none": {"SeriesNumber": ("IS", b"12ab"), "InstanceNumber": ("IS", b"99" * 9)},
    "an unknown alphabet": {"SpecificCharacterSet": ("CS", b"ISO_IR x"), "PatientID": "ä"},
    "a sequence of nothing": {"AnatomicRegionSequence": ("SQ", b"")},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_leave_only_files_in_the_folder_of_results(name, tmp_path, monkeypatch):
    """With all DICOM outputs, which take over what the header says."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(with_tags(tmp_path, **HEADERS[name]))
    monkeypatch.setattr(bundle, "load", lambda *given: Bright())
    monkeypatch.setattr(Bright, "unlike", lambda self, film: "")
    out = tmp_path / "deep" / "deep" / "out"
    save_all = Save(segmentation=True, capture=True, report=True)
    settings = Predict(model="m", input=str(tmp_path / "in"), out=str(out), save=save_all)
    harmless(lambda: applying.apply(settings))
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"in", "film.dcm", "deep"}
    assert {path.name for path in (tmp_path / "deep" / "deep").iterdir()} == {"out"}
    with open(out / "films.csv", newline="") as file:
        cells = [one for row in csv.reader(file) for one in row]
    assert not [one for one in cells if one.startswith(("=", "+", "-", "@"))]


# ---- pictures


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth=8, colour=0, data=None, *more):
    """A PNG that claims what it likes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = zlib.compress(bytes(2000)) if data is None else data
    body = head + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bomb(size):
    return zlib.compress(bytes(size), 1)


def saved(kind, **options):
    out = io.BytesIO()
    Image.fromarray((GREY >> 4).astype(np.uint8)).save(out, kind, **options)
    return out.getvalue()


PICTURES = {
    "no bytes": b"",
    "the mark of a PNG alone": b"\x89PNG\r\n\x1a\n",
    "the mark of a JPEG alone": b"\xff\xd8\xff",
    "2³¹-1 pixels a side": png(2**31 - 1, 2**31 - 1),
    "60000² pixels": png(60000, 60000),
    "12000² pixels, beyond a film's": png(12000, 12000),
    "30000² pixels of 8 bytes": png(30000, 30000, 16, 6),
    "no pixels": png(0, 0),
    "an unknown depth": png(8, 8, 7),
    "an unknown colour": png(8, 8, 8, 5),
    "a palette without colours": png(8, 8, 8, 3),
    "damaged data": png(40, 48, data=b"x" * 100),
    "more data than pixels": png(8, 8, data=bomb(16 << 20)),
    "a text that is a bomb": png(8, 8, 8, 0, None, chunk(b"zTXt", b"a\0\0" + bomb(16 << 20))),
    "a profile that is a bomb": png(8, 8, 8, 0, None, chunk(b"iCCP", b"a\0\0" + bomb(16 << 20))),
    "a chunk of 4 GB": png(8, 8)[:33] + b"\xff\xff\xff\xf0zTXt",
    "a JPEG of 65535² pixels": jpeg(48, 40).replace(b"\0\x30\0\x28", b"\xff\xff\xff\xff", 1),
    "half a JPEG": saved("JPEG")[:300],
    "half a PNG": saved("PNG")[:300],
    "a turning tag that is none": saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "a program of PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 48\n%%EndComments\n"
        b"(code was run) (w) file closefile\n%%EOF\n"
    ),
    "a picture of Photoshop": b"8BPS\0\1" + b"\0" * 6 + b"\0\1" + struct.pack(">IIHH", 9, 9, 8, 1),
    "a GIF": saved("GIF"),
    "a TIFF of 2³² pixels a side": b"II*\0\x08\0\0\0\2\0"
    + struct.pack("<HHII", 256, 4, 1, 2**32 - 1)
    + struct.pack("<HHII", 257, 4, 1, 2**32 - 1)
    + b"\0" * 4,
    "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PICTURES)
def test_hostile_pictures_are_refused_or_harmless(name, tmp_path, monkeypatch, capfd):
    """As films, as masks in a folder, and as what a reader painted."""
    monkeypatch.chdir(tmp_path)
    content = PICTURES[name]
    shown = server.Films(Bright(), View())
    for suffix in (".png", ".jpg", ".tif"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        with bounded(), traced(12):
            harmless(lambda path=path: shown.add(path.name, content))
            if suffix in dicom.IMAGES:
                harmless(lambda path=path: dicom.read(path))
                harmless(lambda path=path: dicom.read_tags(path))
            harmless(lambda path=path: folder.read_mask(path))
            refusal(lambda: painting.read(content, (48, 40)))


def test_a_picture_of_another_kind_does_not_start_its_program(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript, whatever the file's name is."""
    started = []
    monkeypatch.setattr("subprocess.check_call", lambda *given, **options: started.append(given))
    (tmp_path / "a.png").write_bytes(PICTURES["a program of PostScript"])
    assert "not a readable picture" in refusal(lambda: dicom.read(tmp_path / "a.png"))
    assert started == []


# ---- archives


def zipped(tmp_path, members, method=zipfile.ZIP_DEFLATED):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def doctored(tmp_path, change):
    """An archive whose bytes were changed by hand."""
    path = zipped(tmp_path, {"a.dcm": b"0" * 50_000})
    path.write_bytes(change(path.read_bytes()))
    return path


def claims(size):
    """Both sizes that an archive states of its first member, said to be another."""

    def change(content):
        changed = bytearray(content)
        for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            at = content.index(mark) + offset
            changed[at : at + 4] = struct.pack("<I", size)
        return bytes(changed)

    return change


def link(tmp_path):
    info = zipfile.ZipInfo("link.dcm")
    info.external_attr = 0o120777 << 16
    return zipped(tmp_path, {info: "/etc/passwd"})


def encrypted(content):
    changed = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[content.index(mark) + offset] |= 1
    return bytes(changed)


ARCHIVES = {
    "nothing": lambda at: doctored(at, lambda content: b""),
    "the first half": lambda at: doctored(at, lambda content: content[: len(content) // 2]),
    "the second half": lambda at: doctored(at, lambda content: content[len(content) // 2 :]),
    "a bomb": lambda at: zipped(at, {"a.dcm": bytes(40 << 20)}),
    "a bomb that claims to be small": lambda at: doctored(at, claims(10)),
    "a small file that claims 4 GB": lambda at: doctored(at, claims(0xFFFFFFFE)),
    "a claim of 64 bits that is not there": lambda at: doctored(at, claims(0xFFFFFFFF)),
    "a bomb of bzip2": lambda at: zipped(at, {"a.dcm": bytes(40 << 20)}, zipfile.ZIP_BZIP2),
    "a bomb of LZMA": lambda at: zipped(at, {"a.dcm": bytes(40 << 20)}, zipfile.ZIP_LZMA),
    "archives in archives": lambda at: zipped(at, {"b.zip": b"PK\x03\x04", "c.ZIP": b"PK"}),
    "a path upwards": lambda at: zipped(at, {"../../evil.dcm": b"x"}),
    "a path from the root": lambda at: zipped(at, {"/etc/evil.dcm": b"x"}),
    "a path of Windows": lambda at: zipped(at, {"C:\\..\\..\\evil.dcm": b"x"}),
    "a link": link,
    "an encrypted member": lambda at: doctored(at, encrypted),
    "5,000 members": lambda at: zipped(at, {f"{n}.dcm": b"" for n in range(5000)}),
    "one name a hundred times": lambda at: doctored(at, lambda content: content * 100),
    "a name that steers the terminal": lambda at: zipped(at, {"\x1b[2J\x1b]0;x\x07.dcm": b"x"}),
    "a name of 60 KB": lambda at: zipped(at, {"x" * 60_000 + ".dcm": b"x"}),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives_stay_small_and_are_never_written(name, tmp_path, monkeypatch):
    """Read by ``pneumo.predict``, which says of each member why it was not used."""
    monkeypatch.setattr(inputs, "MAX_MEMBERS", 1000)
    path = ARCHIVES[name](tmp_path)
    found, most = [], 1 << 20
    with traced(12):
        for source in inputs.sources([str(path)], most):
            assert source.content is None or len(source.content) <= most
            found.append(source.fault)
    assert found or path.stat().st_size == 0
    assert [one for one in found if one and len(one) > LINE] == []
    assert [one.name for one in tmp_path.iterdir()] == ["a.zip"]
    if "bomb" in name:
        assert found[0]


def test_no_name_in_an_archive_steers_the_terminal(tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    path = zipped(tmp_path / "in", {"\x1b[2J\nfailed: none\x9b.dcm": b"x"})
    monkeypatch.setattr(bundle, "load", lambda *given: Bright())
    arguments = ["model=m", f"input={path}", "out=out"]
    code, said, faults = say("predict", arguments, tmp_path, monkeypatch)
    assert code == 1
    assert not set(said + faults) & {"\x1b", "\x9b", "\x07"}
    assert "\\x1b[2J\\nfailed: none\\x9b.dcm" in said


# ---- tables

TABLES = {
    "nothing": b"",
    "a NUL": b"ImageId,EncodedPixels\na\0b,1 2\n",
    "a program": b"\x7fELF" + bytes(range(256)) * 10,
    "UTF-16": "ImageId,EncodedPixels\na,1 2\n".encode("utf-16"),
    "Latin-1": "ImageId,EncodedPixels\nä,1 2\n".encode("latin-1"),
    "a gzip bomb": gzip.compress(bytes(16 << 20), 1),
    "a gzip bomb of commas": gzip.compress(b"," * (16 << 20), 1),
    "half a gzip": gzip.compress(b"a,1 2\n" * 1000)[:30],
    "a damaged gzip": gzip.compress(b"a,1 2\n" * 1000)[:20] + b"x" * 40,
    "a quotation that never ends": b'ImageId,EncodedPixels\n"' + b"a" * 300_000,
    "a row of 300,000 cells": b"a" + b"," * 300_000 + b"\n",
    "a cell of 300,000 numbers": b"a," + b"1 " * 300_000 + b"\n",
    "a number of 300,000 digits": b"a,1 " + b"9" * 300_000 + b"\n",
    "the largest number and one more": b"a,1 9223372036854775808\n",
    "numbers whose sum overflows": b"a,9223372036854775807 9223372036854775807\n",
    "run lengths beyond any film": b"a,0 2147483647\n",
    "a negative length": b"a,5 -3\n",
    "a number of words": b"a,__import__('os').system('x') 3\n",
    "a formula": b"=cmd|' /C calc'!A0,1 2\n",
    "a path upwards": b"../../../etc/passwd,1 2\n",
    "an id of 60 KB": b"a" * 60_000 + b",1 2\n",
    "only separators": b";;;\n,,,\n\t\t\n",
    "carriage returns alone": b"a,1 2\rb,3 4\r",
}


@pytest.mark.parametrize("name", TABLES)
def test_hostile_tables_are_refused_or_harmless(name, tmp_path, monkeypatch):
    """As run lengths, ids, patients, sites and spacings."""
    monkeypatch.setattr(files, "MAX_TEXT", 1 << 20)
    path = tmp_path / "t.csv"
    path.write_bytes(TABLES[name])
    readers = (
        siim.read_table,
        csv_files.read_ids,
        csv_files.read_patients,
        csv_files.read_sites,
        csv_files.columns,
        spacing.read_table,
    )
    for read in readers:
        with traced(60):
            harmless(lambda read=read: read(path))
    if "gzip bomb" in name:
        assert "more than 1 MiB" in refusal(lambda: siim.read_table(path))


def test_a_run_length_beyond_the_film_fills_no_memory(tmp_path):
    with traced(30):
        refusal(lambda: Item("a", tmp_path / "a.dcm", ["0 2147483647"]).mask((64, 64)))


FORMULAS = [
    "=1+1",
    "+A1",
    "-A1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1",
    "=cmd|' /C calc'!A0",
    "-2+3+cmd|x!A",
]
NUMBERS = ["-1", "+.5", "-.039 [-.274, .147]", "−3", "1e-3", "", "film", "a=b"]


def test_what_a_spreadsheet_would_run_is_written_as_text():
    assert [cell(one) for one in FORMULAS] == [f"'{one}".replace("\r", " ") for one in FORMULAS]
    assert [cell(one) for one in NUMBERS] == NUMBERS
    assert cell(-1.5) == -1.5
    text = Table("k", "t", ["arm"], [[one] for one in FORMULAS]).csv()
    rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert all(row[0].startswith("'") for row in rows)


@pytest.mark.parametrize("formula", ["=cmd|'x'!A0", "+A1", "-A1", "@A1"])
def test_no_output_begins_as_a_formula(formula, tmp_path):
    names = OutputNames()
    shown = server.Films(Bright(), View(corrections=str(tmp_path / "c"), reader="Dr A"))
    key = shown.add(f"{formula}.png", saved("PNG"))
    film = shown.kept[key].finding.film
    assert names.own(f"{formula}.png", film, b"").startswith(("cmd", "A1", "_cmd"))
    assert "a table cannot hold this name" in refusal(lambda: shown.correction(key, None, None))
    row = {"film": "a", **outputs.describe(shown.kept[key].finding), "notes": formula}
    row |= {"uid": formula, "source": formula, "sha256": ""}
    outputs.write_tables(tmp_path, [row], None, [], Bright(), Postprocess())
    with open(tmp_path / "films.csv", newline="") as file:
        (written,) = csv.DictReader(file)
    assert {written[key] for key in ("notes", "uid", "source")} == {f"'{formula}"}


# ---- JSON


def deep(depth=200_000):
    return "[" * depth


JSONS = {
    "nothing": "",
    "lists 200,000 deep": deep(),
    "objects 100,000 deep": '{"a":' * 100_000,
    "a number of 5,000 digits": "9" * 5000,
    "no object": "[1, 2]",
    "null": "null",
    "a text": '"text"',
    "a NUL": "\0",
    "half an object": '{"films": [',
    "infinity": '{"size": Infinity, "format": NaN}',
}


JSON_PLACES = {
    "a bundle's card": ("card.json", bundle.read_card),
    "a run's scores": ("metrics.json", runs.read_metrics),
    "a run's parts": ("parts.json", record.parts_of),
    "a cache": (cache.CONTENTS, cache._open),
    "predictions": (maps.CONTENTS, maps.load),
    "corrections": ("corrections.json", lambda at: Corrections(at, "Dr A")),
    "COCO": (
        "coco.json",
        lambda at: coco.read_index(
            CocoData(name="x", root=str(at), annotations=str(at / "coco.json"))
        ),
    ),
    "any other": ("x.json", lambda at: files.read_json(at / "x.json")),
}


@pytest.mark.parametrize("place", JSON_PLACES)
@pytest.mark.parametrize("name", JSONS)
def test_hostile_json_is_refused_in_every_place(name, place, tmp_path):
    leaf, read = JSON_PLACES[place]
    (tmp_path / leaf).write_text(JSONS[name])
    with bounded():
        harmless(lambda: read(tmp_path))


@pytest.mark.parametrize("name", ["lists 200,000 deep", "a gzip bomb"])
def test_hostile_json_of_others_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_TEXT", 1 << 20)
    content = gzip.compress(bytes(16 << 20), 1) if "gzip" in name else deep().encode()
    (tmp_path / "a.json").write_bytes(content)
    with traced(12):
        assert "not a readable JSON file" in refusal(lambda: files.read_json(tmp_path / "a.json"))


@pytest.mark.parametrize(
    "change",
    [
        {"films": []},
        {"films": {"a": 1}},
        {"films": {"a": {"image": "x", "history": "no list"}}},
        {"films": {"a": {"image": "x", "history": [{"action": "saved"}]}}},
        {"films": {"a": {"image": 5, "history": []}}},
    ],
    ids=str,
)
def test_hostile_corrections_are_refused(change, tmp_path):
    told = {"format": corrections.FORMAT, **change}
    (tmp_path / corrections.RECORD).write_text(json.dumps(told))
    assert "damaged" in refusal(lambda: Corrections(tmp_path, "Dr A"))


# ---- YAML


def laughs(levels=12, times=9):
    """A billion laughs: each line names the one before nine times."""
    lines = ["a0: &a0 [x, x, x]"]
    for level in range(1, levels):
        before = ", ".join([f"*a{level - 1}"] * times)
        lines.append(f"a{level}: &a{level} [{before}]")
    return "\n".join(lines) + "\n"


YAMLS = {
    "a call": "!!python/object/apply:os.mkdir ['code was run']\n",
    "a call as a value": "config: !!python/object/apply:os.mkdir ['code was run']\n",
    "an object": "config: !!python/object:pathlib.Path {}\n",
    "a name": "config: !!python/name:os.system\n",
    "a module": "config: !!python/module:antigravity\n",
    "an unknown tag": "config: !run 'x'\n",
    "a billion laughs": laughs(),
    "a list that holds itself": "config: &a [*a]\n",
    "lists 20,000 deep": "config: " + "[" * 20_000,
    "keys 5,000 deep": "".join(" " * n + "a:\n" for n in range(1200)),
    "a NUL": "config: \0\n",
    "no words": "\x80\x81\n",
    "two megabytes": "a: " + "x" * 2_000_000,
    "an unknown alias": "config: *nobody\n",
    "a number of 5,000 digits": "version: " + "9" * 5000 + "\n",
    "an environment variable": "config: {tag: '${oc.env:SECRET}', epochs: 3}\n",
    "another file's value": "config: {experiment: '${oc.decode:${oc.env:SECRET}}'}\n",
    "a list": "- 1\n- 2\n",
    "a text": "text\n",
    "data that is a list": "config: {data: [1], model: 7}\nversion: x\n",
    "data that is a text": "config: {data: x, model: {}}\nversion: 1\norigin: 5\n",
}


@pytest.mark.parametrize("name", YAMLS)
def test_hostile_records_of_runs_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "the secret")
    (tmp_path / "config.yaml").write_text(YAMLS[name], encoding="utf-8")
    with bounded():
        assert "the secret" not in refusal(lambda: record.read(tmp_path))


@pytest.mark.parametrize("name", [name for name in YAMLS if "environment" not in name])
def test_hostile_options_are_refused_before_hydra_reads_them(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "evil.yaml").write_text(YAMLS[name], encoding="utf-8")
    with bounded():
        harmless(lambda: mistakes.check_typed("train", ["--config-dir", "mine"], []))


RUNS = "_target_: os.mkdir\npath: code was run\n"
HYDRA = {
    "a callback": "# @package _global_\nhydra:\n  callbacks:\n    x:\n      " + RUNS[:-1],
    "a callback by its package": f"# @package hydra.callbacks.x\n{RUNS}",
    "a key in other letters": '# @package _global_\n"\\x68ydra": {callbacks: {}}\n',
    "a default": "# @package _global_\ndefaults:\n  - override /hydra/launcher: evil\n",
    "a default's package": "defaults:\n  - other@hydra.callbacks.x\n",
    "a logger": "# @package _global_\nhydra: {job_logging: {handlers: {x: {'()': os.mkdir}}}}\n",
}


@pytest.mark.parametrize("name", HYDRA)
def test_options_cannot_set_what_hydra_calls(name, tmp_path, monkeypatch):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "evil.yaml").write_text(HYDRA[name])
    arguments = ["--config-dir", "mine", "+experiment=evil", "--cfg", "job"]
    code, said, faults = say("train", arguments, tmp_path, monkeypatch)
    assert (code, said, faults.count("\n")) == (1, "", 1)
    assert "sets Hydra itself, which can run programs" in faults


def test_options_deep_in_folders_cannot_either_and_the_projects_own_may(tmp_path):
    deep = tmp_path / "mine" / "a" / "b" / "c" / "evil.yaml"
    deep.parent.mkdir(parents=True)
    deep.write_text(HYDRA["a callback by its package"])
    typed = ["--config-dir", str(tmp_path / "mine")]
    assert "sets Hydra itself" in refusal(lambda: mistakes.check_typed("train", typed, []))
    mistakes.check_typed("train", ["--config-dir", CONF], [])


def test_options_cannot_bring_a_folder_of_hydras_own(tmp_path, monkeypatch):
    (tmp_path / "mine" / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "mine" / "hydra" / "launcher" / "basic.yaml").write_text(RUNS)
    code, _, faults = say("train", ["--config-dir", "mine"], tmp_path, monkeypatch)
    assert (code, "can run programs" in faults) == (1, True)


# ---- weights, checkpoints and arrays


def header(told, body=b""):
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape, offsets, kind="F32"):
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": offsets}}


def pickled(path, how):
    """A torch file that runs code when it is unpickled, in both of its formats."""
    out = io.BytesIO()
    torch.save({"state_dict": Evil(path)}, out, _use_new_zipfile_serialization=how == "zip")
    return out.getvalue()


WEIGHTS = {
    "nothing": lambda at: b"",
    "a plain pickle": lambda at: pickle.dumps(Evil(at)),
    "a checkpoint that runs code": lambda at: pickled(at, "zip"),
    "an old checkpoint that runs code": lambda at: pickled(at, "legacy"),
    "a head of 2⁶³ bytes": lambda at: struct.pack("<Q", 2**63) + b"{}",
    "a head of 10 GB": lambda at: struct.pack("<Q", 10 << 30) + b"{}",
    "a head 20,000 deep": lambda at: header(b"[" * 20_000),
    "a head that is a list": lambda at: header([1, 2]),
    "a tensor of 2⁴⁰ numbers": lambda at: header(tensor([2**40], [0, 2**42])),
    "a tensor whose size overflows": lambda at: header(tensor([2**62, 2**62], [0, 8]), b"0" * 8),
    "tensors that overlap": lambda at: header(
        {"a": tensor([2], [0, 8])["a"], "b": tensor([2], [4, 12])["a"]}, b"0" * 12
    ),
    "a tensor before its data": lambda at: header(tensor([2], [-8, 0]), b"0" * 8),
    "a tensor of an unknown kind": lambda at: header(tensor([2], [0, 8], "X99"), b"0" * 8),
    "a card 20,000 deep": lambda at: save({"a": torch.zeros(1)}, {"card": "[" * 20_000}),
    "a card that is a number": lambda at: save({"a": torch.zeros(1)}, {"card": "5"}),
    "a list of tensors": lambda at: _torch([torch.zeros(2)]),
    "half a file": lambda at: save({"a": torch.zeros(1000)})[:2000],
    "a program": lambda at: b"\x7fELF" + bytes(4000),
    "an archive bomb": lambda at: _zip_of({"archive/data.pkl": bytes(40 << 20)}),
}


def _torch(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _zip_of(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_hostile_weights_run_nothing(name, suffix, tmp_path, canary):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(WEIGHTS[name](canary))
    with bounded(600):
        state = harmless(lambda: weights.read_weights(path, "init_from"))
        assert state is None or set(state) == {"a"}
        harmless(lambda: weights.read_card(path))


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_training_unpickles_no_code(tmp_path, canary, monkeypatch):
    """With the trainer that a fit has, and what it hands to it."""
    torch.save({"state_dict": Evil(canary)}, tmp_path / "last.ckpt")
    trainer = pl.Trainer(max_epochs=1, logger=False, accelerator="cpu", enable_progress_bar=False)
    options = (
        inspect.getsource(fit.fit).partition("trainer.fit(")[2].partition("\n            )")[0]
    )
    assert "weights_only=True" in options
    with pytest.raises(pickle.UnpicklingError):
        trainer.fit(BoringModel(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)


def npy(shape, kind="'|u1'", more=b""):
    head = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + more


def _objects(canary):
    out = io.BytesIO()
    np.save(out, np.array([Evil(canary)], dtype=object), allow_pickle=True)
    return out.getvalue()


ARRAYS = {
    "nothing": lambda at: b"",
    "objects": _objects,
    "a pickle": lambda at: pickle.dumps(Evil(at)),
    "10¹² numbers": lambda at: npy("(1000000000000, 1, 1)"),
    "a size that overflows": lambda at: npy("(9223372036854775807, 9, 9)"),
    "a negative size": lambda at: npy("(-1, 32, 32)"),
    "code for a size": lambda at: npy("__import__('os').mkdir('code was run')"),
    "code for a kind": lambda at: npy("(1,)", "__import__('os').mkdir('code was run')"),
    "a head 2,000 deep": lambda at: npy("(" * 2000 + "1" + ")" * 2000),
    "another kind of numbers": lambda at: npy("(1, 4, 4)", "'<f8'", bytes(128)),
    "fewer numbers than it says": lambda at: npy("(1, 4, 4)", more=bytes(3)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ARRAYS)
def test_hostile_arrays_run_nothing(name, tmp_path, canary, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = ARRAYS[name](canary)
    case = {"id": "a", "path": "a", "annotations": [], "shape": None}
    told = {"films": [case], "size": 4, "key": "k", "presence": True, "ids": ["a"]}
    told |= {"checksums": [0], "left_aside": {}}
    for contents in (maps.CONTENTS, cache.CONTENTS):
        (tmp_path / contents).write_text(json.dumps(told))
    for array in (maps.PLAIN, maps.FLIP, maps.PRESENCE, cache.IMAGES, cache.MASKS):
        (tmp_path / array).write_bytes(content)
    with bounded():
        assert "damaged" in refusal(lambda: maps.load(tmp_path))
        assert "damaged" in refusal(lambda: cache._open(tmp_path))


# ---- bundles


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A small bundle."""
    settings = Model(name="m", encoder="tu-test_resnet", encoder_weights="none")
    network = build_network(settings).eval()
    place = tmp_path_factory.mktemp("bundle") / "model"
    model = {"name": "m", "encoder": "tu-test_resnet", "encoder_weights": "none"}
    data = [{"name": "x", "format": "siim", "training": 1, "validation": 1, "parts": "p"}]
    about = {"model": model, "input": {"size": 32}}
    told = {"name": "m", "tta": False, "postprocess": plain(Postprocess()), "data": data}
    bundle.write(place, {**told, "limits": ""}, [network], [about], onnx=False)
    return place


HUGE = 10**12
CARDS = {
    "another format": {"format": "pneumo-bundle-9"},
    "no name": {"name": None},
    "data of nobody": {"data": []},
    "data that is a text": {"data": "phantom"},
    "films that are words": {"data": [{"format": "siim", "name": "x", "training": "many"}]},
    "limits that are none": {"limits": 7},
    "members that are none": {"members": None},
    "no members": {"members": []},
    "members that are texts": {"members": ["weights-0.safetensors"]},
    "a rule that is none": {"postprocess": []},
    "a threshold that is no number": {"postprocess": {"binarization_threshold": float("nan")}},
    "a rule with more": {"postprocess": {"code": "x"}},
    "a rule that reads the environment": {
        "postprocess": {"binarization_threshold": "${oc.env:SECRET}"}
    },
    "a curve without end": {"calibration": {"slope": float("inf"), "intercept": 0}},
    "a curve of words": {"calibration": {"slope": "x", "intercept": 0}},
    "a curve that is a list": {"calibration": [1, 2]},
    "a stack of nothing": {"stack": {"names": []}},
    "a stack of words": {
        "stack": {"names": ["x"], "mean": ["x"], "weights": ["x"], "std": ["y"], "intercept": 0}
        | {"films": 1, "positives": 1}
    },
    "a stack that does not fit": {
        "stack": {"names": ["a"], "mean": [0, 1], "std": [1], "weights": [1]}
    },
    "films of the training elsewhere": {"training": {"sha256": "0" * 64}},
    "films of the training as a list": {"training": [1]},
    "scores that are words": {"scores": {"scores": {"dice": "good", "all_empty_dice": 1}}},
}
MEMBERS = {
    "a path upwards": {"weights": "../weights-0.safetensors"},
    "a path from the root": {"weights": "/etc/passwd"},
    "a file that is unpickled": {"weights": "weights-0.pth"},
    "a number for a file": {"weights": 7},
    "another checksum": {"sha256": "0" * 64},
    "no checksum": {"sha256": None},
    "a side without end": {"size": HUGE},
    "a side of infinity": {"size": float("inf")},
    "a negative side": {"size": -32},
    "no side": {"size": 0},
    "an encoder that is an address": {"model": {"name": "m", "encoder": "tu-hf-hub:evil/model"}},
    "an encoder that is a folder": {"model": {"name": "m", "encoder": "tu-local-dir:/tmp"}},
    "an unknown encoder": {"model": {"name": "m", "encoder": "os.system"}},
    "an encoder of the environment": {"model": {"name": "m", "encoder": "${oc.env:SECRET}"}},
    "another network": {"model": {"name": "m", "encoder": "resnet18"}},
    "a stem without end": {"model": {"name": "m", "stem": "conv", "stem_kernel": 2 * HUGE + 1}},
    "a stem of gigabytes": {"model": {"name": "m", "stem": "conv", "stem_kernel": 30001}},
    "a model that is a list": {"model": [1]},
    "a run that is a text": {"run": "x"},
    "a weight without end": {"run": {"weight": float("inf")}},
    "a negative weight": {"run": {"weight": -1}},
    "weights that are none": {"run": {"weight": 0}},
    "a look of another length": {"run": {"look": {"mean": [1, 2], "least": 0.1}}},
    "a look of words": {"run": {"look": {"mean": "x", "least": "y"}}},
    "ONNX elsewhere": {"onnx": "../x.onnx"},
    "ONNX that is a program": {"onnx": "x.so"},
}


def _changed(given, tmp_path, change):
    """A copy of the bundle with another card."""
    for path in given.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    told = seals.read_json(given / "card.json")  # whoever means harm can do without a seal
    (tmp_path / "card.json").write_text(json.dumps(change(told)))
    return tmp_path


@pytest.mark.parametrize("name", CARDS)
def test_hostile_cards_are_refused(name, given, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "0.987654")
    place = _changed(given, tmp_path, lambda card: {**card, **CARDS[name]})
    with bounded(600):
        assert "0.987654" not in refusal(lambda: bundle.load(place))


@pytest.mark.parametrize("name", MEMBERS)
def test_hostile_members_are_refused(name, given, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "resnet18")
    change = MEMBERS[name]
    place = _changed(
        given, tmp_path, lambda card: {**card, "members": [{**card["members"][0], **change}]}
    )
    with bounded(600):
        told = refusal(lambda: bundle.load(place))
    assert name != "an encoder of the environment" or "resnet18" not in told


def graph(*nodes, told=TensorProto.FLOAT, name="films", weights=()):
    """An ONNX network of these operators, from films to probabilities."""
    sides = ["n", 1, "s", "s"]
    films = helper.make_tensor_value_info(name, TensorProto.UINT8, sides)
    out = helper.make_tensor_value_info("out", told, None)
    made = helper.make_graph(nodes, "g", [films], [out], initializer=list(weights))
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("evil", 1)]
    return helper.make_model(made, opset_imports=domains, ir_version=9).SerializeToString()


def elsewhere(path):
    """A network whose weights lie in another file."""
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value=path)
    cast = helper.make_node("Cast", ["films"], ["f"], to=TensorProto.FLOAT)
    return graph(cast, helper.make_node("Add", ["f", "w"], ["out"]), weights=[outside])


def of_size(count):
    """A network that makes so many numbers out of nothing."""
    shape = numpy_helper.from_array(np.array([count], np.int64), "shape")
    return graph(helper.make_node("ConstantOfShape", ["shape"], ["out"]), weights=[shape])


AS_FLOATS = helper.make_node("Cast", ["films"], ["f"], to=TensorProto.FLOAT)
NETWORKS = {
    "nothing": lambda at: b"",
    "a pickle": lambda at: pickle.dumps(Evil(at)),
    "a program": lambda at: b"\x7fELF" + bytes(1000),
    "weights in a file above": lambda at: elsewhere("../secret.bin"),
    "weights in a file of the system": lambda at: elsewhere("/etc/passwd"),
    "an operator of nobody": lambda at: graph(
        helper.make_node("Run", ["films"], ["out"], domain="evil")
    ),
    "another input": lambda at: graph(
        helper.make_node("Cast", ["x"], ["out"], to=TensorProto.FLOAT), name="x"
    ),
    "another shape": lambda at: graph(AS_FLOATS, helper.make_node("Size", ["f"], ["out"]), told=7),
    "another kind of numbers": lambda at: graph(
        helper.make_node("Identity", ["films"], ["out"]), told=TensorProto.UINT8
    ),
    "10¹¹ numbers": lambda at: of_size(10**11),
    "a negative count of numbers": lambda at: of_size(-5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_hostile_onnx_networks_are_refused(name, tmp_path, canary):
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "weights-0.onnx"
    path.write_bytes(NETWORKS[name](canary))
    with bounded(2000):
        refusal(lambda: onnx_engine(path, Machine(threads=1))(np.zeros((1, 2, 2), np.uint8)))


def test_one_file_cannot_be_a_thousand_networks(given, tmp_path):
    place = _changed(given, tmp_path, lambda card: {**card, "members": card["members"] * 1000})
    assert "one file is several members" in refusal(lambda: bundle.load(place))


def test_keys_of_a_card_that_are_missing_are_said_or_not_needed(given, tmp_path):
    whole = seals.read_json(given / "card.json")
    for key in whole:
        place = tmp_path / key
        place.mkdir()
        without = {name: value for name, value in whole.items() if name != key}
        _changed(given, place, lambda card, without=without: without)
        harmless(lambda place=place: bundle.load(place))


# ---- names that tell who the patient is


DOE = {"PatientName": "Doe^Jane", "PatientID": "77123"}


@pytest.mark.parametrize("place", ["Doe/chest.dcm", "77123/chest.dcm", "chest_DOE.dcm"])
@pytest.mark.parametrize("archived", [False, True])
def test_no_output_shows_a_path_that_names_the_patient(
    place, archived, tmp_path, monkeypatch, caplog
):
    """Of films that are judged and that are refused: in tables, in names and on the screen."""
    monkeypatch.setattr(bundle, "load", lambda *given: Bright())
    caplog.set_level("INFO", "pneumo")
    kinds = {"good": {}, "refused": {"BodyPartExamined": "HIP"}, "damaged": {"Rows": 60000}}
    (tmp_path / "in").mkdir()
    films = {f"{name}/{place}": with_tags(tmp_path, **DOE, **tags) for name, tags in kinds.items()}
    if archived:
        zipped(tmp_path / "in", films)
    for name, content in {} if archived else films.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)

    def applied(out, **more):
        asked = Predict(model="m", input=str(tmp_path / "in"), out=str(tmp_path / out), **more)
        said = refusal(lambda: applying.apply(asked))
        with open(tmp_path / out / "films.csv", newline="") as file:
            (line,) = csv.DictReader(file)
        return said, line

    said, line = applied("out")
    assert "2 of 3 films could not be used" in said
    assert line["source"] == ""
    shown = said + caplog.text
    for path in (tmp_path / "out").iterdir():
        shown += path.name + (path.read_text() if path.suffix != ".png" else "")
    assert "damaged DICOM file" in shown or "cannot decode" in shown
    for told in ("doe", "jane", "77123"):
        assert told not in shown.lower()
    assert applied("kept", names=Names.keep)[1]["source"].endswith(place)  # what is asked for
