"""Tables of ids and patients, as people have them."""

import pytest
from data.dialects import as_people_save_it, dialects, ids, names
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumo.data import csv_files
from pneumo.errors import PneumoError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_nih_names_stand_for_their_patient(tmp_path):
    path = write(
        tmp_path / "p.csv", "Kaggle_ID,NIH_ID\na,00028864_007.png\nb,00028864_008.png\nc,me\n"
    )
    assert csv_files.read_patients(path) == {"a": "00028864", "b": "00028864", "c": "me"}


def test_ids_that_look_like_words_are_no_header(tmp_path):
    assert csv_files.read_patients(write(tmp_path / "p.csv", "ID_001.dcm,me\nID_002,you\n")) == {
        "ID_001": "me",
        "ID_002": "you",
    }


def test_a_patients_table_without_patients_names_the_line(tmp_path):
    with pytest.raises(PneumoError, match=r"p\.csv, line 3: expected image id and patient"):
        csv_files.read_patients(write(tmp_path / "p.csv", "id,patient\na,1\nb,\n"))


def test_sites_are_the_third_column_where_there_is_one(tmp_path):
    path = write(tmp_path / "p.csv", "image;patient;site\na.dcm;1;north\nb;2;\nc;3\n")
    assert csv_files.read_sites(path) == {"a": "north"}


def test_ids_of_a_sample_come_once_and_without_suffix(tmp_path):
    path = write(tmp_path / "s.csv", "ImageId,EncodedPixels\nb.PNG,-1\n1.2.3,-1\nb,-1\n")
    assert csv_files.read_ids(path) == ["b", "1.2.3"]


def test_records_are_cells_by_the_names_of_their_header(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("Image Index,Label,Note\n1.png, YES ,\n\n2.png,NO\n")
    assert list(csv_files.records(path)) == [
        (2, {"image index": "1.png", "label": "YES", "note": ""}),
        (4, {"image index": "2.png", "label": "NO"}),
    ]
    path.write_text("1.png,YES\n")
    with pytest.raises(PneumoError, match=r"labels\.csv: its first line must name its columns"):
        list(csv_files.records(path))


def test_patients_stand_in_columns_of_that_name_where_there_are_more_than_two(tmp_path):
    text = "Image Index,Finding Labels,Follow-up #,Patient ID\n00000001_000.png,Effusion,0,1\n"
    assert csv_files.read_patients(write(tmp_path / "nih.csv", text)) == {
        "00000001_000": "00000001"
    }
    text = "StudyID,ImageID,PatientID\ns,a.png,p7\ns,b.png,\n"
    assert csv_files.read_patients(write(tmp_path / "padchest.csv", text)) == {"a": "p7"}


def test_a_first_column_without_a_name_holds_row_numbers(tmp_path):
    path = write(tmp_path / "t.csv", ",Image Index,Label\n0,1.png,YES\n")
    assert csv_files.columns(path) == ["", "image index", "label"]
    assert list(csv_files.records(path)) == [(2, {"": "0", "image index": "1.png", "label": "YES"})]


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("00028864_007", "00028864"),
        ("patient64541_study1_view1_frontal", "patient64541"),
        ("CheXpert-v1.0/valid/patient64541/study1/view1_frontal", "patient64541"),
        ("inpatient12/film", None),
        ("film", None),
    ],
)
def test_names_of_nih_and_chexpert_tell_the_patient(name, patient):
    assert csv_files.patient_in(name) == patient


def test_a_table_of_named_columns_tells_patients_and_no_sites(tmp_path):
    """NIH's Data_Entry_2017: the third column is no site, and the file name knows the patient."""
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID\n00000001_002.png,Mass,2,1\n"
    )
    assert csv_files.read_patients(path) == {"00000001_002": "00000001"}
    assert csv_files.read_sites(path) == {}
    path.write_text("ImageID,PatientID,Site\na,p,north\nb,q,\n")
    assert csv_files.read_patients(path) == {"a": "p", "b": "q"}
    assert csv_files.read_sites(path) == {"a": "north"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.csv"


@settings(max_examples=25)
@given(st.dictionaries(ids, names, min_size=1, max_size=5), st.booleans(), dialects)
def test_a_table_of_patients_says_the_same_in_every_dialect(place, patients, has_header, dialect):
    rows = [["image", "patient"]] * has_header + [*map(list, patients.items())]
    if not has_header:  # its first line tells what sets cells apart, so nothing else stands in it
        first = next(iter(patients))
        patients = {**patients, first: "p1"}
        rows = [*map(list, patients.items())]
    place.write_bytes(as_people_save_it(rows, *dialect))
    assert csv_files.read_patients(place) == patients
    assert [cells for _, cells in csv_files.rows(place, table=False)] == [
        list(row) for row in patients.items()
    ]
