"""The guard against patient identity leaking through the names of outputs.

Archives often name a film's file after the patient. Masks, pictures and tables are passed on more
freely than films, so a name that holds what the film's header says of the patient is not used for
them.
"""

import hashlib
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

    A film whose own name tells who the patient is gets its SOPInstanceUID instead, a picture or a
    film without one a digest of its content, so that the table joins both.
    """

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep
        self.used: set[str] = set()
        self.renamed = 0  # films that did not keep their names

    def own(self, source: str, film: Film, content: bytes) -> str:
        """The safe name of a film of the file ``source``; others may have the same."""
        stem = Path(source).name
        suffix = Path(stem).suffix
        if suffix.lower() in (".dcm", ".dicom", *dicom.IMAGES):
            stem = stem[: -len(suffix)]
        # Against path traversal and hidden files: a member of an archive may have any name, so
        # separators are replaced and leading dots removed. Against CSV injection: so are leading
        # signs, with which formulas begin.
        safe = re.sub(r"[^\w.+-]+", "_", stem).strip("._").lstrip("._+-")
        name = safe.encode()[:150].decode(errors="ignore")  # file systems allow 255 bytes
        if not name or self.hides(stem, film.header):
            name = neutral_name(film, content)
            self.renamed += 1
        return name

    def distinct(self, name: str) -> str:
        """A name, with a number where films before have it."""
        number, distinct = 1, name
        while distinct.casefold() in self.used:
            number += 1
            distinct = f"{name}-{number}"
        self.used.add(distinct.casefold())
        return distinct

    def hides(self, name: str, header: Dataset | None) -> bool:
        """Whether a name or path is not to be passed on."""
        return not self.keep and identifies_patient(name, header)

    def shown(self, path: str, content: bytes) -> str:
        """What is printed of a file that could not be used: its path, if that tells nothing.

        Of a file whose header cannot be read nothing is known of the patient; its path is printed.
        """
        try:
            header = None
            if not dicom.is_picture(Path(path), content):
                header = dicom.read_header(Path(path), content=content)
        except dicom.FilmError:
            header = None
        return neutral_name(None, content) if self.hides(path, header) else path


def neutral_name(film: Film | None, content: bytes) -> str:
    """A name that tells nothing of the patient: the film's UID, else a digest of its bytes."""
    if film is not None and re.fullmatch(r"[0-9.]{1,64}", film.uid or ""):
        uid = str(film.uid)
        if not identifies_patient(uid, film.header):
            return uid
    return f"film-{hashlib.sha256(content).hexdigest()[:12]}"


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
        try:
            text = str(header.get(key, "") or "")
        except Exception:  # pydicom raises many kinds of exception on values it cannot read
            continue
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
