"""One film file → upright uint8 array, dark lungs and bright bones, plus the tags we use. Sole reader of DICOM.

DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT): https://dicom.nema.org/medical/dicom/current/
"""

import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, apply_rescale, apply_voi_lut, pixel_array
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit

from pneumo.errors import PneumoError

MAX_PIXELS = 100_000_000
MAX_UNPACKED = 512 << 20  # bytes of a deflated file
IMAGES = (".png", ".jpg", ".jpeg")
PACKAGES = {  # what decodes a transfer syntax that pydicom, numpy and Pillow do not
    "1.2.840.10008.1.2.4.51": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.57": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.70": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.80": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.81": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
}


class FilmError(PneumoError):
    """A film that cannot be read: the message names the file, the reason and the way out."""


@dataclass
class Tags:
    """What we use of a file's tags. ``orientation`` is the stored PatientOrientation, so that masks can follow the pixels."""

    stored_shape: tuple[int, int]  # of the pixels in the file, before they are turned upright
    uid: str | None = None  # SOPInstanceUID
    patient: str | None = None
    view: str | None = None  # PA or AP
    spacing: tuple[float, float] | None = None  # mm between rows and between columns
    orientation: tuple[str, str] | None = None


@dataclass(kw_only=True)
class Film(Tags):
    """A film as people look at it."""

    pixels: np.ndarray  # uint8 (rows, columns), MONOCHROME2
    header: FileDataset | None = None  # all tags, without the pixels; None for a picture


def read(
    path: Path, max_pixels: int = MAX_PIXELS, content: bytes | None = None, colour: bool = False
) -> Film:
    """Read a DICOM file, or a PNG or JPEG picture.

    Args:
        path: the file; a picture is known by its suffix.
        max_pixels: a film that claims more is refused before it is decoded.
        content: the file's bytes if they were read already (then ``path`` only names it, and a picture is known by them).
        colour: accept colour images, as their luminance.

    Raises:
        FilmError: which file, what is wrong with it, and the way out.
    """
    if is_picture(path, content):
        picture = _read_picture(path, max_pixels, content, colour)
        return Film(pixels=picture, stored_shape=picture.shape)
    dataset = read_header(path, pixels=True, content=content)
    try:
        _check(path, dataset, max_pixels, colour)
        tags = _tags(dataset)
        pixels = upright(_to_uint8(_decode(path, dataset), dataset), tags.orientation)
        del dataset.PixelData
    except FilmError:
        raise
    except MemoryError:
        raise FilmError(f"{path}: not enough memory to decode it") from None
    except Exception as error:  # tags of damaged files hold anything
        raise FilmError(
            f"{path}: damaged DICOM file ({type(error).__name__}: {_brief(error)})"
        ) from None
    return Film(pixels=pixels, header=dataset, **vars(tags))


def is_picture(path: Path, content: bytes | None = None) -> bool:
    """Whether a file is a PNG or JPEG picture: by its first bytes if they are given, else by its suffix."""
    if content is not None:
        return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    return path.suffix.lower() in IMAGES


def is_marked(path: Path) -> bool:
    """Whether a file without a suffix bears DICOM's mark (archives export such files)."""
    if path.suffix.strip(".0123456789"):  # 1.2.840.113 has no suffix either
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def looks_inverted(pixels: np.ndarray) -> bool:
    """Whether a chest film, uint8 (rows, columns), shows bright lungs although it should show dark ones.

    The middle of the chest (spine, heart, vessels) is then darker than the lungs on either side by more than half the film's
    standard deviation. On the 71 challenge films at hand the difference is -0.03 to 2 and 1.1 in the median.
    """
    small = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    lungs = (small[8:20, 6:11].mean() + small[8:20, 21:26].mean()) / 2
    return float(small[9:22, 14:18].mean() - lungs) < -0.5 * float(small.std())


def read_tags(path: Path) -> Tags:
    """The tags alone, without decoding; a PNG or JPEG picture has a shape and no more. Raises FilmError."""
    if path.suffix.lower() in IMAGES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as picture:
                    return Tags((picture.height, picture.width))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise FilmError(f"{path}: not a readable picture ({_brief(error)})") from None
    return _tags(read_header(path))


def usable_spacing(value: Any) -> tuple[float, float] | None:
    """PixelSpacing or ImagerPixelSpacing as (mm between rows, mm between columns); None if it is missing or impossible."""
    try:
        rows, columns = (float(one) for one in value)
    except (TypeError, ValueError):
        return None
    return (rows, columns) if 0.01 <= rows <= 10 and 0.01 <= columns <= 10 else None


