"""The phantoms look and count as the README says."""

import csv
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from pneumo.data import dicom
from pneumo.data.settings import Difficulty, PhantomData, SiimData
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of ten films that one process draws undisturbed."""
    place = tmp_path_factory.mktemp("whole") / "set"
    phantom.generate(settings(), place, workers=0)
    return tree(place)


def test_the_same_seed_gives_the_same_files_with_any_number_of_workers(tmp_path, whole):
    phantom.generate(settings(), tmp_path / "two", workers=2)
    assert tree(tmp_path / "two") == whole
    phantom.generate(settings(seed=4), tmp_path / "other", workers=0)
    assert tree(tmp_path / "other") != whole


def test_interrupted_drawing_continues_to_the_same_files(tmp_path, monkeypatch, whole):
    write, written = phantom._write_film, []

    def stop(root, data, item):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(item[0])
        return write(root, data, item)

    monkeypatch.setattr(phantom, "_write_film", stop)
    with pytest.raises(KeyboardInterrupt):
        phantom.generate(settings(), tmp_path / "set", workers=0)
    with open(tmp_path / "set" / "journal.jsonl", "a") as file:
        file.write('[9, {"id": "cut sho')
    monkeypatch.setattr(
        phantom,
        "_write_film",
        lambda root, data, item: written.append(item[0]) or write(root, data, item),
    )
    phantom.generate(settings(), tmp_path / "set", workers=0)
    assert sorted(written) == list(range(10))  # each once
    assert tree(tmp_path / "set") == whole
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


@pytest.mark.parametrize("left", ["journal.jsonl", ".journal.jsonl.0123ab.partial"])
def test_killed_before_the_first_film_and_again_after_the_last(tmp_path, monkeypatch, left):
    """What a kill may leave: an empty journal, or one that was not yet given its name."""
    drawn = []

    def draw(root, data, item):
        drawn.append(item[0])
        return {"id": str(item[0]), "patient": "P", "annotations": ["-1"], "holds": []}

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_write_film", draw)
    (tmp_path / left).touch()
    with monkeypatch.context() as killed:
        killed.setattr(phantom, "_write_csv", stop)
        with pytest.raises(KeyboardInterrupt):
            phantom.generate(settings(), tmp_path, workers=0)
    with pytest.raises(PneumoError, match="unfinished phantoms of other settings"):
        phantom.generate(settings(seed=4), tmp_path, workers=0)
    phantom.generate(settings(), tmp_path, workers=0)
    assert drawn == list(range(10))  # each once
    whole = {".lock", "train-rle.csv", "patients.csv", "contents.csv", "phantom.json"}
    assert {path.name for path in tmp_path.iterdir()} == whole
    (tmp_path / "journal.jsonl").touch()  # killed before it was removed
    phantom.generate(settings(), tmp_path, workers=0)
    assert {path.name for path in tmp_path.iterdir()} == whole


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
    """The table of the README: quantity → (challenge, easy, hard), each a list of numbers."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]*\d[^|]*) \| ([^|]*\d[^|]*) \| ([^|]*\d[^|]*) \|$",
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
    return phantom_statistics(range(120), Difficulty.easy)


@pytest.fixture(scope="session")
def measured_hard():
    return phantom_statistics(range(120), Difficulty.hard)


def phantom_statistics(numbers, difficulty):
    rows = []
    for number in numbers:
        film = phantom.draw(0, number, number, positive=True, difficulty=difficulty)
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


@pytest.mark.parametrize(
    ("films", "column"),
    [("measured", 1), ("measured_hard", 2)],
)
@pytest.mark.slow
def test_statistics_are_those_published_in_the_readme(films, column, request):
    measured, table = request.getfixturevalue(films), published()
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
        assert values == pytest.approx(table[name][column], rel=0.02, abs=0.02), name


@pytest.mark.slow
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


@pytest.mark.slow
def test_lesions_of_hard_films_are_as_faint_as_real_ones(measured_hard):
    """Real ones: -15 ± 12 grey levels, from -41 to +3 (21 films of the challenge)."""
    darker = measured_hard["darker"]
    assert darker.mean() == pytest.approx(-15, abs=2.6)  # the standard error of 21 films
    assert darker.std() == pytest.approx(12, abs=2.6)
    assert -60 < darker.min() < -30
    assert -3 < darker.max() < 12


