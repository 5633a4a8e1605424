"""Decode and resize every film once → memory-mapped uint8 arrays.

There is one folder for each data set and resolution. A folder's name is the fingerprint of all that
goes in: ids, files (size and time of change, not their place), run lengths, settings, the version
of the rendering. Changed input therefore makes another folder. A folder is built under a temporary
name, row by row, each row marked when it is done, so that interrupted work continues; it gets its
name when it is whole.
"""

import functools
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pneumo import files, pool, runs, seals
from pneumo.data import dicom, rendering
from pneumo.data.films import Item
from pneumo.data.settings import OnError
from pneumo.errors import PneumoError, brief
from pneumo.masks.resize import shrink, shrink_mask

VERSION = 2  # of the arrays' meaning; a new one makes new caches
IMAGES, MASKS, DONE, CONTENTS = "images.npy", "masks.npy", "done.npy", "contents.json"
PARTIAL, COPY = ".partial", ".copy.partial"  # endings of the names of unfinished folders


@dataclass
class Cache:
    """Films ready for training.

    ``images`` and ``masks`` are memory-mapped uint8 (n, size, size), the masks of 0 and 1.
    """

    folder: Path
    ids: list[str]
    images: np.ndarray
    masks: np.ndarray
    checksums: list[int]
    left_aside: list[str]

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes open the files themselves instead of being sent their content."""
        return _open, (self.folder,)

    @property
    def fingerprint(self) -> str:
        """Stands for the whole content."""
        return self.folder.name

    def verify(self, row: int) -> None:
        """Raise PneumoError if a row is not what was written."""
        if _checksum(self.images[row], self.masks[row]) != self.checksums[row]:
            raise PneumoError(
                f"{self.folder}: damaged at image {self.ids[row]}; "
                "delete the folder, it will be made anew"
            )


def build(
    items: list[Item],
    size: int,
    folder: Path,
    on_error: OnError = OnError.stop,
    max_pixels: int = dicom.MAX_PIXELS,
    workers: int = -1,
) -> Cache:
    """Open the cache of these films at size², building it first if need be.

    Raises:
        PneumoError: a film that cannot be read (unless ``on_error`` is skip), a damaged cache, a
            full disk.
    """
    target = folder / fingerprint(items, size)
    with runs.lock(folder):
        for unfinished in folder.glob("*.partial"):
            files.remove_left(unfinished)
        if not target.is_dir():
            _fill(items, size, target, on_error, max_pixels, workers)
        for ending in (PARTIAL, COPY):
            shutil.rmtree(target.with_name(target.name + ending), ignore_errors=True)
    cache = _open(target)
    if cache.left_aside and on_error is OnError.stop:
        raise PneumoError(f"{cache.left_aside[0]}; leave such films out with data.on_error=skip")
    return cache


def fingerprint(items: list[Item], size: int) -> str:
    """What the cache of these films at size² is called; none is read. Raises PneumoError."""
    contents = {
        "version": VERSION,
        "rendering": rendering.VERSION,
        "size": size,
        "films": [
            [
                item.id,
                item.path.suffix,
                *_state(item.path),
                files.digest(item.annotations),
                item.shape,
            ]
            for item in items
        ],
    }
    return f"{size}px-{files.digest(contents)[:16]}"


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise PneumoError(f"{path}: {error.strerror}") from None
    return stat.st_size, stat.st_mtime_ns


def _fill(
    items: list[Item], size: int, target: Path, on_error: OnError, max_pixels: int, workers: int
) -> None:
    partial = target.with_name(target.name + PARTIAL)
    partial.mkdir(parents=True, exist_ok=True)
    shape = (len(items), size, size)
    images = writable(partial / IMAGES, shape, np.uint8)
    masks = writable(partial / MASKS, shape, np.uint8)
    done = writable(partial / DONE, (len(items),), np.uint8)  # 0 to do, 1 done
    todo = [(row, item) for row, item in enumerate(items) if done[row] != 1]
    places = [(partial / IMAGES, images.offset), (partial / MASKS, masks.offset)]
    work = functools.partial(
        _write, places=places, size=size, max_pixels=max_pixels, on_error=on_error
    )
    reasons: dict[int, str] = {}
    checksums: dict[int, int] = {}
    for (row, _), result in pool.each(work, todo, f"Decoding films to {size}²", workers):
        if isinstance(result, str):
            reasons[row] = result
            continue
        checksums[row] = result
        done[row] = 1
    for array in (images, masks, done):
        array.flush()
    kept = [row for row in range(len(items)) if done[row] == 1]
    if not kept:
        raise PneumoError(f"none of the {len(items)} films could be read; the first: {reasons[0]}")
    whole = partial
    if reasons:
        # Films left out leave gaps, which a copy closes. Closing them in place would leave rows and
        # marks that do not belong together if the work were stopped meanwhile.
        whole = target.with_name(target.name + COPY)
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        images = _copy(images, kept, whole / IMAGES)
        masks = _copy(masks, kept, whole / MASKS)
    for new, row in enumerate(kept):
        if row not in checksums:  # written before the work was interrupted
            checksums[row] = _checksum(images[new], masks[new])
    summary = {
        "ids": [items[row].id for row in kept],
        "size": size,
        "checksums": [checksums[row] for row in kept],
        "left_aside": [reasons[row] for row in sorted(reasons)],
    }
    del images, masks, done
    seals.write_json(whole / CONTENTS, summary)
    (whole / DONE).unlink(missing_ok=True)
    os.replace(whole, target)


def _copy(array: np.ndarray, rows: list[int], path: Path) -> np.memmap:
    copy = writable(path, (len(rows), *array.shape[1:]), np.uint8)
    for new, old in enumerate(rows):
        copy[new] = array[old]
    copy.flush()
    return copy


def _write(
    numbered: tuple[int, Item],
    places: list[tuple[Path, int]],
    size: int,
    max_pixels: int,
    on_error: OnError,
) -> int | str:
    """One film → its row of the arrays, and the row's checksum.

    ``places`` are the arrays' files and where in them the rows begin. Whoever decodes a film writes
    it, so that no pixels travel between processes. The reason why the film cannot be used takes the
    place of its checksum.
    """
    row, item = numbered
    prepared = prepare(item, size=size, max_pixels=max_pixels, on_error=on_error)
    if isinstance(prepared, str):
        return prepared
    for (path, begin), pixels in zip(places, prepared, strict=True):
        with open(path, "r+b", buffering=0) as file:
            file.seek(begin + row * pixels.nbytes)
            file.write(np.ascontiguousarray(pixels).data)
    return _checksum(*prepared)


def prepare(
    item: Item, size: int, max_pixels: int, on_error: OnError
) -> tuple[np.ndarray, np.ndarray] | str:
    """One film → image and mask, uint8 (size, size).

    If films may be left out, the reason why this one cannot be used takes their place.
    """
    try:
        film = dicom.read(item.path, max_pixels)
        mask = item.mask(film.stored_shape) if item.annotations else None
    except PneumoError as error:
        if on_error is OnError.stop:
            raise PneumoError(f"{error}; leave such films out with data.on_error=skip") from None
        return str(error)
    image = shrink(film.pixels, size)
    if mask is None:
        return image, np.zeros_like(image)
    return image, shrink_mask(dicom.upright(mask, film.orientation), size)


def writable(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """Open a .npy file for writing as a memory map.

    The file is made whole first, with its space on disk reserved: a process that writes to a memory
    map is killed when the disk is full, without an error that it could report.
    """
    if path.is_file():
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape == shape and array.dtype == dtype:
            return array
        del array
    with files.replacing(path) as temporary:
        np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape).flush()
        if hasattr(os, "posix_fallocate"):
            with open(temporary, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
    return np.lib.format.open_memmap(path, mode="r+")


def _open(folder: Path) -> Cache:
    try:
        contents = seals.read_json(folder / CONTENTS)
        images, masks = (np.load(folder / name, mmap_mode="r") for name in (IMAGES, MASKS))
        rows, size = len(contents["ids"]), contents["size"]
        for array in (images, masks):
            if array.dtype != np.uint8 or len(array) < rows or array.shape[1:] != (size, size):
                raise ValueError("unexpected arrays")
    except files.DAMAGE as error:
        raise PneumoError(
            f"{folder}: damaged cache ({brief(error)}); delete the folder, it will be made anew"
        ) from None
    cache = Cache(
        folder,
        contents["ids"],
        images[:rows],
        masks[:rows],
        contents["checksums"],
        contents["left_aside"],
    )
    cache.verify(0)
    cache.verify(rows - 1)
    return cache


def _checksum(image: np.ndarray, mask: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(mask).data, zlib.crc32(np.ascontiguousarray(image).data))
