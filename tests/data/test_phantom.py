"""The phantoms look and count as the README says."""

import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from pneumo.data import dicom
from pneumo.data.settings import PhantomData, SiimData
from pneumo.data.sources import phantom, siim
from pneumo.data.spacing import Plane
from pneumo.errors import PneumoError
from pneumo.masks import rle

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def settings(**options):
    return PhantomData(
        **{"name": "phantom", "images": 10, "positive_rate": 0.3, "seed": 3, **options}
    )


def tree(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_files_with_any_number_of_workers(tmp_path):
    phantom.generate(settings(), tmp_path / "a", workers=0)
    phantom.generate(settings(), tmp_path / "b", workers=2)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    phantom.generate(settings(seed=4), tmp_path / "c", workers=0)
    assert tree(tmp_path / "c") != tree(tmp_path / "a")


def test_interrupted_drawing_continues_to_the_same_files(tmp_path, monkeypatch):
    phantom.generate(settings(), tmp_path / "whole", workers=0)
    write, written = phantom._write_film, []

    def stop(root, seed, item):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(item[0])
        return write(root, seed, item)

    monkeypatch.setattr(phantom, "_write_film", stop)
    with pytest.raises(KeyboardInterrupt):
        phantom.generate(settings(), tmp_path / "set", workers=0)
    with open(tmp_path / "set" / "journal.jsonl", "a") as file:
        file.write('[9, {"id": "cut sho')
    monkeypatch.setattr(
        phantom,
        "_write_film",
        lambda root, seed, item: written.append(item[0]) or write(root, seed, item),
    )
    phantom.generate(settings(), tmp_path / "set", workers=0)
    assert sorted(written) == list(range(10))  # each once
    assert tree(tmp_path / "set") == tree(tmp_path / "whole")
    monkeypatch.setattr(phantom, "_write_film", lambda *_: pytest.fail("drawn again"))
    phantom.generate(settings(), tmp_path / "set", workers=0)


def test_stopped_before_the_first_film_twice(tmp_path, monkeypatch):
    write = phantom._write_film
    monkeypatch.setattr(phantom, "_write_film", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            phantom.generate(settings(images=4), tmp_path / "set", workers=0)
    monkeypatch.setattr(phantom, "_write_film", write)
    phantom.generate(settings(images=4), tmp_path / "set", workers=0)
    assert len(list((tmp_path / "set").rglob("*.dcm"))) == 4


def test_other_settings_or_other_content_are_refused(tmp_path):
    phantom.generate(settings(images=4), tmp_path / "a", workers=0)
    with pytest.raises(PneumoError, match="other settings"):
        phantom.generate(settings(images=5), tmp_path / "a", workers=0)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.doc").touch()
    with pytest.raises(PneumoError, match="not empty"):
        phantom.generate(settings(), tmp_path / "b", workers=0)


def test_films_are_written_as_the_challenges(phantoms):
    for path in phantoms.rglob("*.dcm"):
        data = pydicom.dcmread(path)
        assert (data.Rows, data.Columns, data.BitsStored, data.PhotometricInterpretation) == (
            1024,
            1024,
            8,
            "MONOCHROME2",
        )
        assert (data.file_meta.TransferSyntaxUID, data.Modality) == (
            pydicom.uid.JPEGBaseline8Bit,
            "CR",
        )
        assert (data.SOPInstanceUID, data.SeriesInstanceUID, data.StudyInstanceUID) == (
            path.stem,
            path.parent.name,
            path.parent.parent.name,
        )
        assert data.ViewPosition in ("AP", "PA")
        assert data.LossyImageCompression == "01"
        assert dicom.read(path).pixels.shape == (1024, 1024)
    assert (phantoms / "train-rle.csv").read_text().splitlines()[0] == "ImageId, EncodedPixels"


def test_share_of_positives_and_patients():
    films = phantom.plan(settings(images=2000, positive_rate=0.22))
    assert sum(positive for _, positive in films) == 440
    patients = {patient for patient, _ in films}
    assert 0.4 < len(patients) / 2000 < 0.7
    assert (
        len({patient for patient, positive in films if positive}) < 330
    )  # they gather in few patients


def published():
    """The table of the README: quantity → (challenge, phantoms), each a list of numbers."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]*\d[^|]*) \| ([^|]*\d[^|]*) \|$",
        README.split("## Phantoms")[1].split("\n## ")[0],
        re.MULTILINE,
    )
    return {
        name.strip(): [
            [float(n.replace(",", "")) for n in re.findall(r"-?[\d,]*\.?\d+", cell)]
            for cell in cells
        ]
        for name, *cells in rows
    }


@pytest.fixture(scope="session")
def measured():
    return phantom_statistics(range(120))


def phantom_statistics(numbers):
    rows = []
    for number in numbers:
        film = phantom.draw(0, number, number, positive=True)
        mask = np.maximum.reduce(film.annotations)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        near, far = (
            cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)))
            for r in (3, 25)
        )
        ring = (far > 0) & (near == 0)
        y, x = np.nonzero(mask)
        rows.append(
            {
                "area": mask.sum(),
                "components": (stats[1:, cv2.CC_STAT_AREA] >= 100).sum(),
                "top": y.mean() < 341,
                "left": x.mean() < 512,
                "mean": film.image.mean(),
                "std": film.image.std(),
                "darker": film.image[mask > 0].mean() - film.image[ring].mean(),
                "width": np.ptp(x) + 1,
                "height": np.ptp(y) + 1,
            }
        )
    return {key: np.array([row[key] for row in rows], float) for key in rows[0]}


def test_statistics_are_those_published_in_the_readme(measured):
    table = published()
    area = np.log10(measured["area"])
    found = {
        "area, log10 px: mean ± std": (area.mean(), area.std()),
        "area, median px": (np.median(measured["area"]),),
        "box height, width: median px": (
            np.median(measured["height"]),
            np.median(measured["width"]),
        ),
        "components of at least 100 px: mean": (measured["components"].mean(),),
        "centroid in the top third / on the image's left": (
            measured["top"].mean(),
            measured["left"].mean(),
        ),
        "grey levels of a film: mean ± std": (measured["mean"].mean(), measured["mean"].std()),
        "contrast (std) of a film: mean ± std": (measured["std"].mean(), measured["std"].std()),
        "lesion minus its ring (3 to 25 px around): mean ± std": (
            measured["darker"].mean(),
            measured["darker"].std(),
        ),
    }
    assert set(found) == set(table)
    for name, values in found.items():
        assert values == pytest.approx(table[name][1], rel=0.02, abs=0.02), name


def test_masks_follow_the_challenges_table(measured):
    area = np.log10(measured["area"])
    assert area.mean() == pytest.approx(
        3.924, abs=0.12
    )  # of 2,669 films; 120 phantoms scatter by .043
    assert area.std() == pytest.approx(0.472, abs=0.1)
    assert measured["top"].mean() == pytest.approx(0.72, abs=0.12)
    assert measured["left"].mean() == pytest.approx(0.59, abs=0.13)
    assert measured["components"].mean() == pytest.approx(1.31, abs=0.15)
    assert -60 < measured["darker"].mean() < -10


def test_lungs_are_dark_and_the_middle_is_bright():
    for number in range(6):
        image = phantom.draw(0, number, number, positive=False).image
        assert image[300:600, 240:400].mean() + 20 < image[300:600, 480:544].mean()


def test_the_pleural_line_is_brighter_than_both_its_sides():
    """Mean profile across the inner border of large pneumothoraces: dark inside, a bright line,
    lung outside.
    """
    inside, line, outside = [], [], []
    for number in range(60):
        film = phantom.draw(0, number, number, positive=True)
        mask = film.annotations[0]
        if mask.sum() < 25_000:
            continue
        distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5) - cv2.distanceTransform(
            1 - mask, cv2.DIST_L2, 5
        )
        medial = np.zeros_like(mask)
        y = np.nonzero(mask)[0]
        medial[int(y.mean()) :, :] = (
            1  # below the middle of an apical crescent runs the visceral pleura
        )
        for values, low, high in ((inside, 8, 14), (line, -2, 3), (outside, -14, -8)):
            values.append(film.image[(distance > low) & (distance < high) & (medial > 0)].mean())
    assert len(line) >= 5
    assert np.mean(line) > np.mean(inside) + 5


def test_the_table_reads_back(phantoms):
    index = siim.read_index(
        SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    )
    assert sum(item.positive for item in index.items) == 8
    for item in index.items:
        for text in item.annotations:
            assert rle.encode(rle.decode(text)) == text
    assert json.loads((phantoms / "phantom.json").read_text())["images"] == 24


# SHA-256 of three films of version 1, images and annotations
# version 2 has other headers, not other pixels
GOLDEN = dict.fromkeys((1, 2), "9d9d16667c246062513011d42348c5f676a3b58e823eb95edb91becec39d5872")


def test_films_of_a_version_stay_as_they_are():
    """Whoever changes what is drawn gives it another version: runs name their films by it."""
    digest = hashlib.sha256()
    for number, positive in enumerate((True, False, True)):
        film = phantom.draw(7, number, number, positive)
        for array in (film.image, *film.annotations):
            digest.update(array.tobytes())
    assert digest.hexdigest() == GOLDEN[phantom.VERSION]


def test_phantoms_measure_what_chest_films_do(phantoms):
    """By NIH's sizes and spacings, 5 to 95 % of the challenge's films are 344 to 428 mm wide."""
    for path in sorted(phantoms.rglob("*.dcm")):
        spacing = dicom.read_tags(path).spacing
        assert spacing.plane is Plane.detector
        assert 344 <= phantom.SIZE * spacing.columns <= 428


@pytest.mark.parametrize("ending", [phantom.UNVERSIONED[:8], "v1"])
def test_films_of_older_versions_are_used(tmp_path, ending):
    data = PhantomData(name="phantom", images=4, positive_rate=0.5, seed=5)
    older = tmp_path / "phantom" / f"4-0.5-seed5-{ending}"
    phantom.generate(data, older)
    manifest = older / phantom.MANIFEST
    values = json.loads(manifest.read_text())
    named = {"version": 1} if ending == "v1" else {"generator": phantom.UNVERSIONED}
    del values["version"]
    manifest.write_text(json.dumps({**values, **named}))
    before = sorted((path, path.stat().st_mtime_ns) for path in older.rglob("*.dcm"))
    assert phantom.in_place(data, str(tmp_path)).root == str(older)
    assert sorted((path, path.stat().st_mtime_ns) for path in older.rglob("*.dcm")) == before
