"""Names of outputs tell nothing of the patient."""

import hashlib

import numpy as np
import pytest
from conftest import write_film
from inference.stand_ins import edited

from pneumo.data import dicom
from pneumo.inference import findings
from pneumo.inference.privacy import OutputNames
from pneumo.inference.settings import Use


def test_names_tell_nothing_of_the_patient(film):
    names = OutputNames()

    def name(*film):
        return names.distinct(names.own(*film))

    doe = edited(film, PatientName="Doe^John", PatientID="4711-08")
    film_of_doe = findings.read("x", doe, Use()).film
    uid = film_of_doe.uid
    assert name("DOE_chest.dcm", film_of_doe, doe) == uid
    assert name("471108.dcm", film_of_doe, doe) == f"{uid}-2"
    assert name("chest pa.dcm", film_of_doe, doe) == "chest_pa"
    assert name("other/Chest PA.dcm", film_of_doe, doe) == "Chest_PA-2"
    assert names.renamed == 2
    assert len(name("я" * 200 + ".dcm", film_of_doe, doe).encode()) <= 150
    assert OutputNames(keep=True).own("DOE_chest.dcm", film_of_doe, doe) == "DOE_chest"
    film_of_doe.uid = "4711.08"  # an id that holds the patient's own
    digest = hashlib.sha256(doe).hexdigest()[:12]
    assert OutputNames().own("DOE_chest.dcm", film_of_doe, doe) == f"film-{digest}"
    assert OutputNames().shown("archive/Doe/1.dcm", doe) == f"film-{digest}"
    assert OutputNames().shown("archive/1.dcm", doe) == "archive/1.dcm"


@pytest.mark.parametrize(
    ("patient", "file"),
    [
        (
            {"PatientName": "Yamada^Tarou=山田^太郎", "SpecificCharacterSet": "ISO_IR 192"},
            "山田太郎.dcm",
        ),
        ({"PatientName": "Wu^Li"}, "LI_WU_17.dcm"),
        ({"PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 192"}, "Mueller.dcm"),
        ({"PatientBirthDate": "19800203"}, "19800203_F.dcm"),
        ({"AccessionNumber": "A-77123"}, "a77123-pa.dcm"),
    ],
)
def test_names_in_other_spellings_tell_nothing_either(film, patient, file):
    content = edited(film, **patient)
    found = findings.read("x", content, Use()).film
    assert OutputNames().own(file, found, content) == found.uid


def test_neither_what_is_written_nor_what_is_printed_names_the_patient(tmp_path):
    """Of a film that is judged, and of one that cannot be."""
    tags = {"PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 192"}
    path = write_film(tmp_path / "a.dcm", np.zeros((8, 8), np.uint8), **tags)
    film, content = dicom.read(path), path.read_bytes()
    names = OutputNames()
    for told in ("mueller.dcm", "Chest Muller.dcm", "Jörg_1.dcm"):
        assert names.own(told, film, content).startswith(film.uid)
        shown = names.shown(f"archive/{told}", content)
        assert shown == f"film-{hashlib.sha256(content).hexdigest()[:12]}"
        assert OutputNames(keep=True).shown(f"archive/{told}", content) == f"archive/{told}"
    assert names.shown("archive/1.dcm", content) == "archive/1.dcm"
    # some file systems know no capitals
    same = [
        names.distinct(names.own(name, film, content))
        for name in ("chest.dcm", "Chest.dcm", "CHEST.dcm")
    ]
    assert same == ["chest", "Chest-2", "CHEST-3"]
