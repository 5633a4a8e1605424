"""The guard against patient identity leaking through the names of outputs.

Archives often name a film's file after the patient. Masks, pictures and tables are passed on more
freely than films, so a name that holds what the film's header says of the patient is not used for
them.
"""

import re
import unicodedata
from pathlib import Path

from pydicom.dataset import Dataset

from pneumo.data import dicom
from pneumo.data.dicom import Film

# the tags that tell who a patient is
IDENTIFYING = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "AccessionNumber",
    "OtherPatientIDs",
)


class OutputNames:
    """Names for outputs: the films' own, made safe and distinct.

    A film whose own name tells who the patient is gets a neutral one instead.
    """

    def __init__(self) -> None:
        self.used: set[str] = set()

    def of(self, source: str, film: Film) -> str:
        stem = Path(source).name
        suffix = Path(stem).suffix
        if suffix.lower() in (".dcm", ".dicom", *dicom.IMAGES):
            stem = stem[: -len(suffix)]
        # Against path traversal and hidden files: a member of an archive may have any name, so
        # separators are replaced and leading dots removed.
        safe = re.sub(r"[^\w.+-]+", "_", stem).strip("._")
        name = safe.encode()[:150].decode(errors="ignore")  # file systems allow 255 bytes
        if not name or identifies_patient(stem, film.header):
            name = "film"
        number, distinct = 1, name
        while distinct.casefold() in self.used:
            number += 1
            distinct = f"{name}-{number}"
        self.used.add(distinct.casefold())
        return distinct


def identifies_patient(name: str, header: Dataset | None) -> bool:
    """Whether a file's name tells who the patient is.

    It does if it holds what the file's header says of the patient: name, id, birth date or
    accession number. A part of these counts as held if it stands anywhere in the file's name; one
    of at most two Latin letters, which stand in many words, only as a word of its own.
    """
    if header is None:
        return False
    told: set[str] = set()
    for key in IDENTIFYING:
        text = str(header.get(key, "") or "")
        parts = re.split(r"[\^=\s,\\]+", text)
        # an id or a date may stand in the file's name without the separators between its parts, so
        # the whole of it counts, too
        if key != "PatientName":
            parts.append(text)
        for part in parts:
            told |= {_plain(part), _plain(transliterated(part))}
    told.discard("")
    spellings = (_plain(name), _plain(transliterated(name)))
    words = {_plain(word) for word in re.split(r"[\W_]+", name)}
    for part in told:
        if len(part) < 3 and part.isascii():
            held = part in words
        else:
            held = any(part in spelling for spelling in spellings)
        if held:
            return True
    return False


def _plain(text: str) -> str:
    """Letters and digits alone, in lower case, without accents."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in decomposed if character.isalnum())


def transliterated(text: str) -> str:
    """A text in lower case with its umlauts written as two letters, as where keys for them lack."""
    composed = unicodedata.normalize("NFC", text).casefold()
    return composed.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
