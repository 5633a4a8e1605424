"""What a user sees of ``python -m pneumo.readers``."""

import json

import pytest
from conftest import say


@pytest.fixture
def place(tmp_path):
    """A table of two films, their NIH names, and Google's labels of both."""
    (tmp_path / "table.csv").write_text("ImageId, EncodedPixels\na,5 3\nb,-1\n")
    (tmp_path / "ids.csv").write_text("Kaggle_ID,NIH_ID\na,00000003_003.png\nb,00000004_000.png\n")
    (tmp_path / "google.csv").write_text(
        "Image Index,Pneumothorax\n00000003_003.png,NO\n00000004_000.png,NO\n"
    )
    return tmp_path


GIVEN = ("annotations=table.csv", "patients=ids.csv")


def test_a_reader_is_shown_and_written(place, monkeypatch):
    status, out, errors = say("readers", [*GIVEN, "google=google.csv"], place, monkeypatch)
    assert (status, errors) == (0, "")
    assert '1 of the table\'s 1 positives are called "no", 0 of its 1 negatives "yes"' in out
    assert "written: runs/readers.json" in out
    (one,) = json.loads((place / "runs" / "readers.json").read_text())
    assert (one["reader"], one["films"], one["marked"]) == ("Google", 2, 0)


@pytest.mark.parametrize("files", ["chestx_det=[one.json,two.json]", "chestx_det=???.json"])
def test_several_files_of_one_reader_are_a_list_or_a_pattern(place, monkeypatch, files):
    square = [[0, 0], [0, 9], [9, 9]]
    for path, name in (("one", "36199.png"), ("two", "36200.png")):
        film = {"file_name": name, "syms": ["Pneumothorax"], "polygons": [square]}
        (place / f"{path}.json").write_text(json.dumps([film]))
    status, out, errors = say("readers", [*GIVEN, files, "resamples=9"], place, monkeypatch)
    assert (status, errors) == (0, "")
    assert "ChestX-Det: 2 films of 2 patients are in both" in out
    assert "with a mask in the table 1, by the reader 2, by both 1" in out
    assert "Dice at 50.00 % positive" in out
    assert "empty masks alone: 0.5000" in out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([*GIVEN], "no reader is given"),
        (["google=google.csv", GIVEN[0]], "patients is not set"),
        (["google=google.csv", GIVEN[1]], "annotations is not set"),
        ([*GIVEN, "google=absent*.csv"], "absent*.csv: no such file"),
        ([*GIVEN, "google=google.csv", "share=1"], "share=1.0: must be between 0 and 1"),
    ],
)
def test_what_is_missing_is_said_in_one_line(place, monkeypatch, typed, message):
    status, _, errors = say("readers", typed, place, monkeypatch)
    assert status == 1
    assert errors.startswith("error: ")
    assert message in errors
    assert len(errors.splitlines()) == 1
