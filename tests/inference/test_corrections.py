"""The folder of corrections: its table, its history, and several who write to it."""

import csv
import json
import logging
import subprocess
import sys

import filelock
import numpy as np
import pydicom
import pytest
from conftest import write_film

from pneumo.data import dicom
from pneumo.data.settings import MaskSize, SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.inference import corrections
from pneumo.inference.corrections import Basis, Changed, Corrected, Corrections

SHAPE = (60, 40)


def film(number=0, image=None):
    return Corrected(image or f"film{number}", f"{number:064x}", SHAPE)


def box(*ends):
    """A mask with a box, from its ends in rows and columns."""
    mask = np.zeros(SHAPE, np.uint8)
    if ends:
        mask[ends[0] : ends[1], ends[2] : ends[3]] = 1
    return mask


FOUND = Basis("exp5", ["ab" * 32], {"binarization_threshold": 0.75}, box(10, 20, 10, 20))


def record(folder):
    return json.loads((folder / corrections.RECORD).read_text())


def rows(folder):
    return siim.read_table(folder / corrections.TABLE).rows


def test_a_saved_mask_is_a_row_that_the_challenges_reader_reads(tmp_path):
    store = Corrections(tmp_path, "Dr A")
    state = store.save(film(1), box(5, 9, 3, 8), FOUND, None)
    store.save(film(2, 'a, "b";c'), box(), FOUND, None)
    assert (tmp_path / corrections.TABLE).read_text().splitlines()[0] == "ImageId,EncodedPixels"
    table = siim.read_table(tmp_path / corrections.TABLE)
    assert list(table.rows) == ["film1", 'a, "b";c']
    assert np.array_equal(corrections.rle.union(table.masks("film1"), SHAPE), box(5, 9, 3, 8))
    assert table.masks('a, "b";c') == []
    with (tmp_path / corrections.TABLE).open(newline="") as file:
        assert list(csv.reader(file))[2] == ['a, "b";c', "-1"]
    assert state.state == "saved"
    assert np.array_equal(state.mask, box(5, 9, 3, 8))


def test_the_record_says_who_when_and_on_top_of_what(tmp_path):
    Corrections(tmp_path, "Dr A").save(film(1), box(5, 9, 3, 8), FOUND, None)
    known = record(tmp_path)["films"][film(1).sha256]
    assert (known["image"], known["rows"], known["columns"]) == ("film1", 60, 40)
    (entry,) = known["history"]
    assert (entry["reader"], entry["pixels"], entry["basis"]["pixels"]) == ("Dr A", 20, 100)
    assert entry["time"].endswith("+00:00")
    assert entry["basis"]["model"] == "exp5"
    assert entry["basis"]["weights_sha256"] == ["ab" * 32]
    assert entry["basis"]["rule"] == {"binarization_threshold": 0.75}


def test_earlier_versions_stay_in_the_history_and_the_first_basis_counts(tmp_path):
    store = Corrections(tmp_path, "Dr A")
    store.save(film(), box(5, 9, 3, 8), FOUND, None)
    other = Basis("exp4", [], {}, box())
    Corrections(tmp_path, "Dr B").save(film(), box(1, 2, 1, 2), other, None)
    store.withdraw(film(), None)
    history = record(tmp_path)["films"][film().sha256]["history"]
    assert [(one["action"], one["reader"], one["pixels"]) for one in history] == [
        ("saved", "Dr A", 20),
        ("saved", "Dr B", 1),
        ("withdrawn", "Dr A", 1),
    ]
    assert {one["basis"]["model"] for one in history} == {"exp5"}
    assert store.of(film()).state == "model"
    assert (tmp_path / corrections.TABLE).read_text() == "ImageId,EncodedPixels\n"
    store.save(film(), box(), other, None)
    assert record(tmp_path)["films"][film().sha256]["history"][-1]["basis"]["model"] == "exp4"


