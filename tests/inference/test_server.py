"""What the page's server judges and keeps; tests/commands/test_view.py looks at the page itself."""

import io
import json

import numpy as np
import pytest
from conftest import write_film
from inference.stand_ins import Bright, asked
from PIL import Image

from pneumo.data import dicom
from pneumo.data.settings import MaskSize, SiimData
from pneumo.data.sources import siim
from pneumo.inference import painting, server
from pneumo.inference.settings import View
from pneumo.masks import pictures, rle
from pneumo.masks.settings import Postprocess


def test_the_page_judges_by_the_whole_rule(film):
    """A triplet rule: other sliders must not drop its top threshold."""
    rule = Postprocess(0.3, 1000, top_threshold=0.95)
    films = server.Films(Bright(rule), View())
    key = films.add("x.dcm", film.read_bytes())
    assert films.describe(key)["pneumothorax"] is False
    assert films.at(key, 0.4, 500).area == 0
    assert films.at(key, 0.4, 0).area > 0


@pytest.mark.parametrize("size", MaskSize)
def test_the_page_reads_run_lengths_at_the_size_that_is_said(tmp_path, size):
    """A picture of another size: the challenge's at 1024², or its own."""
    rows, columns = shape = (600, 400) if size is MaskSize.film else (1024, 1024)
    mask = np.zeros(shape, np.uint8)
    mask[rows // 2 :, columns // 4 : columns // 2] = 1
    (tmp_path / "t.csv").write_text(f"ImageId,EncodedPixels\na,{rle.encode(mask)}\n")
    picture = io.BytesIO()
    Image.fromarray(np.full((600, 400), 90, np.uint8)).save(picture, "PNG")
    films = server.Films(Bright(), View(annotations=str(tmp_path / "t.csv"), mask_size=size))
    truth = films.kept[films.add("a.png", picture.getvalue())].truth
    assert truth.shape == (600, 400)
    assert truth[300:, 100:200].all()
    assert truth.sum() == 300 * 100


def mask_of(png):
    return (np.asarray(Image.open(io.BytesIO(png))) > 0).astype(np.uint8)


def as_png(mask):
    return pictures.png(mask * 255)


def sideways(tmp_path, shape=(1600, 1200)):
    """A DICOM film that lies on its side and is mirrored, larger than it is shown."""
    pixels = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    return write_film(tmp_path / "side.dcm", pixels, 12, PatientOrientation=["H", "R"])


class Slanted(Bright):
    """A finding whose edge fits no pixel that is shown: a triangle."""

    def says(self, film, tta=None):
        return np.triu(np.full((32, 32), 230, np.uint8)), None


@pytest.fixture
def correcting(tmp_path):
    """Start the page on one folder of corrections as often as wanted: the application, a key."""

    def start(reader="Dr A", name="side.dcm", content=None, **settings):
        folder = str(tmp_path / "corrections")
        made = View(corrections=folder, reader=reader, **settings)
        application = server.application(Slanted(), made)
        path = sideways(tmp_path)
        return application, application.state.films.add(name, content or path.read_bytes())

    return start


def test_a_correction_begins_as_the_models_finding_and_is_the_films_own_where_not_painted(
    correcting, tmp_path
):
    app, key = correcting()
    address = f"/api/films/{key}/correction"
    status, body, headers = asked(app, "GET", address)
    assert (status, headers["etag"]) == (200, '"0.0"')
    painted = mask_of(body)
    assert max(painted.shape) == 1024
    _, found, _ = asked(app, "GET", f"{address}?size=film")
    found = mask_of(found)
    assert found.shape == (1200, 1600)  # upright
    assert np.array_equal(painting.shown(found), painted)
    assert np.array_equal(found, app.state.films.kept[key].finding.mask)

    painted[700:, :100] = 1
    status, body, headers = asked(app, "PUT", address, as_png(painted), if_match='"0.0"')
    assert (status, json.loads(body)["state"], headers["etag"]) == (200, "saved", '"1.0"')
    _, saved, _ = asked(app, "GET", f"{address}?size=film")
    changed = mask_of(saved) != found
    rows, columns = np.nonzero(changed)
    assert rows.min() >= 700 * 1200 // 768 - 1
    assert columns.max() <= 100 * 1600 // 1024
    assert np.array_equal(painting.shown(mask_of(saved)), painted)

    data = SiimData(
        name="x",
        root=str(tmp_path),
        annotations=str(tmp_path / "corrections" / "corrections.csv"),
        mask_size=MaskSize.film,
    )
    (item,) = siim.read_index(data).items
    film = dicom.read(item.path)
    assert np.array_equal(
        dicom.upright(item.mask(film.stored_shape), film.orientation), mask_of(saved)
    )


def test_a_draft_is_there_again_under_another_name_after_a_restart(correcting, tmp_path):
    app, key = correcting()
    address = f"/api/films/{key}/correction"
    painted = mask_of(asked(app, "GET", address)[1])
    painted[:50] = 0
    assert asked(app, "PUT", f"{address}?draft=true", as_png(painted))[0] == 200
    assert not (tmp_path / "corrections" / "corrections.csv").exists()
    app, key = correcting(name="renamed.dcm")
    facts = json.loads(asked(app, "GET", f"/api/films/{key}/facts.json")[1])["correction"]
    assert (facts["state"], facts["by"]["reader"], facts["saved"]) == ("draft", "Dr A", None)
    assert np.array_equal(mask_of(asked(app, "GET", f"/api/films/{key}/correction")[1]), painted)


def test_deleting_goes_back_to_the_models_finding_and_is_remembered(correcting, tmp_path):
    app, key = correcting()
    address = f"/api/films/{key}/correction"
    empty = np.zeros((1200, 1600), np.uint8)  # of the film's own size
    assert asked(app, "PUT", address, as_png(empty))[0] == 200
    assert not mask_of(asked(app, "GET", address)[1]).any()
    assert ",-1\n" in (tmp_path / "corrections" / "corrections.csv").read_text()
    status, body, _ = asked(app, "DELETE", address)
    assert (status, json.loads(body)["state"]) == (200, "model")
    found = app.state.films.kept[key].finding.mask
    assert np.array_equal(mask_of(asked(app, "GET", f"{address}?size=film")[1]), found)
    (known,) = json.loads((tmp_path / "corrections" / "corrections.json").read_text())[
        "films"
    ].values()
    assert [entry["action"] for entry in known["history"]] == ["saved", "withdrawn"]


def test_a_correction_keeps_to_the_thresholds_that_it_began_with(correcting, tmp_path):
    app, key = correcting()
    address = f"/api/films/{key}/correction"
    found = mask_of(asked(app, "GET", f"{address}?threshold=0.95&area=0")[1])
    assert not found.any()
    found[0, 0] = 1
    asked(app, "PUT", f"{address}?threshold=0.95&area=0&draft=true", as_png(found))
    assert np.array_equal(mask_of(asked(app, "GET", address)[1]), found)
    asked(app, "PUT", address, as_png(found))
    (known,) = json.loads((tmp_path / "corrections" / "corrections.json").read_text())[
        "films"
    ].values()
    basis = known["history"][0]["basis"]
    assert (basis["rule"]["binarization_threshold"], basis["pixels"]) == (0.95, 0)


def test_what_may_not_change_a_correction_is_refused(correcting):
    app, key = correcting(max_megabytes=1)
    address = f"/api/films/{key}/correction"
    good = asked(app, "GET", address)[1]
    for method in ("PUT", "DELETE"):
        status, body, _ = asked(app, method, address, good, origin="http://elsewhere.example")
        assert (status, "this page only" in json.loads(body)["error"]) == (403, True)
    assert asked(app, "PUT", address, good, host="elsewhere.example")[0] == 400
    assert asked(app, "PUT", address, b"0" * ((1 << 20) + 1))[0] == 413
    status, body, _ = asked(app, "PUT", address, as_png(np.zeros((5, 5), np.uint8)))
    assert (status, "needs 768 × 1024 or 1200 × 1600" in json.loads(body)["error"]) == (422, True)
    assert asked(app, "PUT", "/api/films/absent/correction", good)[0] == 404
    assert asked(app, "PUT", f"{address}?threshold=x", good)[0] == 422
    assert asked(app, "POST", address, good)[0] == 405
    assert asked(app, "PUT", address, good, if_match='"0.0"')[0] == 200
    status, body, _ = asked(app, "PUT", address, good, if_match='"0.0"')
    assert (status, "Dr A changed this film's correction" in json.loads(body)["error"]) == (
        412,
        True,
    )


def test_without_a_folder_nothing_is_corrected_or_written(film, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = server.application(Bright(), View())
    key = app.state.films.add("x.dcm", film.read_bytes())
    status, body, _ = asked(app, "GET", f"/api/films/{key}/correction")
    assert (status, "keeps no corrections" in json.loads(body)["error"]) == (422, True)
    assert json.loads(asked(app, "GET", f"/api/films/{key}/facts.json")[1])["correction"] is None
    assert list(tmp_path.iterdir()) == []
