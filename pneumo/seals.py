"""Files that tell whether they are as they were written.

A sealed file bears the SHA-256 of its own bytes near its beginning, where 64 zeros stood while it
was computed. So one file is enough to notice a byte that changed on a disk or on the way: nothing
that lies beside it is needed, and it may be moved and renamed. JSON, YAML and safetensors alike
hold it as the value of their first key, ``seal``.

A file without a seal, as older versions wrote them, is taken as it is. Whoever changes a sealed
file by hand removes its seal.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pneumo import files

KEY, BLANK = "seal", "0" * 64
BROKEN = "not as it was written: its seal does not fit"
HEAD = 4096  # bytes within which a seal lies
# in safetensors, JSON stands inside a string of JSON, its quotation marks behind backslashes
SEAL = re.compile(rb"""seal\\?["']?: ?\\?["']([0-9a-f]{64})\\?["']""")


def write(path: Path, content: bytes) -> None:
    """Write content whose first key is ``KEY`` with the value ``BLANK``, sealed.

    Whole or not at all.
    """
    blank = BLANK.encode()
    assert blank in content[:HEAD], path
    seal = hashlib.sha256(content).hexdigest().encode()
    files.write_bytes(path, content.replace(blank, seal, 1))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` as indented JSON, sealed."""
    write(path, files.json_text({KEY: BLANK, **values}).encode())


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write ``values`` as YAML in their order, sealed."""
    text = yaml.safe_dump({KEY: BLANK, **values}, sort_keys=False, allow_unicode=True)
    write(path, text.encode())


def check(path: Path) -> bool:
    """Whether a file bears a seal.

    Raises:
        ValueError: it bears one and is not as it was written, or it is empty.
        OSError: as ``open``.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
        if not head:
            raise ValueError("empty")
        found = SEAL.search(head)
        if found is None:
            return False
        whole = hashlib.sha256(head[: found.start(1)] + BLANK.encode() + head[found.end(1) :])
        while chunk := file.read(1 << 20):
            whole.update(chunk)
    if whole.hexdigest().encode() != found[1]:
        raise ValueError(BROKEN)
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The values of a JSON file, without its seal.

    Raises:
        ValueError: not JSON, no object, or not as it was written.
        OSError: as ``open``.
    """
    return _read(path, files.parse_json)


def read_yaml(path: Path) -> dict[str, Any]:
    """The values of a YAML file, without its seal. Raises as ``read_json`` does."""
    return _read(path, files.parse_yaml)


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    sealed = check(path)
    values = parse(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("holds no keys and values")
    if KEY in values and not sealed:  # what follows the key is no seal any more
        raise ValueError(BROKEN)
    values.pop(KEY, None)
    return values