def test_a_draft_outlives_the_process_and_is_no_row(tmp_path):
    Corrections(tmp_path, "Dr A").draft(film(), box(0, 3, 0, 3), FOUND, None)
    again = Corrections(tmp_path, "Dr A").of(film(image="renamed"))
    assert again.state == "draft"
    assert np.array_equal(again.mask, box(0, 3, 0, 3))
    assert np.array_equal(again.basis, FOUND.mask)
    assert not (tmp_path / corrections.TABLE).exists()
    assert Corrections(tmp_path, "Dr B").of(film()).state == "model"  # everybody has their own


def test_saving_ends_the_draft_and_a_discarded_one_stays_in_the_history(tmp_path):
    store = Corrections(tmp_path, "Dr A")
    store.draft(film(), box(0, 3, 0, 3), FOUND, None)
    store.save(film(), box(0, 4, 0, 4), FOUND, None)
    assert not list((tmp_path / corrections.DRAFTS).iterdir())
    store.draft(film(), box(0, 5, 0, 5), FOUND, None)
    state = store.withdraw(film(), None, only_draft=True)
    assert (state.state, state.mask.sum()) == ("saved", 16)
    history = record(tmp_path)["films"][film().sha256]["history"]
    assert [(one["action"], one["pixels"]) for one in history] == [("saved", 16), ("discarded", 25)]
    assert list(rows(tmp_path)) == ["film0"]


def test_a_page_that_has_not_seen_the_newest_version_is_refused(tmp_path):
    mine, theirs = Corrections(tmp_path, "Dr A"), Corrections(tmp_path, "Dr B")
    seen = mine.of(film()).version
    first = mine.draft(film(), box(0, 1, 0, 1), FOUND, seen)
    with pytest.raises(Changed, match="Dr A changed this film's correction elsewhere"):
        mine.draft(film(), box(0, 2, 0, 2), FOUND, seen)  # a second page of the same reader
    theirs.save(film(), box(0, 3, 0, 3), FOUND, theirs.of(film()).version)
    with pytest.raises(Changed, match="Dr B changed"):
        mine.save(film(), box(0, 2, 0, 2), FOUND, first.version)
    with pytest.raises(Changed):
        mine.withdraw(film(), first.version)
    assert rows(tmp_path)["film0"][0].text == corrections.rle.encode(box(0, 3, 0, 3))
    state = mine.of(film())
    assert (state.state, state.describe()["saved"]["reader"]) == ("draft", "Dr B")


SAVE_EIGHT = """
import sys
from pathlib import Path
import numpy as np
from pneumo.inference.corrections import Basis, Corrected, Corrections
folder, start = Path(sys.argv[1]), int(sys.argv[2])
store = Corrections(folder, f"Dr {start}")
(folder / f"ready{start}").touch()
while len(list(folder.glob("ready*"))) < 2:
    pass
for number in range(start, start + 8):
    film = Corrected(f"film{number}", f"{number:064x}", (60, 40))
    store.save(film, np.ones((60, 40), np.uint8), Basis("m", [], {}, np.zeros((60, 40))), None)
"""


def test_two_processes_lose_no_row(tmp_path):
    command = [sys.executable, "-c", SAVE_EIGHT, str(tmp_path)]
    both = [subprocess.Popen([*command, start]) for start in ("0", "8")]
    assert [one.wait(timeout=100) for one in both] == [0, 0]
    assert set(rows(tmp_path)) == {f"film{number}" for number in range(16)}
    assert len(record(tmp_path)["films"]) == 16


def test_who_holds_the_folder_too_long_is_reported(tmp_path, monkeypatch):
    store = Corrections(tmp_path, "Dr A")
    monkeypatch.setattr(corrections, "WAIT", 0.05)
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(PneumoError, match="another process has held it"),
    ):
        store.of(film())


