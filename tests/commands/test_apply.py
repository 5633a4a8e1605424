"""A bundle on any films, by the command as a whole; tests/inference/ has the parts."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import complaint, launch
from PIL import Image

from pneumo.data import dicom
from pneumo.data.sources import siim
from pneumo.inference.settings import Save
from pneumo.masks import rle
from pneumo.masks.settings import Postprocess, Rule


def test_the_command_on_everything_at_once(model, film, tmp_path):
    """Folders, a zip, a picture, a name of non-Latin letters, and files that are no films."""
    folder = tmp_path / "фильмы и снимки"
    folder.mkdir()
    shutil.copy(film, folder / "气胸 1.dcm")
    (folder / "notes.txt").write_text("not a film")
    (folder / "broken.dcm").write_bytes(film.read_bytes()[:3000])
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(film, "in/one.dcm")
    picture = tmp_path / "two.png"
    Image.fromarray(dicom.read(film).pixels).save(picture)
    colour = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(
        colour
    )
    (folder / "loop").symlink_to(folder)
    asked = f"input=['{folder}',{tmp_path / 'films.zip'},{picture},{colour}]"
    switches = ("save.segmentation=true", "save.capture=true", "save.report=true")
    done = launch(
        tmp_path, f"model={model}", asked, "out=masks", *switches, module="pneumo.predict"
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: 2 of 5 films could not be used (listed above)"]
    assert "Passed over: 1 other file (" in done.stdout
    assert "broken.dcm: " in done.stdout
    assert "photo.jpg: a colour picture" in done.stdout
    out = tmp_path / "masks"
    with open(out / "films.csv", newline="") as file:
        rows = {row["film"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == ["one", "two", "气胸_1"]
    lines = json.loads((out / "films.json").read_text())
    assert [one["film"] for one in lines["films"]] == list(rows)
    assert len(lines["failed"]) == 2
    runs = {
        image: siim.Table(out, found).masks(image)
        for image, found in siim.read_table(out / "rle.csv").rows.items()
        for found in [{image: found}]
    }
    for name, row in rows.items():
        mask = cv2.imread(str(out / f"{name}-mask.png"), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).sum() == int(row["area_px"])
        assert np.array_equal(rle.union(runs[name], mask.shape), mask // 255)
        assert cv2.imread(str(out / f"{name}-overlay.png"), cv2.IMREAD_UNCHANGED).shape == (
            1024,
            1024,
            3,
        )
    assert sorted(path.name for path in out.glob("*.dcm")) == sorted(
        f"{n}-{k}.dcm" for n in ("one", "气胸_1") for k in ("seg", "overlay", "report")
    )
    for row in rows.values():
        assert len(row["sha256"]) == 64
        assert Path(row["source"]).name
    plain = launch(
        tmp_path,
        f"model={model}",
        f"input={folder / '气胸 1.dcm'}",
        "out=other masks",
        module="pneumo.predict",
    )
    assert plain.returncode == 0, plain.stderr
    assert (tmp_path / "other masks" / "气胸_1-mask.png").is_file()
    assert "out=" in complaint(
        launch(tmp_path, f"model={model}", "input=masks", "out=masks", module="pneumo.predict")
    )
    assert "colour" not in complaint(
        launch(tmp_path, f"model={model}", "input=/absent", module="pneumo.predict")
    )


@pytest.mark.slow
def test_every_real_film_is_right_or_one_line(model, real_data, tmp_path):
    done = launch(
        tmp_path,
        f"model={model}",
        f"input=[{real_data / 'siim'},{real_data / 'films'}]",
        "out=masks",
        "unsuitable=use",
        module="pneumo.predict",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"^failed: .*JPEG Extended", done.stdout, re.MULTILINE)
    with open(tmp_path / "masks" / "films.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 71 + 8
    tibiae = [row for row in rows if "BodyPartExamined EXTREMITY" in row["notes"]]
    assert len(tibiae) >= 4
    assert all(row["notes"].startswith("NOT SUITABLE: not a chest") for row in tibiae)
    assert all("trained on drawn phantoms" in row["notes"] for row in rows)
    assert not list((tmp_path / "masks").glob("*.partial"))


def test_a_typed_rule_and_model_and_run_together(model, finished):
    assert "both set" in complaint(
        launch(finished[0], f"model={model}", "run=x", "input=y", module="pneumo.predict")
    )
    assert Rule(binarization_threshold=0.3).over(Postprocess(0.5)).binarization_threshold == 0.3
    assert Save().overlay
