"""A bundle on any films: the same masks as the run it was made of."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pydicom
import pytest
from conftest import launch
from inference.stand_ins import SHRUNK, comment, edited

from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.inference import applying
from pneumo.inference.settings import Predict, Save, Unsuitable
from pneumo.masks import rle
from pneumo.masks.settings import Rule


@pytest.mark.slow
def test_the_same_submission_from_bundle_and_run(model, finished, real_data, tmp_path):
    """The challenge's films through the bundle, and through the run: the same run lengths."""
    films = real_data / "siim" / "dicom-images-train"
    done = launch(
        finished[0],
        "run=runs/exp5/*/*",
        f"on={films}",
        f"out={tmp_path / 'run.csv'}",
        module="pneumo.submission",
    )
    assert done.returncode == 0, done.stderr
    for engine in ("torch", "onnx"):
        applying.apply(
            Predict(model=str(model), input=str(films), out=str(tmp_path / engine), engine=engine)
        )
        ours, theirs = (
            siim.read_table(path).rows
            for path in (tmp_path / engine / "rle.csv", tmp_path / "run.csv")
        )
        assert ours.keys() == theirs.keys()
        for image in ours:
            mask, expected = (rle.decode(table[image][0].text) for table in (ours, theirs))
            # ONNX Runtime adds up in another order: a pixel at a level's border may differ
            assert np.count_nonzero(mask != expected) <= (8 if engine == "onnx" else 0), image


def test_a_table_gives_the_millimetres_that_the_header_lacks(model, film, tmp_path):
    path = tmp_path / "shrunk.dcm"
    path.write_bytes(edited(film, **SHRUNK))
    (tmp_path / "entry.csv").write_text("image,width,height,spacing\n1_000.png,3056,2544,0.139\n")
    (tmp_path / "names.csv").write_text("id,nih\nshrunk,1_000.png\n")
    tables = {
        "spacing": str(tmp_path / "entry.csv"),
        "spacing_names": str(tmp_path / "names.csv"),
    }

    def applied(name, **table):
        """The film's line in the table, and its report."""
        settings = Predict(
            model=str(model),
            input=str(path),
            out=str(tmp_path / name),
            unsuitable=Unsuitable.use,
            postprocess=Rule(binarization_threshold=0.01, removal_threshold=0),
            save=Save(report=True),
            **table,
        )
        applying.apply(settings)
        lines = (tmp_path / name / "films.csv").read_text(encoding="utf-8").splitlines()
        (row,) = csv.DictReader(lines)
        return row, pydicom.dcmread(tmp_path / name / "shrunk-report.dcm")

    row, report = applied("without")
    assert (row["area_mm2"], row["mm_plane"]) == ("", "")
    assert "no mm²: by its header it is 142 mm wide" in row["notes"]
    assert "No mm²: by its header it is 142 mm wide" in comment(report)
    assert "mm2" not in str(report)  # the unit's code
    row, report = applied("with", **tables)
    true = (0.139 * 2544 / 1024) * (0.139 * 3056 / 1024)
    assert float(row["area_mm2"]) == pytest.approx(int(row["area_px"]) * true, abs=0.1)
    assert row["mm_plane"] == "plane not stated"
    assert "mm²" not in row["notes"]
    assert comment(report).endswith("mm²: plane not stated.")
    assert "mm2" in str(report)


def test_films_that_fail_cost_the_others_nothing(model, film, tmp_path):
    films, out = tmp_path / "films", tmp_path / "masks"
    films.mkdir()
    shutil.copy(film, films / "good.dcm")
    (films / "broken.dcm").write_bytes(film.read_bytes()[:3000])
    with pytest.raises(PneumoError, match="1 of 2 films could not be used"):
        applying.apply(Predict(model=str(model), input=str(films), out=str(out)))
    lines = json.loads((out / "films.json").read_text())
    (row,), (failed,) = lines["films"], lines["failed"]
    assert (row["film"], failed["film"]) == ("good", str(films / "broken.dcm"))
    assert row["sha256"] == hashlib.sha256(film.read_bytes()).hexdigest()
    (image, text) = (out / "rle.csv").read_text().splitlines()[1].split(",")
    assert (image, rle.decode(text).sum()) == ("good", row["area_px"])


def test_nothing_to_do_leaves_no_folder(model, tmp_path):

    films = tmp_path / "films"
    films.mkdir()
    with pytest.raises(PneumoError, match="no films in"):
        applying.apply(Predict(model=str(model), input=str(films), out=str(tmp_path / "masks")))
    assert not (tmp_path / "masks").exists()