def test_another_film_of_the_same_name_is_refused(tmp_path):
    store = Corrections(tmp_path, "Dr A")
    store.save(film(1, "chest"), box(), FOUND, None)
    for use in (store.of, lambda one: store.save(one, box(), FOUND, None)):
        with pytest.raises(PneumoError, match="chest: another film of this name was corrected"):
            use(film(2, "chest"))
    store.withdraw(film(1, "chest"), None)
    store.save(film(2, "chest"), box(), FOUND, None)


def test_a_table_of_another_origin_is_left_alone(tmp_path):
    (tmp_path / corrections.TABLE).write_text("ImageId,EncodedPixels\nmine,-1\n")
    with pytest.raises(PneumoError, match="is not of this page; choose another folder"):
        Corrections(tmp_path, "Dr A")
    (tmp_path / corrections.RECORD).write_text("{")
    with pytest.raises(PneumoError, match="damaged"):
        Corrections(tmp_path, "Dr A")
    (tmp_path / corrections.RECORD).write_text('{"format": "later"}')
    with pytest.raises(PneumoError, match="format 'later'"):
        Corrections(tmp_path, "Dr A")


def test_a_table_that_somebody_changed_is_kept_beside_the_new_one(tmp_path, caplog):
    store = Corrections(tmp_path, "Dr A")
    store.save(film(1), box(), FOUND, None)
    with (tmp_path / corrections.TABLE).open("a") as table:
        table.write("byhand,-1\n")
    with caplog.at_level(logging.WARNING):
        store.save(film(2), box(), FOUND, None)
    assert set(rows(tmp_path)) == {"film1", "film2"}
    (kept,) = tmp_path.glob("corrections-*.csv")
    assert "byhand" in siim.read_table(kept).rows
    assert kept.name in caplog.text


def test_a_process_that_died_between_record_and_table_leaves_no_gap(tmp_path):
    Corrections(tmp_path, "Dr A").save(film(1), box(), FOUND, None)
    (tmp_path / corrections.TABLE).unlink()
    Corrections(tmp_path, "Dr A")
    assert set(rows(tmp_path)) == {"film1"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PneumoError, match="file: cannot be used"):
        Corrections(tmp_path / "file", "Dr A")


@pytest.mark.parametrize("named", [True, False])
def test_films_are_joined_by_uid_else_by_name_in_their_stored_orientation(tmp_path, named):
    """A film that lies on its side: the table counts its pixels as stored."""
    (tmp_path / "films").mkdir()
    stored = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(SHAPE)
    path = write_film(tmp_path / "films" / "x.dcm", stored, 12, PatientOrientation=["H", "R"])
    if not named:
        header = pydicom.dcmread(path)
        del header.SOPInstanceUID
        header.save_as(path)
    read = dicom.read(path)
    assert read.pixels.shape == SHAPE[::-1]
    upright = np.zeros(SHAPE[::-1], np.uint8)
    upright[:5, :30] = 1
    image = corrections.image_of("other name.dcm" if named else "x.dcm", read)
    assert image == (read.uid if named else "x")
    store = Corrections(tmp_path / "corrections", "Dr A")
    mask = dicom.stored(upright, read.orientation)
    store.save(Corrected(image, "0" * 64, read.stored_shape), mask, FOUND, None)
    data = SiimData(
        name="x",
        root=str(tmp_path / "films"),
        annotations=str(tmp_path / "corrections" / corrections.TABLE),
        mask_size=MaskSize.film,
    )
    (item,) = siim.read_index(data).items
    assert np.array_equal(dicom.upright(item.mask(read.stored_shape), read.orientation), upright)


@pytest.mark.parametrize("name", ["a.dcm.png", " a.png"])
def test_a_name_that_a_table_cannot_hold_is_refused(name):
    picture = dicom.Film(pixels=box(), stored_shape=SHAPE)
    with pytest.raises(PneumoError, match="give the film a plain one"):
        corrections.image_of(name, picture)
    assert corrections.image_of("a b.png", picture) == "a b"
