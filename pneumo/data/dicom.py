"""One film file → upright uint8 array, dark lungs and bright bones, plus the tags we use.

No other module reads DICOM files. The standard's section is PS3.3 C.7.6.3 (image pixel):
https://dicom.nema.org/medical/dicom/current/
"""

import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from pneumo.data import rendering, spacing
from pneumo.data.spacing import Spacing
from pneumo.errors import PneumoError, brief

# Limits against decompression bombs: small files that unpack to more than memory holds.
MAX_PIXELS = 100_000_000  # of one film
MAX_UNPACKED = 512 << 20  # bytes of one deflated DICOM file
MAX_BITS = 16  # of one stored pixel
PHANTOM = "PHANTOM-"  # what the PatientID of a film begins with that data/sources/phantom.py drew
IMAGES = (".png", ".jpg", ".jpeg")
# by content: a file of another kind may bear these suffixes, and Pillow runs Ghostscript for some
FORMATS = ("PNG", "JPEG")
# the packages that decode a transfer syntax which pydicom, numpy and Pillow cannot decode
PACKAGES = {
    "1.2.840.10008.1.2.4.51": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.57": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.70": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.80": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.81": "pylibjpeg pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
}

NAMING = ("SOPInstanceUID", "PatientID")  # tags that others ask for after a file was read

