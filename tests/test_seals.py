"""A sealed file tells of every byte that changed; one without a seal is read as it is."""

import json

import pytest
import yaml

from pneumo import seals

VALUES = {"name": "Ärmel", "score": 0.1 + 0.2, "none": None, "films": {"a": None, "b": [1, 2]}}


@pytest.fixture(params=["json", "yaml"])
def written(request, tmp_path):
    """A sealed file of each kind, and how it is read."""
    path = tmp_path / f"values.{request.param}"
    getattr(seals, f"write_{request.param}")(path, VALUES)
    return path, getattr(seals, f"read_{request.param}")


def test_values_come_back_without_the_seal(written):
    path, read = written
    assert read(path) == VALUES


def test_every_changed_byte_and_every_cut_is_noticed_or_harmless(written):
    path, read = written
    content = path.read_bytes()
    changed = [content[:end] for end in range(len(content))]
    for place, byte in enumerate(content):
        flipped = bytes([byte ^ 1 << place % 8])
        changed.append(content[:place] + flipped + content[place + 1 :])
    noticed = 0
    for damaged in changed:
        path.write_bytes(damaged)
        try:
            values = read(path)
        except ValueError:
            noticed += 1
        else:  # the name of the seal itself was hit, or the end of the last line
            assert {key: values[key] for key in VALUES} == VALUES
    assert noticed > 0.95 * len(changed)


def test_plain_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps(VALUES))
    assert seals.read_json(path) == VALUES
    seals.check(path)
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    assert seals.read_yaml(path) == VALUES


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "a: ["])
def test_what_holds_no_values_is_refused(text, tmp_path):
    path = tmp_path / "broken"
    path.write_text(text)
    for read in (seals.read_json, seals.read_yaml):
        with pytest.raises(ValueError, match=r"."):
            read(path)


def test_long_files_are_looked_at_to_their_end(tmp_path):
    path = tmp_path / "long.json"
    seals.write_json(path, {"text": "x" * 3_000_000})
    seals.check(path)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="seal"):
        seals.check(path)