def test_hard_films_have_the_lesions_and_the_names_of_easy_ones(tmp_path):
    """Films of equal numbers can be compared in pairs."""
    for number in range(6):
        easy, hard = (phantom.draw(2, number, number, True, one) for one in Difficulty)
        masks = [np.maximum.reduce(film.annotations) for film in (easy, hard)]
        assert np.array_equal(*masks)
        assert not np.array_equal(easy.image, hard.image)
    for one in Difficulty:
        phantom.generate(settings(images=4, difficulty=one), tmp_path / one.value, workers=0)
    easy, hard = ((tmp_path / one.value / "patients.csv").read_text() for one in Difficulty)
    assert easy == hard


NONE = dataclasses.replace(phantom.LOOKS[Difficulty.hard], tube=(0, 0), lookalikes={})


@pytest.mark.parametrize("name", ["skin_fold", "clothing_line", "bulla"])
@pytest.mark.parametrize("positive", [False, True])
def test_a_film_shows_what_it_is_said_to_hold(name, positive, monkeypatch):
    monkeypatch.setitem(phantom.LOOKS, Difficulty.hard, NONE)
    plain = phantom.draw(6, 1, 1, positive, Difficulty.hard)
    always = dataclasses.replace(NONE, lookalikes={name: (1, 1)})
    monkeypatch.setitem(phantom.LOOKS, Difficulty.hard, always)
    held = phantom.draw(6, 1, 1, positive, Difficulty.hard)
    assert (plain.holds, held.holds) == ([], [name])
    change = held.image.astype(int) - plain.image
    seen = change[np.abs(change) > 4]
    assert len(seen) > 2000
    assert seen.mean() < -10 if name == "bulla" else seen.mean() > 4  # air, or something more
    for ours, theirs in zip(plain.annotations, held.annotations, strict=True):
        assert np.array_equal(ours, theirs)


def test_bullae_are_dark_and_keep_clear_of_lesions():
    found = 0
    for number in range(8):
        body = phantom._Body(*(np.random.default_rng([part, number]) for part in (1, 2)))
        lesion = np.zeros((1024, 1024), np.uint8)
        lesion[:, : int(body.centre)] = 1  # one half of the film
        shadow, empty = phantom._bullae(body, lesion, np.random.default_rng(number))
        assert not (empty & lesion).any()
        if empty.any():
            found += 1
            assert shadow[empty > 0].mean() < -0.03
    assert 1 <= found < 8  # those of the other lung


def assert_rates(found, expected, films):
    """Within three standard errors."""
    for name, rate in expected.items():
        error = (rate * (1 - rate) / films) ** 0.5
        assert found.count(name) / films == pytest.approx(rate, abs=3 * error), name


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("AP", {"skin_fold": 0.20, "clothing_line": 0.20, "bulla": 0.05}),
        ("PA", {"skin_fold": 0.04, "clothing_line": 0.08, "bulla": 0.05}),
    ],
)
def test_what_looks_like_pneumothorax_comes_at_its_rates(view, expected, monkeypatch):
    monkeypatch.setattr(phantom, "_skin_fold", lambda *_: 0)
    monkeypatch.setattr(phantom, "_clothing", lambda *_: 0)
    monkeypatch.setattr(phantom, "_bullae", lambda *_: (0, np.ones((2, 2), np.uint8)))
    look, rng = phantom.LOOKS[Difficulty.hard], np.random.default_rng(5)
    found = []
    for _ in range(1000):
        body = phantom._Body(rng, rng)
        body.view = view
        phantom._lookalikes(np.zeros((2, 2)), body, np.zeros((2, 2)), look, rng)
        found += body.holds
    assert_rates(found, expected, 1000)


@pytest.mark.parametrize(("positive", "tubes"), [(True, 0.35), (False, 0.02)])
def test_pneumothorax_comes_without_tubes_and_tubes_without_it(positive, tubes):
    look, rng = phantom.LOOKS[Difficulty.hard], np.random.default_rng(5)
    found = []
    for _ in range(500):
        body = phantom._Body(rng, rng)
        phantom._devices(body, look.tube[0 if positive else 1], rng)
        found += body.holds
    assert_rates(found, {"chest_tube": tubes}, 500)


