"""The guard that keeps patients' identity out of the names of outputs."""

import re
import unicodedata
from pathlib import Path

from pydicom.dataset import Dataset

from pneumo.data import dicom
from pneumo.data.dicom import Film


class OutputNames:
    """Names for outputs: the film's own, made safe and distinct, without what its header says of the patient."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def of(self, source: str, film: Film) -> str:
        stem = Path(source).name
        stem = (
            stem[: -len(Path(stem).suffix)]
            if Path(stem).suffix.lower() in (".dcm", ".dicom", *dicom.IMAGES)
            else stem
        )
        name = (
            re.sub(r"[^\w.+-]+", "_", stem).strip("._").encode()[:150].decode(errors="ignore")
            or "film"
        )
        if identifies_patient(stem, film.header):
            name = "film"
        number, distinct = 1, name
        while distinct.casefold() in self.used:
            number += 1
            distinct = f"{name}-{number}"
        self.used.add(distinct.casefold())
        return distinct


def identifies_patient(name: str, header: Dataset | None) -> bool:
    """Whether a file's name holds what its header says of the patient: name, id, birth date or accession number.

    A part of a name counts as held if it stands in the file's name, or, of at most two Latin letters, as a word of its own.
    """
    if header is None:
        return False
    told = [
        str(header.get(key, "") or "")
        for key in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "AccessionNumber",
            "OtherPatientIDs",
        )
    ]
    parts = {part for text in told for part in re.split(r"[\^=\s,\\]+", text)} | set(told[1:])
    variants = {_plain(spelled) for part in parts for spelled in (part, transliterated(part))} - {
        ""
    }
    whole = {_plain(name), _plain(transliterated(name))}
    words = {_plain(word) for word in re.split(r"[\W_]+", name)}
    return any(
        part in words if len(part) < 3 and part.isascii() else any(part in one for one in whole)
        for part in variants
    )


def _plain(text: str) -> str:
    """Letters and digits alone, in lower case, without accents."""
    return "".join(one for one in unicodedata.normalize("NFKD", text).casefold() if one.isalnum())


def transliterated(text: str) -> str:
    """Umlauts as they are written where there are none."""
    composed = unicodedata.normalize("NFC", text).casefold()
    return composed.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
