"""A folder of films beside a folder of mask pictures → annotated films.

A film's mask bears its name: ``a.png`` or ``a.dcm`` with ``a.png``, ``a_mask.png`` or
``a.mask.png`` (then the film may be ``a.img.png``). PTX-498's ``SiteA/1.1.img.png`` with
``SiteA/1.2.mask.png`` is the film ``SiteA-1`` of the site ``SiteA``; its NIfTI copies are not read.
A mask that is black everywhere says "no pneumothorax"; a film without a mask picture is not
annotated, and so not negative.
"""

import functools
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pneumo import pool
from pneumo.data import dicom
from pneumo.data.csv_files import read_patients, read_sites
from pneumo.data.films import Index, Item, find_films, name_of
from pneumo.data.settings import FolderData, OnError
from pneumo.errors import PneumoError, brief
from pneumo.masks import rle

MASKS = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".gif")
FORMATS = ("PNG", "BMP", "TIFF", "JPEG", "GIF")  # what Pillow may take them for
TOLERANCE = 0.02  # by which the ratio of sides of film and mask may differ


def read_index(data: FolderData) -> Index:
    """Join films and mask pictures. Raises PneumoError, for one bad mask unless on_error=skip."""
    data.check_places()
    assert data.root is not None
    assert data.masks is not None
    masks = _masks(Path(data.masks))
    taken = set(masks.values())
    films: dict[str, Path] = {}
    unannotated: list[str] = []
    for path in find_films(Path(data.root)):
        if path in taken:
            continue  # films and masks share a folder
        name = _plain(path, name_of(path))
        if name in films:
            raise PneumoError(f"{path}: has the same name as {films[name]}")
        if name in masks:
            films[name] = path
        else:
            unannotated.append(str(path))
    if not films:
        raise PneumoError(
            f"{data.root}: none of its films has a mask picture of its name in {data.masks}"
        )
    without = [str(path) for name, path in masks.items() if name not in films]
    patients = read_patients(Path(data.patients)) if data.patients else {}
    sites = read_sites(Path(data.patients)) if data.patients else {}
    if data.patients and not patients.keys() & films.keys():
        raise PneumoError(f"{data.patients}: names none of the films of {data.root}")
    read = functools.partial(_annotation, on_error=data.on_error)
    pairs = [(films[name], masks[name]) for name in films]
    annotations = {film: found for (film, _), found in pool.each(read, pairs, "Reading masks")}
    items, unusable = [], []
    for name, path in films.items():
        found = annotations[path]
        if isinstance(found, str):
            unusable.append(found)
            continue
        text, shape = found
        runs = [] if rle.is_empty(text) else [text]
        site = sites.get(name) or _site(path)
        items.append(Item(name, path, runs, patients.get(name), site, shape))
    if not items:
        raise PneumoError(f"none of the masks can be used; the first: {unusable[0]}")
    left_aside = {
        "films without a mask picture (not annotated, so not negative)": unannotated,
        "mask pictures without a film": without,
        "mask pictures that cannot be used": unusable,
    }
    return Index(items, {reason: cases for reason, cases in left_aside.items() if cases})


def _masks(root: Path) -> dict[str, Path]:
    """Mask pictures below a folder, by the name of their film."""
    if not root.is_dir():
        raise PneumoError(f"{root}: no such folder (data.masks)")
    pictures = sorted(path for path in root.rglob("*") if path.suffix.lower() in MASKS)
    marked = [path for path in pictures if _is_marked(path)]
    masks: dict[str, Path] = {}
    for path in marked or pictures:
        name = _plain(path, path.stem)
        if name in masks:
            raise PneumoError(f"{path}: a second mask of film {name}, beside {masks[name]}")
        masks[name] = path
    if not masks:
        raise PneumoError(f"{root}: no mask pictures in it (looked for {', '.join(MASKS)})")
    return masks


def _is_marked(path: Path) -> bool:
    return re.search(r"[._-]mask$", path.stem, re.IGNORECASE) is not None


def _plain(path: Path, name: str) -> str:
    """What film and mask have in common: ``SiteA/1.1.img`` and ``SiteA/1.2.mask`` are ``SiteA-1``.

    PTX-498 numbers the films of each site from 1 on.
    """
    numbered = re.fullmatch(r"(.+)\.[12]\.(img|mask)", name, re.IGNORECASE)
    if numbered:
        site = _site(path)
        return f"{site}-{numbered[1]}" if site else numbered[1]
    return re.sub(r"[._-](img|mask)$", "", name, flags=re.IGNORECASE)


def _site(path: Path) -> str | None:
    """The site of a film of PTX-498, by the folder that it is in."""
    numbered = re.search(r"\.[12]\.(img|mask)\.[^.]+$", path.name, re.IGNORECASE)
    folder = re.fullmatch(r"site.*", path.parent.name, re.IGNORECASE)
    return folder[0] if numbered and folder else None


def _annotation(pair: tuple[Path, Path], on_error: OnError) -> tuple[str, tuple[int, int]] | str:
    """Run lengths and shape of a film's mask picture; the reason why not, if it may be skipped."""
    film, path = pair
    try:
        mask = read_mask(path)
        rows, columns = dicom.read_tags(film).stored_shape
        ratio = (mask.shape[1] / mask.shape[0]) / (columns / rows)
        if abs(ratio - 1) > TOLERANCE:
            raise PneumoError(
                f"{path}: {mask.shape[1]} × {mask.shape[0]} pixels do not fit its film's "
                f"{columns} × {rows} ({film})"
            )
    except PneumoError as error:
        if on_error is OnError.stop:
            raise PneumoError(f"{error}; leave such films out with data.on_error=skip") from None
        return str(error)
    return rle.encode(mask), (mask.shape[0], mask.shape[1])


def _check_size(path: Path) -> None:
    """Refuse a decompression bomb, which may claim any number of pixels, before it is decoded."""
    try:
        with dicom.quiet(), Image.open(path, formats=FORMATS) as picture:
            pixels = picture.width * picture.height
    except FileNotFoundError:
        raise PneumoError(f"{path}: no such file") from None
    except Exception as error:  # Pillow's plugins raise many kinds of exception
        raise PneumoError(f"{path}: not a picture that can be read ({brief(error)})") from None
    if pixels > dicom.MAX_PIXELS:
        raise PneumoError(f"{path}: claims {pixels:,} pixels, more than any film has")


def read_mask(path: Path) -> np.ndarray:
    """A mask picture → uint8 (rows, columns) of 0 and 1: 1 where any channel is not black.

    A lossy picture counts from half its range on. Raises PneumoError.
    """
    try:
        _check_size(path)
        content = np.frombuffer(path.read_bytes(), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
    except (OSError, cv2.error) as error:
        raise PneumoError(f"{path}: cannot be read ({error})") from None
    if picture is None:
        raise PneumoError(f"{path}: not a picture that can be read")
    if picture.ndim == 3:
        picture = picture[..., :3].max(axis=2)  # without transparency
    lossy = path.suffix.lower() in (".jpg", ".jpeg")
    return (picture > (127 if lossy else 0)).astype(np.uint8)