def _tags(dataset: FileDataset) -> Tags:
    spacing = usable_spacing(dataset.get("PixelSpacing")) or usable_spacing(
        dataset.get("ImagerPixelSpacing")
    )
    return Tags(
        (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        uid=str(dataset.get("SOPInstanceUID", "")) or None,
        patient=str(dataset.get("PatientID", "")) or None,
        view=str(dataset.get("ViewPosition", "")) or None,
        spacing=spacing,
        orientation=_orientation(dataset),
    )


def read_header(path: Path, pixels: bool = False, content: bytes | None = None) -> FileDataset:
    """Read a DICOM file's tags, with pixel data only if asked for. Accepts files without preamble. Raises FilmError."""

    def source() -> Path | BytesIO:
        return path if content is None else BytesIO(content)

    _check_deflated(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # odd values in tags we do not use
            try:
                dataset = pydicom.dcmread(source(), stop_before_pixels=not pixels)
            except InvalidDicomError:
                dataset = pydicom.dcmread(source(), stop_before_pixels=not pixels, force=True)
                if "SOPClassUID" not in dataset or "Rows" not in dataset:
                    raise FilmError(f"{path}: not a DICOM file") from None
    except FilmError:
        raise
    except OSError as error:
        raise FilmError(f"{path}: {error.strerror or 'truncated or unreadable'}") from None
    except Exception as error:  # pydicom meets damaged files with many kinds of exception
        raise FilmError(f"{path}: damaged DICOM file ({_brief(error)})") from None
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian  # PS3.5 section 10: the default
        )
    return dataset


def _check_deflated(path: Path, content: bytes | None) -> None:
    """Refuse a deflated DICOM file that would unpack to more than any film holds: pydicom unpacks it whole."""
    try:
        with open(path, "rb") if content is None else BytesIO(content) as file:
            head = file.read(1024)
            if b"1.2.840.10008.1.2.1.99" not in head[132:]:
                return
            file.seek(
                144 + int.from_bytes(head[140:144], "little")
            )  # behind the file meta group, PS3.10 section 7.1
            unpack, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
            while size <= MAX_UNPACKED and not unpack.eof and (packed := file.read(1 << 16)):
                while packed and not unpack.eof and size <= MAX_UNPACKED:
                    size += len(unpack.decompress(packed, 1 << 20))
                    packed = unpack.unconsumed_tail
    except (OSError, zlib.error):
        return  # reading it will say so
    if size > MAX_UNPACKED:
        raise FilmError(
            f"{path}: a deflated file that unpacks to more than {MAX_UNPACKED >> 20} MiB"
        )


def upright(image: np.ndarray, orientation: tuple[str, str] | None) -> np.ndarray:
    """Turn or mirror a stored array so that the patient's head is up and the patient's left is on the right.

    ``orientation`` is PatientOrientation (PS3.3 C.7.6.1.1.1): where rows and columns point, e.g. ('L', 'F') for upright.
    """
    turned, mirrored, upside_down = _turns(orientation)
    image = image.T if turned else image
    return np.ascontiguousarray(image[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def stored(image: np.ndarray, orientation: tuple[str, str] | None) -> np.ndarray:
    """The inverse of ``upright``: an array over the upright film → over the pixels as the file stores them."""
    turned, mirrored, upside_down = _turns(orientation)
    image = image[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return np.ascontiguousarray(image.T if turned else image)


def is_turned(orientation: tuple[str, str] | None) -> bool:
    """Whether ``upright`` changes films of this PatientOrientation."""
    return any(_turns(orientation))


def is_frontal(tags: Tags) -> bool | None:
    """Whether the tags say that a film is frontal; None if they do not say."""
    if (tags.view or "").upper() in ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD"):
        return False
    if tags.orientation and {one[:1] for one in tags.orientation} & {"A", "P"}:
        return False
    return True if any(_turns(tags.orientation)) or tags.orientation in (("L", "F"),) else None


def _turns(orientation: tuple[str, str] | None) -> tuple[bool, bool, bool]:
    """Whether an array must be transposed, then mirrored, then put upside down to stand upright."""
    across, down = (direction[:1] for direction in orientation) if orientation else ("", "")
    if across in ("H", "F") and down in ("L", "R"):
        return True, down == "R", across == "H"
    if across in ("L", "R") and down in ("H", "F"):
        return False, across == "R", down == "H"
    return False, False, False  # unknown, or a lateral film


def _orientation(dataset: FileDataset) -> tuple[str, str] | None:
    value = dataset.get("PatientOrientation")
    return (str(value[0]), str(value[1])) if value and len(value) == 2 and all(value) else None


def _check(path: Path, dataset: FileDataset, max_pixels: int, colour: bool) -> None:
    rows, columns, frames = (
        int(dataset.get(key) or default)
        for key, default in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1))
    )
    if not rows or not columns or "PixelData" not in dataset:
        raise FilmError(f"{path}: a DICOM file without an image")
    if frames > 1:
        raise FilmError(f"{path}: holds {frames} frames; a film has one")
    if _is_colour(dataset) and not colour:
        raise FilmError(f"{path}: a colour image; a film is grey (colour=true takes its luminance)")
    if rows * columns > max_pixels:
        raise FilmError(
            f"{path}: claims {rows} x {columns} pixels, more than data.max_megapixels={max_pixels // 1_000_000} allows"
        )


def _is_colour(dataset: FileDataset) -> bool:
    return (
        dataset.get("SamplesPerPixel", 1) != 1
        or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    )


def _decode(path: Path, dataset: FileDataset) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = (
        "pillow" if syntax == JPEGBaseline8Bit else ""
    )  # several times as fast as what pydicom would choose, same pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            array = pixel_array(dataset, decoding_plugin=plugin)
    except MemoryError:
        raise
    except Exception as error:  # each decoder has its own kinds of exception
        package = PACKAGES.get(str(syntax))
        hint = f"; if it is not damaged, try: pip install {package}" if package else ""
        raise FilmError(
            f"{path}: cannot decode {syntax.name} ({syntax}): {_brief(error)}{hint}"
        ) from None
    if _is_colour(dataset):
        array = (
            apply_color_lut(array, dataset)
            if dataset.PhotometricInterpretation == "PALETTE COLOR"
            else array
        )
        deep = array.dtype.itemsize > 1
        array = (array >> 8 if deep and int(array.max()) > 255 else array).astype(np.uint8)
        array = cv2.cvtColor(np.ascontiguousarray(array[..., :3]), cv2.COLOR_RGB2GRAY)
    if array.shape != (dataset.Rows, dataset.Columns):
        raise FilmError(
            f"{path}: {array.shape} pixels where the header says ({dataset.Rows}, {dataset.Columns})"
        )
    return array


def _to_uint8(array: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Modality LUT, then VOI window, then polarity (PS3.3 C.11, C.7.6.3.1.2), then 8 bit.

    An 8-bit film without window stays as it is. Deeper films without a usable window are stretched between their
    0.1 and 99.9 percentiles: the range of stored bits says little about what is used of it.
    """
    if _is_colour(dataset):
        return array
    values = apply_rescale(array, dataset)
    low, high = 0.0, 255.0
    plain = array.dtype == np.uint8 and dataset.BitsStored == 8 and values is array
    if "VOILUTSequence" in dataset or ("WindowCenter" in dataset and "WindowWidth" in dataset):
        windowed = np.asarray(apply_voi_lut(values, dataset), np.float64)
        low, high = float(windowed.min()), float(windowed.max())
        inside = (windowed > low) & (windowed < high)
        if (
            inside.mean() > 0.2
        ):  # else the window hides most of the film, and the film is stretched instead
            values, plain = windowed, False
        else:
            low, high = np.percentile(values, (0.1, 99.9)) if not plain else (0.0, 255.0)
    elif not plain:
        low, high = np.percentile(values, (0.1, 99.9))
    stretched = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    grey = array if plain else stretched.round().astype(np.uint8)
    return 255 - grey if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else grey


def _read_picture(path: Path, max_pixels: int, content: bytes | None, colour: bool) -> np.ndarray:
    """A PNG or JPEG mirror of a film, grey or grey stored as colour (RGB, RGBA, palette) → uint8 (rows, columns)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # we check the size ourselves
            with Image.open(path if content is None else BytesIO(content)) as picture:
                if picture.width * picture.height > max_pixels:
                    raise FilmError(
                        f"{path}: {picture.height} x {picture.width} pixels, more than data.max_megapixels allows"
                    )
                upright_picture = ImageOps.exif_transpose(picture)  # as every viewer shows it
                if picture.mode.startswith("I") or picture.mode == "F":
                    deep = np.asarray(upright_picture, np.float64)
                    # 10, 12 or 16 bits: the file does not say, so the range that is used
                    low, high = (
                        np.percentile(deep, (0.1, 99.9)) if deep.max() > 255 else (0.0, 255.0)
                    )
                    return (
                        (np.clip((deep - low) / max(high - low, 1e-9), 0, 1) * 255)
                        .round()
                        .astype(np.uint8)
                    )
                if picture.mode in ("L", "1"):
                    return np.asarray(upright_picture.convert("L"))
                colours = np.asarray(upright_picture.convert("RGB"))
    except FilmError:
        raise
    except MemoryError:
        raise FilmError(f"{path}: not enough memory to decode it") from None
    except (
        Exception
    ) as error:  # damaged pictures meet Pillow's plugins with many kinds of exception
        raise FilmError(f"{path}: not a readable picture ({_brief(error)})") from None
    if colour:
        return cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    if int(np.ptp(colours.astype(np.int16), axis=2).max()) > 8:
        raise FilmError(
            f"{path}: a colour picture; a film is grey (colour=true takes its luminance)"
        )
    return np.ascontiguousarray(colours[..., 0])


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:117] + "..." if len(text) > 120 else text or type(error).__name__
