"""What is written for a film, and the tables of all."""

import csv
import io
import json
from types import SimpleNamespace

import cv2
import numpy as np
from inference.stand_ins import Bright, finding
from PIL import Image

from pneumo.inference import outputs
from pneumo.inference.settings import Save
from pneumo.masks.settings import Postprocess

ROW = {"film": "a", "pneumothorax": True, "probability": 0.9, "area_px": 1200, "area_mm2": None}
ROW |= {"side": "both sides", "notes": "inverted"}
NONE = {**ROW, "film": "b", "pneumothorax": False, "probability": 0.125, "notes": ""}


def test_a_picture_has_its_mask_and_overlay_but_no_dicom_objects(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(np.full((200, 100), 90, np.uint8)).save(picture, "PNG")
    found = finding(picture.getvalue())
    notes = outputs.save(tmp_path, "a", found, Save(segmentation=True), Bright())
    assert notes == ["no DICOM outputs: the film is a picture, without the tags they refer to"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-mask.png", "a-overlay.png"]
    mask = cv2.imread(str(tmp_path / "a-mask.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, found.stored_mask * 255)
    assert mask[:90, :45].all()
    assert not mask[110:].any()


def test_the_summary_names_films_and_those_that_failed(tmp_path):
    told = outputs.summary([ROW, NONE], [("c.dcm", "damaged")], 1, tmp_path)
    assert told.splitlines() == [
        "a: 1,200 px, both sides; probability 0.900 (inverted)",
        "b: none; probability 0.125",
        f"2 films, 1 with pneumothorax → {tmp_path} (films.csv, films.json)",
        "Passed over: 1 other file (no DICOM file, no PNG or JPEG picture)",
        "failed: c.dcm: damaged",
    ]


def test_tables_hold_films_failures_and_how_it_was_done(tmp_path):
    model = SimpleNamespace(name="m", card={"limits": "of phantoms"}, experience="", calibration="")
    runs = [("a", "0 4"), ("b", "-1")]
    rule = Postprocess(0.3, 500)
    outputs.write_tables(tmp_path, [ROW, NONE], runs, [("c.dcm", "damaged")], model, rule)
    with open(tmp_path / "films.csv", newline="") as file:
        told = [(row["film"], row["area_px"], row["area_mm2"]) for row in csv.DictReader(file)]
    assert told == [("a", "1200", ""), ("b", "1200", "")]
    assert (tmp_path / "rle.csv").read_text() == "ImageId,EncodedPixels\na,0 4\nb,-1\n"
    lines = json.loads((tmp_path / "films.json").read_text())
    assert lines["films"] == [ROW, NONE]
    assert lines["failed"] == [{"film": "c.dcm", "reason": "damaged"}]
    assert lines["how"]["binarization_threshold"] == 0.3
    assert lines["how"]["limits"] == "of phantoms"