# terms of BodyPartExamined (PS3.16 annex L), by their words
CHEST_PARTS = {"CHEST", "THORAX", "LUNG", "LUNGS", "RIB", "RIBS", "STERNUM", "TSPINE", "TORSO"}
OTHER_PARTS = {
    *("ABDOMEN", "ANKLE", "ARM", "BLADDER", "BREAST", "CALCANEUS", "CALF", "CSPINE", "COCCYX"),
    *("ELBOW", "EXTREMITY", "EYE", "FEMUR", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HEEL"),
    *("HIP", "HUMERUS", "JAW", "KNEE", "LEG", "LSPINE", "MANDIBLE", "MAXILLA", "NECK", "NOSE"),
    *("ORBIT", "PELVIS", "RADIUS", "SACRUM", "SCALP", "SKULL", "SSPINE", "THIGH", "THUMB", "TIBIA"),
    *("TOE", "ULNA", "WRIST", "ZYGOMA"),
}


class FilmError(PneumoError):
    """A film that cannot be read: the message names the file, the reason and the way out."""


@dataclass
class Tags:
    """What we use of a file's tags.

    ``orientation`` is PatientOrientation as the file stores it, so that masks can be turned as the
    pixels are.
    """

    stored_shape: tuple[int, int]  # of the pixels in the file, before they are turned upright
    uid: str | None = None  # SOPInstanceUID
    patient: str | None = None
    view: str | None = None  # PA or AP
    spacing: Spacing | None = None  # of the upright film, if the header's is believed
    doubt: str = ""  # why it is not believed
    orientation: tuple[str, str] | None = None
    body_part: str | None = None  # BodyPartExamined
    sex: str | None = None  # PatientSex: F, M or O
    age: float | None = None  # PatientAge, in years
    modality: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the upright film."""
        rows, columns = self.stored_shape
        return (columns, rows) if _turns(self.orientation)[0] else (rows, columns)


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
        content: the file's bytes if they were read already; ``path`` is then only a name for
            messages, and a picture is known by these bytes.
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
        array = _decode(path, dataset)
        grey = array if _is_colour(dataset) else rendering.render(array, dataset)
        pixels = upright(grey, tags.orientation)
        del dataset.PixelData
    except FilmError:
        raise
    except MemoryError:
        raise FilmError(f"{path}: not enough memory to decode it") from None
    except Exception as error:  # the tags of damaged files may hold anything
        raise _damaged(path, error) from None
    return Film(pixels=pixels, header=dataset, **vars(tags))


def _damaged(path: Path, error: Exception) -> FilmError:
    return FilmError(f"{path}: damaged DICOM file ({type(error).__name__}: {brief(error)})")


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of odd values in tags, and of pictures whose size is checked elsewhere.

    Python keeps one list of what is ignored for all threads, so that threads which read films
    restore it for one another at the wrong time: whoever starts them does so within this, too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def is_picture(path: Path, content: bytes | None = None) -> bool:
    """Whether a file is a PNG or JPEG picture.

    It is known by its first bytes if they are given, else by its suffix.
    """
    if content is not None:
        return content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    return path.suffix.lower() in IMAGES


def is_marked(path: Path) -> bool:
    """Whether a file without a suffix bears DICOM's mark (archives export such files)."""
    # the last part of a name such as 1.2.840.113 is a number, not a suffix
    if path.suffix.strip(".0123456789"):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def looks_inverted(pixels: np.ndarray) -> bool:
    """Whether a chest film, uint8 (rows, columns), shows bright lungs instead of dark ones.

    The middle of the chest (spine, heart, vessels) is then darker than the lungs on either side by
    more than half the film's standard deviation. On the 71 challenge films at hand the middle is
    brighter by -0.03 to 2 standard deviations, 1.1 in the median.
    """
    small = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    lungs = (small[8:20, 6:11].mean() + small[8:20, 21:26].mean()) / 2
    return float(small[9:22, 14:18].mean() - lungs) < -0.5 * float(small.std())


def is_phantom(film: Film) -> bool:
    """Whether a film was drawn by this project."""
    return (film.patient or "").startswith(PHANTOM)


def read_tags(path: Path) -> Tags:
    """The tags alone, without decoding the pixels; a PNG or JPEG picture has only a shape.

    Raises FilmError.
    """
    if path.suffix.lower() in IMAGES:
        try:
            # no pixel is decoded here, so that a decompression bomb does no harm
            with quiet(), Image.open(path, formats=FORMATS) as picture:
                return Tags((picture.height, picture.width))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise FilmError(f"{path}: not a readable picture ({brief(error)})") from None
    dataset = read_header(path)
    try:
        return _tags(dataset)
    except Exception as error:  # the tags of damaged files may hold anything
        raise _damaged(path, error) from None


def _tags(dataset: FileDataset) -> Tags:
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    orientation = _orientation(dataset)
    claimed = upright_spacing(spacing.by_header(dataset), orientation)
    width = rows if _turns(orientation)[0] else columns
    doubt = spacing.doubt(claimed, width) if claimed else ""
    return Tags(
        (rows, columns),
        uid=str(dataset.get("SOPInstanceUID", "")) or None,
        patient=str(dataset.get("PatientID", "")) or None,
        view=str(dataset.get("ViewPosition", "")) or None,
        spacing=None if doubt else claimed,
        doubt=doubt,
        orientation=orientation,
        body_part=str(dataset.get("BodyPartExamined", "") or "") or None,
        sex=str(dataset.get("PatientSex", "") or "") or None,
        age=_age(str(dataset.get("PatientAge", "") or "")),
        modality=str(dataset.get("Modality", "") or "") or None,
    )


def _age(text: str) -> float | None:
    """Years, of PatientAge (PS3.5, AS: 038Y, 006M, …) or of a bare number of years."""
    told = re.fullmatch(r"\s*(\d{1,3})([YMWD]?)\s*", text)
    if told is None:
        return None
    years = int(told[1]) / {"M": 12, "W": 52.18, "D": 365.25}.get(told[2], 1)
    return years if years <= 120 else None  # some lists have ages of several hundred


def read_header(path: Path, pixels: bool = False, content: bytes | None = None) -> FileDataset:
    """Read a DICOM file's tags, with pixel data only if asked for.

    Accepts files without preamble. Raises FilmError.
    """

    def source() -> Path | BytesIO:
        return path if content is None else BytesIO(content)

    try:
        if pixels and content is None:
            content = path.read_bytes()
        _check_deflated(path, content)
        with quiet():
            try:
                dataset = pydicom.dcmread(source(), stop_before_pixels=not pixels)
            except InvalidDicomError:
                dataset = pydicom.dcmread(source(), stop_before_pixels=not pixels, force=True)
                if "SOPClassUID" not in dataset or "Rows" not in dataset:
                    raise FilmError(f"{path}: not a DICOM file") from None
            for key in NAMING:  # pydicom converts a value when it is asked for first
                dataset.get(key)
    except FilmError:
        raise
    except OSError as error:
        raise FilmError(f"{path}: {error.strerror or 'truncated or unreadable'}") from None
    except Exception as error:  # pydicom raises many kinds of exception on damaged files
        raise FilmError(f"{path}: damaged DICOM file ({brief(error)})") from None
    if "TransferSyntaxUID" not in dataset.file_meta:
        # the default transfer syntax (PS3.5 section 10)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def _check_deflated(path: Path, content: bytes | None) -> None:
    """Refuse a deflated DICOM file that would unpack to more than any film holds.

    The attack is a decompression bomb: a small file that fills the memory when it is unpacked, and
    pydicom unpacks such a file whole. The defence is to unpack it piece by piece beforehand,
    keeping nothing, and to stop at the limit.
    """
    if content is not None and DeflatedExplicitVRLittleEndian.encode() not in content:
        return  # its name is nowhere in the file
    try:
        with open(path, "rb") if content is None else BytesIO(content) as file:
            # as pydicom does, so that no file is deflated to it and plain to us; the deflated part
            # begins after the file meta group (PS3.10 section 7.1)
            with quiet():
                read_preamble(file, force=True)
                meta = _read_file_meta_info(file)
            if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
                return
            unpack, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
            while size <= MAX_UNPACKED and not unpack.eof and (packed := file.read(1 << 16)):
                while packed and not unpack.eof and size <= MAX_UNPACKED:
                    size += len(unpack.decompress(packed, 1 << 20))
                    packed = unpack.unconsumed_tail
    # pydicom raises many kinds of exception on damaged files
    except Exception:
        return  # a file that cannot be read is reported by whoever reads it next
    if size > MAX_UNPACKED:
        raise FilmError(
            f"{path}: a deflated file that unpacks to more than {MAX_UNPACKED >> 20} MiB"
        )


def upright(image: np.ndarray, orientation: tuple[str, str] | None) -> np.ndarray:
    """Bring a stored array into upright orientation.

    The patient's head is then up and the patient's left on the right. ``orientation`` is
    PatientOrientation (PS3.3 C.7.6.1.1.1): where rows and columns point, such as ('L', 'F') for a
    film that is upright already.
    """
    turned, mirrored, upside_down = _turns(orientation)
    if turned:
        image = image.T
    return np.ascontiguousarray(_flipped(image, mirrored, upside_down))


def stored(image: np.ndarray, orientation: tuple[str, str] | None) -> np.ndarray:
    """The inverse of ``upright``: from the upright film to the pixels as the file stores them."""
    turned, mirrored, upside_down = _turns(orientation)
    image = _flipped(image, mirrored, upside_down)
    return np.ascontiguousarray(image.T if turned else image)


def upright_spacing(
    stored_spacing: Spacing | None, orientation: tuple[str, str] | None
) -> Spacing | None:
    """The spacing of the upright film, from that of the pixels as the file stores them."""
    if stored_spacing is None or not _turns(orientation)[0]:
        return stored_spacing
    return stored_spacing.transposed


def _flipped(image: np.ndarray, mirrored: bool, upside_down: bool) -> np.ndarray:
    if upside_down:
        image = image[::-1]
    return image[:, ::-1] if mirrored else image


def is_turned(orientation: tuple[str, str] | None) -> bool:
    """Whether ``upright`` changes films of this PatientOrientation."""
    return any(_turns(orientation))


def other_body_part(tags: Tags) -> str | None:
    """BodyPartExamined, if it is one of the standard's terms for another part than the chest.

    Texts that are not among these terms say nothing: devices write what their users typed.
    """
    part = (tags.body_part or "").strip().upper()
    words = set(re.split(r"[^A-Z]+", part))
    return part if words & OTHER_PARTS and not words & CHEST_PARTS else None


def is_frontal(tags: Tags) -> bool | None:
    """Whether the tags say that a film is frontal; None if they do not say."""
    if (tags.view or "").upper() in ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD"):
        return False
    # rows or columns that point to the front or the back of the patient are those of a lateral film
    if tags.orientation and {direction[:1] for direction in tags.orientation} & {"A", "P"}:
        return False
    # an orientation that can be turned upright, or that is upright already, is a frontal film's
    if is_turned(tags.orientation) or tags.orientation == ("L", "F"):
        return True
    return None


def _turns(orientation: tuple[str, str] | None) -> tuple[bool, bool, bool]:
    """Whether an array must be transposed, then mirrored, then flipped top to bottom."""
    if not orientation:
        return False, False, False
    across, down = (direction[:1] for direction in orientation)
    if across in ("H", "F") and down in ("L", "R"):
        return True, down == "R", across == "H"
    if across in ("L", "R") and down in ("H", "F"):
        return False, across == "R", down == "H"
    return False, False, False  # unknown, or a lateral film


def _orientation(dataset: FileDataset) -> tuple[str, str] | None:
    value = dataset.get("PatientOrientation")
    if value and len(value) == 2 and all(value):
        return str(value[0]), str(value[1])
    return None


def _check(path: Path, dataset: FileDataset, max_pixels: int, colour: bool) -> None:
    rows = int(dataset.get("Rows") or 0)
    columns = int(dataset.get("Columns") or 0)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not rows or not columns or "PixelData" not in dataset:
        raise FilmError(f"{path}: a DICOM file without an image")
    if frames > 1:
        raise FilmError(f"{path}: holds {frames} frames; a film has one")
    if _is_colour(dataset) and not colour:
        raise FilmError(f"{path}: a colour image; a film is grey (colour=true takes its luminance)")
    if int(dataset.get("BitsAllocated") or 0) > MAX_BITS:
        raise FilmError(
            f"{path}: {dataset.BitsAllocated} bits a pixel; a radiograph has at most {MAX_BITS}"
        )
    # a decompression bomb may claim any number of pixels: refused before they are decoded
    if rows * columns > max_pixels:
        raise FilmError(
            f"{path}: claims {rows} x {columns} pixels, "
            f"more than data.max_megapixels={max_pixels // 1_000_000} allows"
        )


def _is_colour(dataset: FileDataset) -> bool:
    return (
        dataset.get("SamplesPerPixel", 1) != 1
        or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    )


def _decode(path: Path, dataset: FileDataset) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    # Pillow is several times as fast as the decoder that pydicom would choose, with the same pixels
    plugin = "pillow" if syntax == JPEGBaseline8Bit else ""
    try:
        with quiet():
            array = _grey_jpeg(dataset) if syntax == JPEGBaseline8Bit else None
            if array is None:
                array = pixel_array(dataset, decoding_plugin=plugin)
    except MemoryError:
        raise
    except Exception as error:  # each decoder has its own kinds of exception
        package = PACKAGES.get(str(syntax))
        hint = f"; if it is not damaged, try: pip install {package}" if package else ""
        raise FilmError(
            f"{path}: cannot decode {syntax.name} ({syntax}): {brief(error)}{hint}"
        ) from None
    if _is_colour(dataset):
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            array = apply_color_lut(array, dataset)
        if array.dtype.itemsize > 1 and int(array.max()) > 255:
            array = array >> 8
        array = array.astype(np.uint8)
        array = cv2.cvtColor(np.ascontiguousarray(array[..., :3]), cv2.COLOR_RGB2GRAY)
    if array.shape != (dataset.Rows, dataset.Columns):
        raise FilmError(
            f"{path}: {array.shape} pixels "
            f"where the header says ({dataset.Rows}, {dataset.Columns})"
        )
    return array


def _grey_jpeg(dataset: FileDataset) -> np.ndarray | None:
    """The pixels of a film as the challenge's are: 8-bit grey JPEG, as its header says.

    They are those of pydicom's ``pixel_array``, without its detours; None of any other film.
    """
    header = [dataset.get(key) for key in ("BitsAllocated", "BitsStored", "PixelRepresentation")]
    grey = dataset.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if header != [8, 8, 0] or not grey or dataset.get("SamplesPerPixel") != 1:
        return None
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    with Image.open(BytesIO(frame), formats=["JPEG"]) as picture:
        if picture.mode != "L" or picture.size != (dataset.Columns, dataset.Rows):
            return None
        return np.asarray(picture)


def _read_picture(path: Path, max_pixels: int, content: bytes | None, colour: bool) -> np.ndarray:
    """A PNG or JPEG mirror of a film → uint8 (rows, columns).

    It may be grey, or grey stored as colour (RGB, RGBA, palette).
    """
    try:
        source = path if content is None else BytesIO(content)
        with quiet(), Image.open(source, formats=FORMATS) as picture:
            # before any pixel of a decompression bomb is decoded
            if picture.width * picture.height > max_pixels:
                raise FilmError(
                    f"{path}: {picture.height} x {picture.width} pixels, "
                    "more than data.max_megapixels allows"
                )
            # turned by its Exif orientation, as every viewer shows it
            upright_picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith("I") or picture.mode == "F":
                deep = np.asarray(upright_picture, np.float64)
                low, high = 0.0, 255.0
                if deep.max() > 255:
                    # the file does not say whether it uses 10, 12 or 16 bits, so take the
                    # range that its pixels use
                    low, high = np.percentile(deep, (0.1, 99.9))
                return rendering.stretched(deep, low, high)
            if picture.mode in ("L", "1"):
                return np.asarray(upright_picture.convert("L"))
            colours = np.asarray(upright_picture.convert("RGB"))
    except FilmError:
        raise
    except MemoryError:
        raise FilmError(f"{path}: not enough memory to decode it") from None
    # Pillow's plugins raise many kinds of exception on damaged pictures
    except Exception as error:
        raise FilmError(f"{path}: not a readable picture ({brief(error)})") from None
    if colour:
        return cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    if int(np.ptp(colours.astype(np.int16), axis=2).max()) > 8:
        raise FilmError(
            f"{path}: a colour picture; a film is grey (colour=true takes its luminance)"
        )
    return np.ascontiguousarray(colours[..., 0])
