"""What a user points at (files, folders, zip archives) → the bytes of one film after another.

An archive may be a zip bomb: a small file that unpacks to more than the memory or the patience of
the machine holds, by one huge member, by very many members, or by archives within archives. The
defence is to count the bytes that really come out and to stop at the limits, to limit the number
of members, and never to open an archive within an archive.
"""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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


def sources(
    paths: Sequence[str], max_bytes: int, leave_out: Path | None = None
) -> Iterator[Source]:
    """Every file that the paths name or hold; folders and archives are searched through.

    One film is in memory at a time.

    Args:
        paths: files, folders (with all folders below) and zip archives.
        max_bytes: a larger file, or archive member when unpacked, is not read.
        leave_out: a folder that is not searched (where results are written).

    Raises:
        PneumoError: a path that does not exist, before anything is read.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise PneumoError(f"input={path}: no such file or folder")
        if leave_out is not None and path.resolve() == leave_out.resolve():
            raise PneumoError(
                f"input={path}: the folder that results are written to; choose another with out="
            )
    return _each(list(map(Path, paths)), max_bytes, leave_out)


def _each(paths: list[Path], max_bytes: int, leave_out: Path | None) -> Iterator[Source]:
    for path in paths:
        if path.is_dir():
            yield from _folder(path, max_bytes, leave_out)
        else:
            yield from _file(path, max_bytes, asked=True)


def _folder(root: Path, max_bytes: int, leave_out: Path | None) -> Iterator[Source]:
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
        yield Source(str(fault.filename), None, f"cannot be searched ({fault.strerror})")


def _file(path: Path, max_bytes: int, asked: bool) -> Iterator[Source]:
    try:
        if path.suffix.lower() == ".zip" or (asked and zipfile.is_zipfile(path)):
            yield from _members(path, max_bytes)
            return
        size = path.stat().st_size
        if not path.is_file():
            yield Source(str(path), None, "not a regular file", asked)
        elif size > max_bytes:
            yield Source(
                str(path),
                None,
                f"{size / 2**20:,.0f} MiB, more than max_megabytes={max_bytes >> 20} allows",
                asked,
            )
        else:
            yield Source(str(path), path.read_bytes(), None, asked)
    except OSError as error:
        yield Source(str(path), None, error.strerror or "cannot be read", asked)


def _members(path: Path, max_bytes: int) -> Iterator[Source]:
    """The files of an archive, unpacked in memory one by one.

    A member of a zip bomb may claim a small size, so its claim is not trusted: reading stops as
    soon as one member, or all together, give more bytes than the limits allow.
    """
    try:
        archive = zipfile.ZipFile(path)
    # what zipfile raises for an archive in a later version of the format than it reads
    except NotImplementedError as error:
        yield Source(
            str(path), None, f"an archive that cannot be unpacked here ({error}); unpack it first"
        )
        return
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        yield Source(str(path), None, f"a damaged archive ({error})")
        return
    left = MAX_UNPACKED
    with archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        if len(members) > MAX_MEMBERS:
            yield Source(
                str(path), None, f"an archive of {len(members):,} files, more than {MAX_MEMBERS:,}"
            )
            return
        for info in members:
            name = f"{path}/{info.filename}"
            if PurePosixPath(info.filename).name.startswith("."):
                continue
            # archives within archives multiply what a zip bomb unpacks to, so none is opened
            if info.filename.lower().endswith(".zip"):
                yield Source(name, None, "an archive within an archive; unpack it first")
                continue
            # Python unpacks other methods in pieces of any size: 4 KiB of bzip2 may become 4 GiB
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield Source(name, None, "packed by a rare method; unpack the archive first")
                continue
            try:
                with archive.open(info) as file:
                    # one byte more than is allowed shows that a member is too large
                    content = file.read(max_bytes + 1)
            # zipfile and its decoders raise many kinds of exception on damaged archives
            except Exception as error:
                yield Source(name, None, f"cannot be unpacked ({brief(error)})")
                continue
            left -= len(content)
            if left < 0:
                yield Source(
                    str(path),
                    None,
                    f"unpacks to more than {MAX_UNPACKED >> 30} GiB; the rest was not read",
                )
                return
            if len(content) > max_bytes:
                yield Source(
                    name, None, f"unpacks to more than max_megabytes={max_bytes >> 20} allows"
                )
            else:
                yield Source(name, content, None, asked=False)
