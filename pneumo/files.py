"""Files that are written whole or not at all, and their fingerprints."""

import fcntl
import gzip
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pneumo.errors import PneumoError

LEFT = re.compile(r"\..+\.[0-9a-f]{1,8}\.partial")  # names of temporary files
_looked_through: set[str] = set()  # folders, by this process


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``, and rename it to ``path`` if the block succeeds.

    If the block fails, the temporary file is removed. It is there already, and is to be written in
    place. A process that is killed leaves it; the first time that another one writes into the
    folder, it removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.path.abspath(path.parent)
    if folder not in _looked_through:
        remove_left(path.parent)
        _looked_through.add(folder)
    with _held(path) as temporary:
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def remove_left(folder: Path) -> None:
    """Remove the temporary files of killed processes in a folder; those of living ones stay."""
    for left in folder.glob(".*.partial"):
        if not LEFT.fullmatch(left.name) or not left.is_file():
            continue
        # held by a living process, removed by another one, or on a file system without locks
        with suppress(OSError), open(left, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


@contextmanager
def _held(path: Path) -> Iterator[Path]:
    """A new temporary file beside ``path``, locked until the end of the block or of the process."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(3)}.partial")
        with open(temporary, "xb") as file:
            with suppress(OSError):  # without locks, nothing there is taken for left
                fcntl.flock(file, fcntl.LOCK_EX)
            if temporary.exists():  # else it was taken for left before it was locked
                yield temporary
                return


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file, plain or gzipped. Raises PneumoError."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        return json.loads(raw)
    except FileNotFoundError:
        raise PneumoError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError) as error:
        raise PneumoError(f"{path}: not a readable JSON file ({error})") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of a JSON-serialisable value, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
