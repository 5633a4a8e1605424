"""Files that are written whole or not at all, and their fingerprints; text that may mean harm.

Tables, JSON and YAML may come from anyone. A gzip bomb unpacks to any number of bytes, lists in
lists exhaust Python's stack, YAML's aliases multiply what they name, and its tags can make any
object. So what is unpacked is counted, and all of these are refused as damaged files are.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pneumo.errors import PneumoError, brief

# what a damaged or hostile file raises while its values are taken
DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, OverflowError)
MAX_TEXT = 512 << 20  # bytes of a table or JSON file, unpacked
MAX_YAML = 1 << 20  # characters of a YAML text
MAX_VALUES = 100_000  # values of a YAML text, those of its aliases counted wherever they stand


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``, and rename it to ``path`` if the block succeeds.

    If the block fails, the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def parse_yaml(text: str) -> Any:
    """What a YAML text of plain values holds. Raises ValueError."""
    if len(text) > MAX_YAML:
        raise ValueError(f"more than {MAX_YAML:,} characters")
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("lists or keys nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(brief(error)) from None
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