def test_the_data_set_says_what_its_films_hold(tmp_path, monkeypatch):
    often = dataclasses.replace(NONE, tube=(0.4, 0.4), lookalikes={"skin_fold": (0.5, 0.5)})
    monkeypatch.setitem(phantom.LOOKS, Difficulty.hard, often)
    hard = settings(images=6, difficulty=Difficulty.hard)
    phantom.generate(hard, tmp_path, workers=0)
    with open(tmp_path / "contents.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    told = {row["ImageId"]: [key for key in row if row[key] == "1"] for row in rows}
    with open(tmp_path / "patients.csv", newline="", encoding="utf-8") as file:
        assert [row["ImageId"] for row in csv.DictReader(file)] == list(told)
    for (number, (patient, positive)), holds in zip(
        enumerate(phantom.plan(hard)), told.values(), strict=True
    ):
        drawn = phantom.draw(hard.seed, patient, number, positive, Difficulty.hard)
        assert sorted(holds) == drawn.holds
    assert len({tuple(holds) for holds in told.values()}) > 1


def test_films_of_a_journal_that_does_not_say_what_they_hold_are_drawn_again(tmp_path):
    """Older versions noted less; and what they wrote before was easy."""
    data = settings(images=4)
    phantom.generate(data, tmp_path / "whole", workers=0)
    older = tmp_path / "older"
    older.mkdir()
    about = {"images": 4, "positive_rate": 0.3, "seed": 3, "version": 2}
    row = {"id": "1.2", "patient": "P", "annotations": ["-1"]}
    lines = [json.dumps(about), json.dumps([0, row])]
    (older / "journal.jsonl").write_text("".join(line + "\n" for line in lines))
    phantom.generate(data, older, workers=0)
    assert tree(older) == tree(tmp_path / "whole")


def test_sets_of_two_difficulties_are_not_taken_for_each_other(tmp_path):
    easy, hard = (settings(images=4, difficulty=one) for one in Difficulty)
    roots = [phantom.in_place(data, str(tmp_path)).root for data in (easy, hard)]
    assert [Path(root).name for root in roots] == ["4-0.3-seed3-v2", "4-0.3-seed3-hard-v2"]
    with pytest.raises(PneumoError, match="other settings"):
        phantom.generate(hard, Path(roots[0]))
    with pytest.raises(PneumoError, match="other settings"):
        phantom.generate(easy, Path(roots[1]))


def test_lungs_are_dark_and_the_middle_is_bright():
    for number in range(6):
        image = phantom.draw(0, number, number, positive=False).image
        assert image[300:600, 240:400].mean() + 20 < image[300:600, 480:544].mean()


@pytest.mark.slow
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


# SHA-256 of films' images and annotations: of three easy ones, of twelve hard ones. The easy films
# of version 1 had other headers, not other pixels; there were no hard ones.
GOLDEN = {
    Difficulty.easy: dict.fromkeys(
        (1, 2), "9d9d16667c246062513011d42348c5f676a3b58e823eb95edb91becec39d5872"
    ),
    Difficulty.hard: {2: "126d80f1cf464d1b03068828db62211bebeb36d4ff1005cc4ed3848129e744b2"},
}


@pytest.mark.parametrize(
    ("difficulty", "seed", "films"), [(Difficulty.easy, 7, 3), (Difficulty.hard, 8, 12)]
)
def test_films_of_a_version_stay_as_they_are(difficulty, seed, films):
    """Whoever changes what is drawn gives it another version: runs name their films by it."""
    digest = hashlib.sha256()
    held = set()
    for number in range(films):
        film = phantom.draw(seed, number, number, number % 2 == 0, difficulty)
        held.update(film.holds)
        for array in (film.image, *film.annotations):
            digest.update(array.tobytes())
    assert digest.hexdigest() == GOLDEN[difficulty][phantom.VERSION]
    if difficulty is Difficulty.hard:
        assert held == set(phantom.HOLDINGS)


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
    del values["version"], values["difficulty"]
    manifest.write_text(json.dumps({**values, **named}))
    before = sorted((path, path.stat().st_mtime_ns) for path in older.rglob("*.dcm"))
    assert phantom.in_place(data, str(tmp_path)).root == str(older)
    assert sorted((path, path.stat().st_mtime_ns) for path in older.rglob("*.dcm")) == before
