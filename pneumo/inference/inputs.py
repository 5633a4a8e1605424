"""What a user points at (files, folders, zip archives) → the bytes of one film after another.

An archive may be a zip bomb: a small file that unpacks to more than the memory or the patience of
the machine holds, by one huge member, by very many members, or by archives within archives. The
defence is to count the bytes that really come out and to stop at the limits, to limit the number
of members, and never to open an archive within an archive.
"""

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pneumo.data import dicom
from pneumo.errors import PneumoError, brief

# limits against zip bombs
MAX_MEMBERS = 100_000  # of one zip archive
MAX_UNPACKED = 64 * 2**30  # bytes of one zip archive, all members together


@dataclass
class Source:
    """One file that may be a film: its name as shown to the user, and its bytes.

    ``fault`` says why there are no bytes.
    """

    name: str
    content: bytes | None
    fault: str | None = None
    asked: bool = True  # named by the user, not merely found in a folder or an archive

    @property
    def is_film(self) -> bool:
        """Whether it is worth trying: a picture, a DICOM file by its mark, or by its suffix."""
        content = self.content or b""
        suffix = PurePosixPath(self.name).suffix.lower()
        if suffix in (".dcm", ".dicom", *dicom.IMAGES):
            return True
        return content[128:132] == b"DICM" or dicom.is_picture(Path(self.name), content)


class Listed(NamedTuple):
    """A file that may be a film, not read yet. It is read before the next one is listed, or not."""

    name: str
    read: Callable[[], Source]


def sources(
    paths: Sequence[str],
    max_bytes: int,
    leave_out: Path | None = None,
    rows: slice = slice(None),
) -> Iterator[Source]:
    """Every file that the paths name or hold; folders and archives are searched through.

    One film is in memory at a time.

    Args:
        paths: files, folders (with all folders below) and zip archives.
        max_bytes: a larger file, or archive member when unpacked, is not read.
        leave_out: a folder that is not searched (where results are written).
        rows: which of the files are read, counted in the order of ``names``.

    Raises:
        PneumoError: a path that does not exist, before anything is read.
    """
    _check(paths, leave_out)
    listed = _each(list(map(Path, paths)), max_bytes, leave_out)
    return (one.read() for one in islice(listed, rows.start, rows.stop))


def names(paths: Sequence[str], leave_out: Path | None = None) -> list[str]:
    """The files that ``sources`` gives, by the names it gives them; none is read.

    Raises PneumoError as it does.
    """
    _check(paths, leave_out)
    return [one.name for one in _each(list(map(Path, paths)), 0, leave_out)]


def _check(paths: Sequence[str], leave_out: Path | None) -> None:
    for path in map(Path, paths):
        if not path.exists():
            raise PneumoError(f"input={path}: no such file or folder")
        if leave_out is not None and path.resolve() == leave_out.resolve():
            raise PneumoError(
                f"input={path}: the folder that results are written to; choose another with out="
            )


def _each(paths: list[Path], max_bytes: int, leave_out: Path | None) -> Iterator[Listed]:
    for path in paths:
        if path.is_dir():
            yield from _folder(path, max_bytes, leave_out)
        else:
            yield from _file(path, max_bytes, asked=True)


def _faulty(name: str, fault: str) -> Listed:
    """A file that is known to give no bytes."""
    return Listed(name, lambda: Source(name, None, fault))


def _folder(root: Path, max_bytes: int, leave_out: Path | None) -> Iterator[Listed]:
    """All files below a folder; hidden ones are passed over.

    Links are followed. A folder that cannot be searched is a fault.
    """
    faults: list[OSError] = []
    # each folder is searched once, so that links in a circle come to an end
    seen: set[tuple[int, int]] = set()
    for name, folders, file_names in os.walk(root, onerror=faults.append, followlinks=True):
        here = Path(name)
        stat = here.stat()
        identity = (stat.st_dev, stat.st_ino)
        is_left_out = leave_out is not None and here.resolve() == leave_out.resolve()
        if identity in seen or is_left_out:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for file_name in sorted(file_names):
            if not file_name.startswith(".") and (here / file_name).is_file():
                yield from _file(here / file_name, max_bytes, asked=False)
    for fault in faults:
        yield _faulty(str(fault.filename), f"cannot be searched ({fault.strerror})")


def _file(path: Path, max_bytes: int, asked: bool) -> Iterator[Listed]:
    try:
        if path.suffix.lower() == ".zip" or (asked and zipfile.is_zipfile(path)):
            yield from _members(path, max_bytes)
            return
    except OSError as error:
        yield _faulty(str(path), error.strerror or "cannot be read")
        return
    yield Listed(str(path), partial(_read, path, max_bytes, asked))


def _read(path: Path, max_bytes: int, asked: bool) -> Source:
    """A file's bytes, or why they are not read."""
    name = str(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            return Source(name, None, "not a regular file", asked)
        if size > max_bytes:
            allowed = f"more than max_megabytes={max_bytes >> 20} allows"
            return Source(name, None, f"{size / 2**20:,.0f} MiB, {allowed}", asked)
        return Source(name, path.read_bytes(), None, asked)
    except OSError as error:
        return Source(name, None, error.strerror or "cannot be read", asked)


def _members(path: Path, max_bytes: int) -> Iterator[Listed]:
    """The files of an archive, unpacked in memory one by one.

    A member of a zip bomb may claim a small size, so its claim is not trusted: reading stops as
    soon as one member, or all together, give more bytes than the limits allow.
    """
    try:
        archive = zipfile.ZipFile(path)
    # what zipfile raises for an archive in a later version of the format than it reads
    except NotImplementedError as error:
        reason = f"an archive that cannot be unpacked here ({error}); unpack it first"
        yield _faulty(str(path), reason)
        return
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        yield _faulty(str(path), f"a damaged archive ({error})")
        return
    with archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        if len(members) > MAX_MEMBERS:
            reason = f"an archive of {len(members):,} files, more than {MAX_MEMBERS:,}"
            yield _faulty(str(path), reason)
            return
        unpacked = _Unpacked()
        for info in members:
            name = f"{path}/{info.filename}"
            if PurePosixPath(info.filename).name.startswith("."):
                continue
            # archives within archives multiply what a zip bomb unpacks to, so none is opened
            if info.filename.lower().endswith(".zip"):
                yield _faulty(name, "an archive within an archive; unpack it first")
                continue
            # Python unpacks other methods in pieces of any size: 4 KiB of bzip2 may become 4 GiB
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield _faulty(name, "packed by a rare method; unpack the archive first")
                continue
            yield Listed(name, partial(_member, archive, info, path, max_bytes, unpacked))
            if unpacked.total > MAX_UNPACKED:
                return


@dataclass
class _Unpacked:
    """How many bytes an archive has given until now."""

    total: int = 0


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, max_bytes: int, before: _Unpacked
) -> Source:
    """The bytes of an archive's member, or why they are not used."""
    name = f"{path}/{info.filename}"
    try:
        with archive.open(info) as file:
            # one byte more than is allowed shows that a member is too large
            content = file.read(max_bytes + 1)
    # zipfile and its decoders raise many kinds of exception on damaged archives
    except Exception as error:
        return Source(name, None, f"cannot be unpacked ({brief(error)})")
    before.total += len(content)
    if before.total > MAX_UNPACKED:
        reason = f"unpacks to more than {MAX_UNPACKED >> 30} GiB; the rest was not read"
        return Source(str(path), None, reason)
    if len(content) > max_bytes:
        reason = f"unpacks to more than max_megabytes={max_bytes >> 20} allows"
        return Source(name, None, reason)
    return Source(name, content, None, asked=False)
