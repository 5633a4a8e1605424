"""Decoding films into a cache, against the bare JPEG decoder.

    python -m benchmarks caching

Ours: ``cache.build`` in one process, from the films' files to the finished folder: headers, pixels
to grey levels, shrunk images and masks, checksums. Bare: the films' JPEG frames, already in memory,
through Pillow, the decoder that ours uses. With the challenge's films (``PNEUMO_REAL_DATA``) they
are copied until they are many; else phantoms are drawn, whose JPEG is of the same kind.
"""

import shutil
import tempfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import get_frame

from benchmarks.table import Row, alternate, compared, real_data
from pneumo.data import cache
from pneumo.data.films import Item
from pneumo.data.settings import OnError, PhantomData, SiimData
from pneumo.data.sources import phantom, siim


def items_of(folder: Path, count: int) -> tuple[str, list[Item]]:
    """So many annotated films in a folder, and what they are."""
    real = real_data() / "siim"
    if not real.is_dir():
        root = folder / "films"
        phantom.generate(PhantomData(name="phantom", images=count), root, workers=0)
        table = str(root / phantom.TABLE)
        index = siim.read_index(SiimData(name="siim", root=str(root), annotations=table))
        return "phantoms", index.items
    settings = SiimData(
        name="siim",
        root=str(real / "dicom-images-train"),
        annotations=str(real / "stage_2_train.csv.gz"),
        on_missing=OnError.skip,
    )
    known = siim.read_index(settings).items
    items = []
    for number in range(count):
        item = known[number % len(known)]
        path = folder / f"{number}.dcm"
        shutil.copy(item.path, path)
        items.append(Item(str(number), path, item.annotations))
    return "challenge films", items


def measure(quick: bool = False) -> list[Row]:
    """One row for each size of the cache."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        what, items = items_of(folder, 4 if quick else 44)
        frames = []
        for item in items:
            pixels = pydicom.dcmread(item.path).PixelData
            frames.append(get_frame(pixels, 0, number_of_frames=1))

        def bare() -> list[np.ndarray]:
            return [np.asarray(Image.open(BytesIO(frame))) for frame in frames]

        def cached(size: int) -> cache.Cache:
            shutil.rmtree(folder / "cache", ignore_errors=True)
            return cache.build(items, size, folder / "cache", workers=0)

        ways = {"bare": bare, "512": lambda: cached(512), "256": lambda: cached(256)}
        timed = alternate(ways, 2 if quick else 7)
        positive = sum(item.positive for item in items) / len(items)
        about = f"{len(items)} {what}, {positive:.0%} positive"
        return [
            compared(
                f"cache of films at {size}², {about}",
                timed[size],
                timed["bare"],
                per=len(items),
                rate=True,
                at_least=0.7,
                against="Pillow on the JPEG frames in memory",
            )
            for size in ("512", "256")
        ]
