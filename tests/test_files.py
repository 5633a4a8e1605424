"""Files that are written whole or not at all."""

import gzip

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
