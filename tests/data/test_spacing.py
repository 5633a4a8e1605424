import csv
import gzip

import numpy as np
import pytest
from conftest import write_film
from pydicom.dataset import Dataset

from pneumo.data import csv_files, dicom, spacing
from pneumo.data.films import find_films, name_of
from pneumo.data.spacing import Plane, Spacing
from pneumo.errors import PneumoError


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.3, 0.4]}, Spacing(0.3, 0.4, Plane.unstated)),
        ({"ImagerPixelSpacing": [0.3, 0.4]}, Spacing(0.3, 0.4, Plane.detector)),
        ({"NominalScannedPixelSpacing": [0.3, 0.4]}, Spacing(0.3, 0.4, Plane.detector)),
        (
            {"PixelSpacing": [0.3, 0.4], "ImagerPixelSpacing": [0.3, 0.4]},
            Spacing(0.3, 0.4, Plane.detector),
        ),
        (
            {"PixelSpacing": [0.25, 0.35], "ImagerPixelSpacing": [0.3, 0.4]},
            Spacing(0.25, 0.35, Plane.patient),
        ),
        (
            {"PixelSpacing": [0.3, 0.4], "PixelSpacingCalibrationType": "FIDUCIAL"},
            Spacing(0.3, 0.4, Plane.patient),
        ),
        (
            {"ImagerPixelSpacing": [0.3, 0.4], "EstimatedRadiographicMagnificationFactor": 1.25},
            Spacing(0.24, 0.32, Plane.patient),
        ),
        # a calibrated spacing is divided no more
        (
            {
                "PixelSpacing": [0.25, 0.35],
                "ImagerPixelSpacing": [0.3, 0.4],
                "EstimatedRadiographicMagnificationFactor": 1.25,
            },
            Spacing(0.25, 0.35, Plane.patient),
        ),
        # a factor that makes the body larger than its shadow is none
        (
            {"ImagerPixelSpacing": [0.3, 0.4], "EstimatedRadiographicMagnificationFactor": 0.8},
            Spacing(0.3, 0.4, Plane.detector),
        ),
        ({"PixelSpacing": [0, 0]}, None),
        (
            {"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.3, 0.4]},
            Spacing(0.3, 0.4, Plane.detector),
        ),
    ],
)
def test_tags_mean_what_the_standard_says(tags, expected):
    dataset = Dataset()
    for key, value in tags.items():
        setattr(dataset, key, value)
    assert spacing.by_header(dataset) == expected


@pytest.mark.parametrize(
    ("mm", "believed"),
    [(0.139, False), (2.4, False), (2.5, True), (4.2, True), (6.0, True), (6.1, False)],
)
def test_a_film_too_narrow_or_too_wide_for_a_chest_is_not_believed(tmp_path, mm, believed):
    pixels = np.zeros((80, 100), np.uint8)
    film = dicom.read(write_film(tmp_path / "a.dcm", pixels, PixelSpacing=[mm, mm]))
    assert (film.spacing is not None) == believed
    assert (film.doubt == "") == believed
    if not believed:
        assert f"is {100 * mm:.0f} mm wide" in film.doubt


def test_the_spacing_is_that_of_the_upright_film(tmp_path):
    tags = {"PixelSpacing": [3, 2], "PatientOrientation": ["F", "L"]}
    film = dicom.read(write_film(tmp_path / "a.dcm", np.zeros((90, 210), np.uint8), **tags))
    assert film.pixels.shape == (210, 90)
    assert film.spacing == Spacing(2, 3)  # 270 mm wide, not 630


NIH_2017 = """\
Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],
00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.171,
"""
NIH_2020 = """\
Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\
OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y
00000001_000.png,Cardiomegaly|Emphysema,0,1,57,M,PA,2682,2749,0.143,0.171
"""


@pytest.mark.parametrize("text", [NIH_2017, NIH_2020])
def test_nih_entries_give_the_spacing_of_the_shrunk_film(tmp_path, text):
    """Shrunk to a square, so that rows and columns are scaled apart."""
    (tmp_path / "entry.csv").write_text(text)
    (tmp_path / "names.csv").write_text("Kaggle_ID,NIH_ID\n1.2.3,00000001_000.png\n1.2.4,0_0.png\n")
    entries = spacing.read_table(tmp_path / "entry.csv", tmp_path / "names.csv")
    assert set(entries) == {"00000001_000", "1.2.3"}
    found = entries["1.2.3"].at((1024, 1024))
    assert found == Spacing(pytest.approx(0.171 * 2749 / 1024), pytest.approx(0.143 * 2682 / 1024))


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("film;spacing\na.dcm;0.4\n")
    assert spacing.read_table(path)["a"].at((10, 20)) == Spacing(0.4, 0.4)
    path.write_text("film,column_spacing,row_spacing\na.png,0.2,0.4\n")
    assert spacing.read_table(path)["a"].at((10, 20)) == Spacing(0.4, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("film,size\na,3\n", "columns film, size; expected id, spacing"),
        ("film,spacing,width\na,0.3,3\n", "expected id, spacing"),
        ("a,0.3\n", "columns without names"),
        ("film,spacing\na,0.3\nb,wide\n", "line 3: no spacing in mm"),
        ("film,spacing\na,0.3\nb\n", "line 3: no spacing in mm"),
        ("film,spacing\na,300\n", "line 2: no spacing in mm"),
        ("film,spacing,width,height\na,0.3,0,9\n", "line 2: no spacing in mm, or no size"),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(PneumoError, match=message):
        spacing.read_table(path)


def test_the_challenges_films_claim_no_millimetres_by_their_headers(real_data):
    paths = find_films(real_data / "siim" / "dicom-images-train")
    paths += find_films(real_data / "siim" / "png")
    assert len(paths) == 71
    assert all(dicom.read_tags(path).spacing is None for path in paths)


def test_the_challenges_films_are_as_wide_as_films_are_by_nihs_table(real_data, tmp_path):
    """The true spacing of README beside the table, and what the 71 films then measure across."""
    original = real_data / "second_readers" / "nih_entry.csv.gz"
    if not original.is_file():
        pytest.skip("no table of original sizes")
    entries = spacing.read_table(original)
    with gzip.open(original, "rt") as file:
        for row in csv.DictReader(file):
            found = entries[row["ImageId"]].at((1024, 1024))
            assert found.columns == pytest.approx(float(row["true_spacing_mm"]), abs=1e-4)
    widths = sorted(1024 * entry.at((1024, 1024)).columns for entry in entries.values())
    assert np.median(widths) == pytest.approx(420, abs=0.5)
    assert sum(width < spacing.BELIEVED[0] for width in widths) == 3  # children of 0, 2 and 6 years
    paths = find_films(real_data / "siim" / "dicom-images-train")
    paths += find_films(real_data / "siim" / "png")
    of_71 = [1024 * entries[name_of(path)].at((1024, 1024)).columns for path in paths]
    assert np.median(of_71) == pytest.approx(420, abs=1)


def test_names_may_have_a_files_suffix(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("id,name\n1.2.3.dcm,00000001_000.png\n")
    assert csv_files.read_names(path) == {"1.2.3": "00000001_000"}
    assert csv_files.read_patients(path) == {"1.2.3": "00000001"}
