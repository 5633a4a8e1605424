"""Files, folders and archives, also those that mean harm."""

import tracemalloc
import zipfile

import pytest

from pneumo.errors import PneumoError
from pneumo.inference import inputs


def test_archives_that_mean_harm_are_refused_or_stopped(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.dcm", b"0" * 30_000_000)
        archive.writestr("more.zip", b"PK")
        archive.writestr("small.dcm", b"x")
    found = list(inputs.sources([str(bomb)], 1 << 20))
    assert ["unpacks to more than max_megabytes=1" in (one.fault or "") for one in found] == [
        True,
        False,
        False,
    ]
    assert "archive within an archive" in found[1].fault
    assert found[2].content == b"x"
    monkeypatch.setattr(inputs, "MAX_UNPACKED", 1 << 20)
    assert "the rest was not read" in list(inputs.sources([str(bomb)], 1 << 30))[-1].fault
    monkeypatch.setattr(inputs, "MAX_MEMBERS", 2)
    (only,) = inputs.sources([str(bomb)], 1 << 20)
    assert "archive of 3 files" in only.fault
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bomb.read_bytes()[:200])
    (only,) = inputs.sources([str(damaged)], 1 << 20)
    assert "damaged archive" in only.fault
    later = bytearray(bomb.read_bytes())
    directory = later.index(b"PK\x01\x02")
    later[directory + 6] = 99  # made for version 9.9 of the format
    (tmp_path / "later.zip").write_bytes(later)
    (only,) = inputs.sources([str(tmp_path / "later.zip")], 1 << 20)
    assert "zip file version 9.9" in only.fault
    big = tmp_path / "big.dcm"
    big.write_bytes(b"0" * 2_000_000)
    (only,) = inputs.sources([str(big)], 1 << 20)
    assert "max_megabytes=1" in only.fault
    assert list(tmp_path.parent.glob("evil*")) == []


def test_of_a_member_that_unpacks_to_too_much_no_more_is_read_than_is_allowed(tmp_path):
    """Whatever size it claims: memory would be full before its size could be judged."""
    bomb = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("film.dcm", "w") as member,
    ):
        for _ in range(64):
            member.write(bytes(1 << 20))
    tracemalloc.start()
    (only,) = inputs.sources([str(bomb)], 1 << 20)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "unpacks to more than max_megabytes=1" in only.fault
    assert most < 8 << 20


def test_a_folder_is_searched_once_without_what_is_hidden_or_written_there(tmp_path):
    for name in ("a.dcm", ".hidden.dcm", "below/b.png", ".git/c.dcm", "masks/a-mask.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "below" / "circle").symlink_to(tmp_path)
    found = list(inputs.sources([str(tmp_path)], 1 << 20, leave_out=tmp_path / "masks"))
    assert [one.name for one in found] == [
        str(tmp_path / name) for name in ("a.dcm", "below/b.png")
    ]
    assert not any(one.asked for one in found)
    with pytest.raises(PneumoError, match=r"input=.*/masks: the folder that results are written"):
        inputs.sources([f"{tmp_path}/masks"], 1, leave_out=tmp_path / "masks")
