"""Files that are written whole or not at all."""

import errno
import fcntl
import gzip
import subprocess
import sys

import pytest

from pneumo import files
from pneumo.errors import PneumoError


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "before")

    def fail_half_way():
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_of_the_system_names_the_file(tmp_path):
    """A full disk is told of no file, and a temporary name would help nobody."""
    path = tmp_path / "a.txt"

    def fail(*filename):
        with files.replacing(path) as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", *filename or [str(temporary)])

    for filename, named in (((), path), ((None,), path), (("/other",), "/other")):
        with pytest.raises(OSError, match="No space left") as error:
            fail(*filename)
        assert error.value.filename == str(named)


def test_json_that_others_cannot_read_is_not_written(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"Dice": 0.5, "κ": None})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"Dice": float("nan")})
    assert path.read_text(encoding="utf-8") == '{\n  "Dice": 0.5,\n  "κ": null\n}\n'


def test_fingerprints(tmp_path):
    """Of abc as in the standard's examples, FIPS 180; of a value whatever its keys' order."""
    files.write_bytes(tmp_path / "a", b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "a") == expected
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1})
    assert files.digest({"a": 1, "b": 2}) != files.digest({"a": 2, "b": 1})


def test_json_is_read_plain_or_gzipped_and_else_named(tmp_path):
    for name, content in (("a.json", b'{"a": 1}'), ("a.json.gz", gzip.compress(b'{"a": 1}'))):
        (tmp_path / name).write_bytes(content)
        assert files.read_json(tmp_path / name) == {"a": 1}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(PneumoError, match=r"b\.json: not a readable JSON file"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(PneumoError, match=r"c\.json: no such file"):
        files.read_json(tmp_path / "c.json")


WRITING = """
import sys, time
from pathlib import Path
from pneumo import files
with files.replacing(Path(sys.argv[1], "a.txt")) as temporary:
    temporary.write_text("half")
    print("half", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    def begin():
        process = subprocess.Popen(
            [sys.executable, "-c", WRITING, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "half\n"
        process.stdout.close()
        return process

    killed, living = begin(), begin()
    killed.kill()
    killed.wait()
    assert len(list(tmp_path.iterdir())) == 2
    files.write_text(tmp_path / "b.txt", "whole")
    left = sorted(tmp_path.iterdir())
    living.kill()
    living.wait()
    assert [path.name for path in left[1:]] == ["b.txt"]
    assert left[0].read_text() == "half"
    files.remove_left(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_a_folder_is_made_whole_or_not_at_all(tmp_path):
    path = tmp_path / "model"

    def make(text, fails=False):
        with files.replacing_folder(path) as temporary:
            (temporary / "card.json").write_text(text)
            if fails:
                raise OSError("disk full")

    make("first")
    make("second")
    with pytest.raises(OSError, match="disk full"):
        make("third", fails=True)
    assert [one.name for one in tmp_path.iterdir()] == ["model"]
    assert [(one.name, one.read_text()) for one in path.iterdir()] == [("card.json", "second")]


def test_a_folder_that_a_killed_process_left_is_removed_and_one_in_the_making_is_not(tmp_path):
    left = tmp_path / ".model.0123ab.partial"
    left.mkdir()
    (left / "weights").touch()
    with files.replacing_folder(tmp_path / "other") as temporary:
        assert not left.exists()
        files.remove_left(tmp_path)
        assert temporary.is_dir()


@pytest.mark.parametrize("name", [".a.txt.4711.partial", ".a.txt.00ff00.partial"])
def test_what_older_versions_left_is_removed_too(tmp_path, name):
    (tmp_path / name).touch()
    files.write_text(tmp_path / "b.txt", "")
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_files_of_others_that_are_unfinished_stay(tmp_path):
    names = {".film.partial", "film.1.partial", ".film.Ab3x9Q.partial", ".0123abcd.partial"}
    for name in names:
        (tmp_path / name).touch()
    files.remove_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_where_files_cannot_be_locked_they_are_written_and_nothing_is_taken_for_left(
    tmp_path, monkeypatch
):
    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".b.txt.1.partial").touch()
    files.write_text(tmp_path / "a.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.txt.1.partial", "a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"
