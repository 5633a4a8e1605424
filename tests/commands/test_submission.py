"""What a user sees of ``python -m pneumo.submission``."""

import csv

import pytest
from conftest import complaint, launch


@pytest.mark.slow
def test_the_command_writes_the_challenge_s_file(finished, real_data, tmp_path):
    """From a run to a file for real films, with the sample submission of the round-1 test set."""
    sample = real_data / "siim" / "stage_1_sample_submission.csv"
    films = real_data / "siim" / "dicom-images-train"
    arguments = (
        "run=runs/exp5_stage1/*/*",
        f"on={films}",
        f"sample={sample}",
        f"out={tmp_path / 'submission.csv'}",
    )
    assert "on_error=skip" in complaint(launch(finished[0], *arguments, module="pneumo.submission"))
    done = launch(finished[0], *arguments, "on_error=skip", module="pneumo.submission")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "submission.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["ImageId"] for row in rows}) == 1372
    assert "1,372 images" in done.stdout
