"""Which files are films, and whose."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_film

from pneumo.data import csv_files
from pneumo.data.films import Index, Item, patients_from_films, read_folder
from pneumo.data.settings import OnError, SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError


def index(root, table, **options):
    return siim.read_index(SiimData(name="siim", root=str(root), annotations=str(table), **options))


def test_dicom_files_without_a_suffix_are_films_too(phantoms, tmp_path):
    index = siim.read_index(
        SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    )
    (tmp_path / "LICENSE").write_text("no film")
    for item in index.items[:3]:
        shutil.copy(item.path, tmp_path / item.id)
    again = siim.read_index(
        SiimData(
            name="siim",
            root=str(tmp_path),
            annotations=str(phantoms / "train-rle.csv"),
            on_missing=OnError.skip,
        )
    )
    assert [item.id for item in again.items] == [item.id for item in index.items[:3]]
    assert {item.id for item in read_folder(tmp_path)} == {item.id for item in index.items[:3]}


def test_repeated_patient_ids_group_films(phantoms):
    found = index(phantoms, phantoms / "train-rle.csv")
    assert patients_from_films(found.items) == csv_files.read_patients(phantoms / "patients.csv")
    alone = list({patients_from_films(found.items)[item.id]: item for item in found.items}.values())
    assert (
        patients_from_films(alone) == {}
    )  # one film a patient, as in the challenge's files: tells nothing


@pytest.mark.parametrize(
    ("ids", "patients"),
    [
        (["ANON"] * 6, {}),
        (["ANON"] * 5 + ["P7"], {}),
        (["P1", "P2", "P3"], {}),
        (["P1", "P1", "P2", "P3", ""], {0: "P1", 1: "P1", 2: "P2", 3: "P3"}),
        (["P1"] * 4 + ["P2", "P3"], dict(enumerate(["P1"] * 4 + ["P2", "P3"]))),
    ],
    ids=["placeholder", "placeholder but one", "one a film", "repeated", "many of one"],
)
def test_a_placeholder_in_place_of_patient_ids_tells_nothing_of_patients(tmp_path, ids, patients):
    items = []
    for number, patient in enumerate(ids):
        path = write_film(tmp_path / f"{number}.dcm", np.zeros((8, 8), np.uint8), PatientID=patient)
        items.append(Item(str(number), path, []))
    assert patients_from_films(items) == {str(place): name for place, name in patients.items()}


def test_two_films_of_one_name_are_refused_since_their_masks_would_be_one(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "film.png").touch()
    with pytest.raises(PneumoError, match=r"b/film\.png: has the same name as .*a/film\.png"):
        read_folder(tmp_path)


def test_what_an_index_holds_is_told_with_reasons():
    items = [Item("1", Path("1.dcm"), ["5 2"], "p"), Item("2", Path("2.dcm"), [], "p")]
    told = Index(items, {"too dark": ["a", "b", "c"]}).describe(cases=2)
    assert told.splitlines() == [
        *("2  films on disk", "1  of them positive", "1  patients on disk", ""),
        *("Left aside, too dark: 3", "  a", "  b", "  … and 1 more (all with verbose=true)"),
    ]
