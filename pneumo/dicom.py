"""One film file → upright uint8 array, dark lungs and bright bones, plus the tags we use. Sole reader of DICOM.

DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT): https://dicom.nema.org/medical/dicom/current/
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale, apply_voi_lut, pixel_array
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit

from pneumo.errors import PneumoError

MAX_PIXELS = 100_000_000
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


def read(path: Path, max_pixels: int = MAX_PIXELS) -> Film:
    """Read a DICOM file, or a PNG or JPEG picture (by its suffix). Raises FilmError, before decoding if it claims too many pixels."""
    if path.suffix.lower() in IMAGES:
        picture = _read_picture(path, max_pixels)
        return Film(pixels=picture, stored_shape=picture.shape)
    dataset = read_header(path, pixels=True)
    _check(path, dataset, max_pixels)
    tags = _tags(dataset)
    return Film(pixels=upright(_to_uint8(_decode(path, dataset), dataset), tags.orientation), **vars(tags))


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


def _tags(dataset: FileDataset) -> Tags:
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    return Tags(
        (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        uid=str(dataset.get("SOPInstanceUID", "")) or None,
        patient=str(dataset.get("PatientID", "")) or None,
        view=str(dataset.get("ViewPosition", "")) or None,
        spacing=(float(spacing[0]), float(spacing[1])) if spacing else None,
        orientation=_orientation(dataset),
    )


def read_header(path: Path, pixels: bool = False) -> FileDataset:
    """Read a DICOM file's tags, with pixel data only if asked for. Accepts files without preamble. Raises FilmError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # odd values in tags we do not use
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
            except InvalidDicomError:
                dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
                if "SOPClassUID" not in dataset or "Rows" not in dataset:
                    raise FilmError(f"{path}: not a DICOM file") from None
    except FilmError:
        raise
    except OSError as error:
        raise FilmError(f"{path}: {error.strerror or 'truncated or unreadable'}") from None
    except Exception as error:  # pydicom meets damaged files with many kinds of exception
        raise FilmError(f"{path}: damaged DICOM file ({_brief(error)})") from None
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # PS3.5 section 10: the default
    return dataset


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


def _check(path: Path, dataset: FileDataset, max_pixels: int) -> None:
    rows, columns, frames = (int(dataset.get(key) or default) for key, default in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1)))
    if not rows or not columns or "PixelData" not in dataset:
        raise FilmError(f"{path}: a DICOM file without an image")
    if frames > 1:
        raise FilmError(f"{path}: holds {frames} frames; a film has one")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise FilmError(f"{path}: a colour image; a film is grey")
    if rows * columns > max_pixels:
        raise FilmError(f"{path}: claims {rows} x {columns} pixels, more than data.max_megapixels={max_pixels // 1_000_000} allows")


def _decode(path: Path, dataset: FileDataset) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = "pillow" if syntax == JPEGBaseline8Bit else ""  # several times as fast as what pydicom would choose, same pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            array = pixel_array(dataset, decoding_plugin=plugin)
    except MemoryError:
        raise FilmError(f"{path}: not enough memory to decode it") from None
    except Exception as error:  # each decoder has its own kinds of exception
        package = PACKAGES.get(str(syntax))
        hint = f"; if it is not damaged, try: pip install {package}" if package else ""
        raise FilmError(f"{path}: cannot decode {syntax.name} ({syntax}): {_brief(error)}{hint}") from None
    if array.shape != (dataset.Rows, dataset.Columns):
        raise FilmError(f"{path}: {array.shape} pixels where the header says ({dataset.Rows}, {dataset.Columns})")
    return array


def _to_uint8(array: np.ndarray, dataset: FileDataset) -> np.ndarray:
    """Modality LUT, then VOI window, then polarity (PS3.3 C.11, C.7.6.3.1.2), then 8 bit.

    An 8-bit film without window stays as it is. Deeper films without a usable window are stretched between their
    0.1 and 99.9 percentiles: the range of stored bits says little about what is used of it.
    """
    values = apply_rescale(array, dataset)
    low, high = 0.0, 255.0
    plain = array.dtype == np.uint8 and dataset.BitsStored == 8 and values is array
    if "VOILUTSequence" in dataset or ("WindowCenter" in dataset and "WindowWidth" in dataset):
        windowed = np.asarray(apply_voi_lut(values, dataset), np.float64)
        low, high = float(windowed.min()), float(windowed.max())
        inside = (windowed > low) & (windowed < high)
        if inside.mean() > 0.2:  # else the window hides most of the film, and the film is stretched instead
            values, plain = windowed, False
        else:
            low, high = np.percentile(values, (0.1, 99.9)) if not plain else (0.0, 255.0)
    elif not plain:
        low, high = np.percentile(values, (0.1, 99.9))
    stretched = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    grey = array if plain else stretched.round().astype(np.uint8)
    return 255 - grey if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else grey


def _read_picture(path: Path, max_pixels: int) -> np.ndarray:
    """A PNG or JPEG mirror of a film, grey or grey stored as colour (RGB, RGBA, palette) → uint8 (rows, columns)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we check the size ourselves
            with Image.open(path) as picture:
                if picture.width * picture.height > max_pixels:
                    raise FilmError(f"{path}: {picture.height} x {picture.width} pixels, more than data.max_megapixels allows")
                if picture.mode.startswith("I") or picture.mode == "F":
                    deep = np.asarray(picture, np.float64)
                    top = 65535.0 if deep.max() > 255 else 255.0
                    return (deep / top * 255).round().astype(np.uint8)
                if picture.mode in ("L", "1"):
                    return np.asarray(picture.convert("L"))
                colours = np.asarray(picture.convert("RGB"))
    except FilmError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FilmError(f"{path}: not a readable picture ({_brief(error)})") from None
    if int(np.ptp(colours.astype(np.int16), axis=2).max()) > 8:
        raise FilmError(f"{path}: a colour picture; a film is grey")
    return np.ascontiguousarray(colours[..., 0])


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:117] + "..." if len(text) > 120 else text or type(error).__name__
