"""Files that are written whole or not at all, and their fingerprints; text that may mean harm.

Tables, JSON and YAML may come from anyone. A gzip bomb unpacks to any number of bytes, lists in
lists exhaust Python's stack, YAML's aliases multiply what they name, and its tags can make any
object. So what is unpacked is counted, and all of these are refused as damaged files are.
"""

import fcntl
import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from pneumo.errors import PneumoError, brief

# what a damaged or hostile file raises while its values are taken
DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError)
MAX_TEXT = 512 << 20  # bytes of a table or JSON file, unpacked
MAX_YAML = 1 << 20  # characters of a YAML text
MAX_VALUES = 100_000  # values of a YAML text, those of its aliases counted wherever they stand

LEFT = re.compile(r"\..+\.[0-9a-f]{1,8}\.partial")  # names of temporary files and folders
_READ, _NEW = os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL
_looked_through: set[str] = set()  # folders, by this process


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``, and rename it to ``path`` if the block succeeds.

    If the block fails, the temporary file is removed, and an error of the system names ``path``. It
    is there already, and is to be written in place. A process that is killed leaves it; the first
    time that another one writes into the folder, it removes it.
    """
    with _held(path) as temporary:
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            # a full disk is told without a name
            if error.errno is not None and error.filename in (None, str(temporary)):
                error.filename = str(path)
            raise
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """As ``replacing``, of a whole folder; one that is there is removed when the new one is."""
    old = path.with_name(f".{path.name}.old")
    with _held(path, folder=True) as temporary:
        try:
            yield temporary
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _held(path: Path, folder: bool = False) -> Iterator[Path]:
    """A new temporary file or folder beside ``path``, locked as long as this process needs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parent = os.path.abspath(path.parent)
    if parent not in _looked_through:
        remove_left(path.parent)
        _looked_through.add(parent)
    temporary, number = _begun(path, folder)
    try:
        yield temporary
    finally:
        os.close(number)


def _begun(path: Path, folder: bool) -> tuple[Path, int]:
    """A temporary file or folder, and the number under which it is open and locked."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(3)}.partial")
        if folder:
            temporary.mkdir()
        try:
            number = os.open(temporary, _READ if folder else _NEW, 0o666)
        except FileNotFoundError:
            if folder:  # taken for left before it was locked
                continue
            raise
        with suppress(OSError):  # without locks, nothing there is taken for left
            fcntl.flock(number, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, number
        os.close(number)


def remove_left(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder; what living ones write stays."""
    for left in folder.glob(".*.partial"):
        if not LEFT.fullmatch(left.name):
            continue
        is_folder = left.is_dir()
        # held by a living process, removed by another one, or on a file system without locks
        with suppress(OSError):
            number = os.open(left, _READ if is_folder else os.O_RDWR)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_folder:
                    shutil.rmtree(left)
                else:
                    left.unlink()
            finally:
                os.close(number)


def remove_folder(folder: Path) -> None:
    """Remove a folder at once, for all who look: nobody can put a file there meanwhile.

    A process that waits for a lock in it would, and it could not be removed.
    """
    gone = folder.with_name(f".{folder.name}.{secrets.token_hex(3)}.partial")
    folder.rename(gone)
    shutil.rmtree(gone)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def json_text(value: Any) -> str:
    """``value`` as indented JSON. Raises ValueError where it holds NaN, which is no JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json_text(value))


def read_text_bytes(path: Path) -> bytes:
    """The bytes of a file of text, plain or gzipped.

    Raises OSError, EOFError or zlib.error for a damaged one, ValueError for one of more than
    MAX_TEXT bytes.
    """
    content = bytearray()
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = gzip.GzipFile(fileobj=file) if packed else file
        while piece := source.read(1 << 20):
            content += piece
            if len(content) > MAX_TEXT:
                raise ValueError(f"it holds more than {MAX_TEXT >> 20} MiB of text")
    return bytes(content)


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds. Raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists or objects nested too deeply") from None


class NotYaml(ValueError):
    """A text that is no YAML of plain values, for any reader of it."""


def parse_yaml(text: str) -> Any:
    """What a YAML text of plain values holds. Raises NotYaml, ValueError."""
    if len(text) > MAX_YAML:
        raise ValueError(f"more than {MAX_YAML:,} characters")
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("lists or keys nested too deeply") from None
    except yaml.YAMLError as error:
        raise NotYaml(brief(error)) from None
    left, count = [value], 0
    while left:
        one = left.pop()
        count += 1
        if count > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values, by its aliases")
        if isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return value


def read_json(path: Path) -> Any:
    """The content of a JSON file, plain or gzipped. Raises PneumoError."""
    try:
        return parse_json(read_text_bytes(path))
    except FileNotFoundError:
        raise PneumoError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise PneumoError(f"{path}: not a readable JSON file ({error})") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of a JSON-serialisable value, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
