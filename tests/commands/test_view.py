"""The local page in a real browser with a real server, and what it refuses."""

import io
import json
import re
import shutil
import socket
import urllib.error
import urllib.request

import numpy as np
import pydicom
import pytest
from conftest import TOKENS, asking, complaint, launch, serving, slow_but, visited
from PIL import Image

from pneumo import files
from pneumo.data import dicom
from pneumo.data.settings import MaskSize, SiimData
from pneumo.data.sources import siim
from pneumo.inference import bundle, findings
from pneumo.inference.corrections import Basis, Corrected, Corrections
from pneumo.inference.settings import Use

TRUTH = (0, 190, 255)
READY = "body[data-ready] .film canvas"


@pytest.fixture(scope="module")
def address(model, film, tmp_path_factory):
    """A running page with one film from a folder, beside a hip; uploads of at most 3 MB."""
    folder = tmp_path_factory.mktemp("films")
    shutil.copy(film, folder / "first.dcm")
    hip = pydicom.dcmread(film)
    hip.BodyPartExamined = "HIP"
    hip.save_as(folder / "hip.dcm")
    (table,) = (parent / "train-rle.csv" for parent in film.parents if parent.name[:3] == "24-")
    options = (f"model={model}", str(folder), "max_megabytes=3", f"annotations={table}")
    with serving(folder, *options) as (where, said):
        assert any("left out: " in line for line in said)
        yield where


def ask(url, content=None, method=None, **headers):
    """(status, body) of a request."""
    method = method or ("POST" if content is not None else "GET")
    request = asking(url, content, method, **headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def page(browser, address):
    with visited(browser, address, 1200, READY) as opened:
        yield opened


def painted(page, colour=(255, 140, 0)):
    """Pixels of the first canvas that have the outline's colour."""
    return page.evaluate(
        """([r, g, b]) => {
            const c = document.querySelector('.film canvas');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            let n = 0;
            for (let i = 0; i < d.length; i += 4)
                if (d[i] === r && d[i + 1] === g && d[i + 2] === b) n++;
            return n;
        }""",
        list(colour),
    )


def move(page, threshold, area):
    """Move both sliders, and wait until the first film is drawn at them."""
    for slider, value in (("#threshold", threshold), ("#area", area)):
        page.locator(slider).evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(value)
        )
    page.wait_for_selector(
        f'.film >> nth=0 >> xpath=self::*[@data-drawn="?threshold={threshold / 100:g}&area={area}"]'
    )


def test_a_film_is_dropped_seen_and_judged_as_the_command_judges_it(page, model, real_data):
    path = sorted(real_data.glob("siim/dicom-images-train/**/*.dcm"))[0]
    page.set_input_files("#file", str(path))
    page.wait_for_selector(f".film:has-text('{path.name}')")
    used = bundle.load(model)
    film = findings.read(path.name, path.read_bytes(), Use(), used)
    page.wait_for_selector('.film[data-drawn="declared"]')
    assert ("none found" in page.inner_text(".film")) == (
        findings.find(film, used, used.rule).area == 0
    )
    for percent in (5, 40, 75):
        move(page, percent, 0)
        expected = findings.find(film, used, bundle.Postprocess(percent / 100, 0))
        shown = page.inner_text(".film")
        assert ("pneumothorax" in shown) == (expected.area > 0)
        if expected.area:
            assert f"{expected.area:,} px" in shown
            assert painted(page) > 0
    move(page, 99, 12544)
    least = findings.find(film, used, bundle.Postprocess(0.99, 12544)).area
    assert ("none found" in page.inner_text(".film")) == (least == 0)
    assert (painted(page) == 0) == (least == 0)


def test_a_browser_is_led_to_the_page_and_a_stranger_sees_nothing_of_it(browser, address, tmp_path):
    """The file is another site to the browser, whose cookie is for this site alone."""
    file = tmp_path / "open.html"
    leading = f'<meta http-equiv="refresh" content="0; url={address}?token={TOKENS[address]}">'
    file.write_text(leading)
    page = browser.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector(READY)
    assert page.url == address
    page.close()
    stranger = browser.new_page()
    assert stranger.goto(address).status == 403
    assert "use the address that the command printed" in stranger.inner_text("body")
    stranger.close()


def test_two_films_side_by_side_and_downloads(page, address, film, tmp_path):
    copy = tmp_path / "second.dcm"
    shutil.copy(film, copy)
    page.set_input_files("#file", str(copy))
    page.wait_for_selector(".film:has-text('second.dcm')")
    page.locator("#list .pick", has_text="first.dcm").first.click(modifiers=["Control"])
    assert page.locator(".film canvas").count() == 2
    move(page, 10, 0)
    links = {
        a.get_attribute("data-kind"): address + a.get_attribute("href")
        for a in page.locator(".film >> nth=0 >> a").all()
    }
    names = [a.get_attribute("download") for a in page.locator(".film >> nth=0 >> a").all()]
    assert names[0] == "second-overlay.png"
    assert set(links) == {"overlay.png", "mask.png", "rle.txt", "seg.dcm"}
    _, mask = ask(links["mask.png"])
    pixels = np.asarray(Image.open(io.BytesIO(mask)))
    _, made = ask(links["seg.dcm"])
    segmented = pydicom.dcmread(io.BytesIO(made))
    assert segmented.Modality == "SEG"
    assert np.array_equal(segmented.pixel_array.squeeze() > 0, pixels > 0)
    area = int(
        re.search(r"([\d,]+) px", page.locator(".film").first.inner_text())[1].replace(",", "")
    )
    assert (pixels > 0).sum() == area


def test_it_fits_a_phone(browser, address):
    with visited(browser, address, 390, READY) as phone:
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        film, films = (phone.locator(one).first.bounding_box() for one in (".film", "#list"))
        assert film["y"] < films["y"]  # the film before the list


def test_what_is_no_film_is_refused_in_words(page, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    page.set_input_files("#file", str(tmp_path / "letter.txt"))
    page.wait_for_selector("#said:has-text('letter.txt: not a DICOM file')")


def test_a_film_of_the_folder_that_is_refused_is_shown_with_the_reason(page):
    """In the page's words: it knows no settings of a command line."""
    told = page.inner_text("#said")
    assert "hip.dcm: not a chest by its tags (BodyPartExamined HIP)" in told
    assert "unsuitable=" not in told
    assert "drawn phantoms" in page.inner_text("header")


def view_of(page):
    canvas = page.locator(".film canvas").first
    return {key: canvas.get_attribute(f"data-{key}") for key in ("zoom", "level", "inverted")}


def test_a_film_is_zoomed_moved_windowed_and_inverted(page):
    page.wait_for_selector('.film[data-drawn="declared"]')
    canvas = page.locator(".film canvas").first
    assert view_of(page) == {"zoom": "1.00", "level": "128", "inverted": "false"}
    box = canvas.bounding_box()
    assert box["y"] + box["height"] <= 900  # it fits the window
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.wheel(0, -100)
    page.wait_for_selector('canvas[data-zoom="1.10"]')
    before = canvas.screenshot()
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 30)
    page.mouse.up()
    assert canvas.screenshot() != before
    page.mouse.down(button="right")
    page.mouse.move(middle[0] + 60, middle[1] + 70)
    page.mouse.up(button="right")
    assert view_of(page)["level"] == "148"
    canvas.press("i")
    canvas.press("+")
    assert (view_of(page)["inverted"], view_of(page)["zoom"]) == ("true", "1.38")
    canvas.press("0")
    assert view_of(page) == {"zoom": "1.00", "level": "128", "inverted": "false"}


def test_truth_is_shown_beside_what_is_found(page, film):
    (root,) = (parent for parent in film.parents if parent.name[:3] == "24-")
    table = siim.read_table(root / "train-rle.csv")
    positive = next(path for path in sorted(root.rglob("*.dcm")) if table.masks(path.stem))
    page.set_input_files("#file", str(positive))
    page.wait_for_selector(f".film[data-drawn='declared']:has-text('{positive.name}')")
    with_truth = painted(page, TRUTH)
    assert with_truth > 0
    page.locator("#truth").uncheck()
    assert painted(page, TRUTH) == 0
    page.locator("#truth").check()
    assert painted(page, TRUTH) == with_truth


def test_films_are_gone_through_by_keys_removed_and_cleared(page, film, tmp_path):
    for name in ("k1.dcm", "k2.dcm"):
        shutil.copy(film, tmp_path / name)
        page.set_input_files("#file", str(tmp_path / name))
        page.wait_for_selector(f".film:has-text('{name}')")
    page.locator(".film canvas").first.press("ArrowDown")
    page.wait_for_selector(".film:has-text('k1.dcm')")
    page.locator(".film canvas").first.press("Delete")
    page.wait_for_selector("#list:not(:has-text('k1.dcm'))")
    page.get_by_label("Remove k2.dcm").click()
    page.wait_for_selector("#list:not(:has-text('k2.dcm'))")
    assert page.locator("#list .pick .soft").first.inner_text() in ("none found",) or re.search(
        r"\d px", page.locator("#list .pick .soft").first.inner_text()
    )
    move(page, 20, 100)
    page.locator("#declared").click()
    page.wait_for_selector('.film[data-drawn="declared"]')
    shown = json.loads(ask(page.url + "api/films")[1])
    assert not [one for one in shown["films"] if one["name"] in ("k1.dcm", "k2.dcm")]
    status, _ = ask(page.url + "api/films", method="DELETE", Origin="http://elsewhere.example")
    assert status == 403


@pytest.mark.parametrize("scheme", slow_but(["dark"], ["light", "dark"]))
def test_light_and_dark(browser, address, scheme):
    with visited(browser, address, 1200, READY, color_scheme=scheme) as opened:
        back = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(17, 21, 26)") == (scheme == "dark")


def test_harm_is_refused(address, film):
    content = film.read_bytes()
    status, body = ask(address + "api/films?name=big.dcm", b"0" * 3_200_000)
    assert (status, "larger than 3 MiB" in json.loads(body)["error"]) == (413, True)
    status, body = ask(address + "api/films?name=a.dcm", content, Origin="http://elsewhere.example")
    assert status == 403
    status, _ = ask(address + "api/films", Host="elsewhere.example")
    assert status == 400
    status, body = ask(address + "api/films?name=a.zip", b"PK\x03\x04" + b"0" * 100)
    assert (status, "zip archive" in json.loads(body)["error"]) == (422, True)
    huge = pydicom.dcmread(film)
    huge.Rows = huge.Columns = 60000
    out = io.BytesIO()
    huge.save_as(out)
    status, body = ask(address + "api/films?name=huge.dcm", out.getvalue())
    assert (status, "60000 x 60000" in json.loads(body)["error"]) == (422, True)
    status, body = ask(address + "api/films?name=" + "..%2F..%2F%3Cscript%3E.dcm", content)
    assert (status, json.loads(body)["name"]) == (201, "<script>.dcm")
    for path in ("api/films/absent/film.png", "api/films/..%2F..%2Fetc/passwd"):
        assert ask(address + path)[0] == 404
    key = json.loads(body)["id"]
    for query in ("film.exe", "mask.png?threshold=x", "mask.png?threshold=7"):
        assert ask(f"{address}api/films/{key}/{query}")[0] == 422


def wait_for(page, state):
    """Wait until the toolbar says that a correction is in a state."""
    page.wait_for_selector(f".correct .state[data-state={state}]")


def settled(page):
    """Wait until every stroke is kept; the page's policy forbids Playwright's own waiting."""
    for _ in range(600):
        if not page.evaluate("[...films.values()].some(unkept)"):
            return
        page.wait_for_timeout(50)
    pytest.fail("strokes are still not kept")


def in_green(page):
    """Pixels of the canvas whose colour a correction gives them."""
    return page.evaluate(
        """() => {
            const c = document.querySelector('.film canvas');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            let n = 0;
            for (let i = 0; i < d.length; i += 4)
                if (d[i + 1] > d[i] + 25 && d[i + 1] > d[i + 2] + 25) n++;
            return n;
        }"""
    )


def stroke(page, *places):
    """Draw a line through places, in shares of the canvas."""
    box = page.locator(".film canvas").bounding_box()
    x, y = (
        [box[a] + share * box[b] for share in shares]
        for a, b, shares in zip("xy", ("width", "height"), zip(*places, strict=True), strict=True)
    )
    page.mouse.move(x[0], y[0])
    page.mouse.down()
    for to in zip(x[1:], y[1:], strict=True):
        page.mouse.move(*to, steps=4)
    page.mouse.up()


def start_correcting(page):
    page.get_by_role("button", name="Correct", exact=True).click()
    page.wait_for_selector(".correct .state[data-state]")


def mask_of(page, address):
    """The mask that the server has of the only film."""
    (film,) = json.loads(ask(address + "api/films")[1])["films"]
    _, content = ask(f"{address}api/films/{film['id']}/correction?size=film")
    return np.asarray(Image.open(io.BytesIO(content))) > 0


@pytest.fixture
def kept(model, film, tmp_path):
    """What starts the page on one film, with a folder of corrections."""
    (tmp_path / "films").mkdir()
    shutil.copy(film, tmp_path / "films" / "chest.dcm")
    options = (f"model={model}", "films", "corrections=corrections", "reader=Dr A")
    return lambda: serving(tmp_path, *options)


@pytest.mark.slow
def test_a_correction_is_painted_saved_and_there_again_after_a_restart(kept, browser, tmp_path):
    with kept() as (address, _), visited(browser, address, 1200, READY) as page:
        page.locator("#heat").uncheck()
        start_correcting(page)
        first = mask_of(page, address)
        stroke(page, (0.4, 0.3), (0.5, 0.5), (0.6, 0.3))
        wait_for(page, "draft")
        page.keyboard.press("s")
        wait_for(page, "saved")
        saved = mask_of(page, address)
        assert (saved & ~first).sum() > 1000
        assert (saved >= first).all()
        assert in_green(page) > 500
        page.keyboard.press("e")
        page.keyboard.press("]")
        stroke(page, (0.4, 0.3), (0.5, 0.5))
        wait_for(page, "draft")
        draft = mask_of(page, address)
        assert 0 < (draft & ~first).sum() < (saved & ~first).sum()

    with kept() as (address, _), visited(browser, address, 1200, READY) as page:
        assert np.array_equal(mask_of(page, address), draft)
        assert "draft" in page.inner_text("#list")
        start_correcting(page)
        page.keyboard.press("e")
        stroke(page, (0.6, 0.3), (0.5, 0.5))
        settled(page)
        assert mask_of(page, address).sum() < draft.sum()
        page.keyboard.press("Control+z")
        settled(page)
        assert np.array_equal(mask_of(page, address), draft)
        page.get_by_role("button", name="Save").click()
        wait_for(page, "saved")
        page.keyboard.press("Escape")
        assert page.locator(".correct").count() == 0

    root, table = tmp_path / "films", tmp_path / "corrections" / "corrections.csv"
    data = SiimData(name="x", root=str(root), annotations=str(table), mask_size=MaskSize.film)
    (item,) = siim.read_index(data).items
    assert np.array_equal(item.mask(draft.shape) > 0, draft)  # phantoms are stored upright
    (known,) = json.loads(table.with_suffix(".json").read_text())["films"].values()
    assert [entry["action"] for entry in known["history"]] == ["saved", "saved"]


@pytest.mark.slow
def test_a_correction_is_cleared_undone_redone_and_taken_back(kept, browser):
    with kept() as (address, _), visited(browser, address, 390, READY) as page:
        start_correcting(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        found = mask_of(page, address)
        stroke(page, (0.3, 0.5), (0.7, 0.5))
        wait_for(page, "draft")
        painted = mask_of(page, address)

        def after(name):
            page.get_by_role("button", name=name).click()
            settled(page)
            return mask_of(page, address)

        assert painted.sum() > found.sum()
        assert not after("No pneumothorax").any()
        assert np.array_equal(after("Undo"), painted)
        assert np.array_equal(after("Undo"), found)
        assert np.array_equal(after("Redo"), painted)
        assert np.array_equal(after("Undo"), found)
        assert np.array_equal(after("Redo"), painted)
        after("Save")
        after("Model's finding")
        wait_for(page, "model")
        assert np.array_equal(mask_of(page, address), found)
        assert np.array_equal(after("Undo"), painted)
        wait_for(page, "draft")


@pytest.mark.slow
def test_one_finger_paints_and_two_move_and_zoom(kept, browser):
    """A second finger takes back what the first began."""
    with (
        kept() as (address, _),
        visited(browser, address, 390, READY, has_touch=True) as page,
    ):
        start_correcting(page)
        box = page.locator(".film canvas").bounding_box()
        fingers = page.context.new_cdp_session(page)

        def touch(kind, *places):
            points = [
                {"x": box["x"] + x, "y": box["y"] + y, "id": number}
                for number, (x, y) in enumerate(places)
            ]
            fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", (100, 250))
        touch("touchMove", (160, 270))
        touch("touchEnd")
        wait_for(page, "draft")
        painted = mask_of(page, address)
        assert painted.any()
        touch("touchStart", (200, 200))
        touch("touchMove", (220, 200))
        touch("touchStart", (220, 200), (280, 280))
        touch("touchMove", (210, 200), (320, 310))
        touch("touchEnd")
        settled(page)
        assert float(page.locator(".film canvas").get_attribute("data-zoom")) > 1.3
        page.keyboard.press("s")
        wait_for(page, "saved")
        assert np.array_equal(mask_of(page, address), painted)


@pytest.mark.slow
def test_strokes_that_could_not_be_kept_are_not_left_without_a_question(kept, browser):
    """The server is gone, or another page was faster."""
    with kept() as (address, _):
        one, other = browser.new_page(), browser.new_page()
        for page in (one, other):
            page.goto(f"{address}?token={TOKENS[address]}")
            page.wait_for_selector(READY)
            start_correcting(page)
        stroke(one, (0.4, 0.4), (0.6, 0.4))
        wait_for(one, "draft")
        stroke(other, (0.4, 0.6), (0.6, 0.6))
        wait_for(other, "fault")
        assert "changed this film's correction elsewhere" in other.inner_text(".correct .state")
        theirs = mask_of(one, address)
        assert other.evaluate("!dispatchEvent(new Event('beforeunload', {cancelable: true}))")
        other.get_by_role("button", name="Keep mine").click()
        wait_for(other, "draft")
        mine = mask_of(other, address)
        assert not np.array_equal(mine, theirs)
        assert other.evaluate("dispatchEvent(new Event('beforeunload', {cancelable: true}))")
        stroke(one, (0.4, 0.4), (0.6, 0.2))
        wait_for(one, "fault")
        one.get_by_role("button", name="Take theirs").click()
        wait_for(one, "draft")
        assert np.array_equal(mask_of(one, address), mine)
    stroke(one, (0.4, 0.4), (0.6, 0.2))
    wait_for(one, "fault")
    assert one.evaluate("!dispatchEvent(new Event('beforeunload', {cancelable: true}))")
    one.close()
    other.close()


@pytest.mark.slow
def test_what_another_reader_saved_meanwhile_can_be_taken(kept, browser, film, tmp_path):
    with kept() as (address, _), visited(browser, address, 1200, READY) as page:
        start_correcting(page)
        stroke(page, (0.4, 0.4), (0.6, 0.4))
        wait_for(page, "draft")
        theirs = np.zeros((1024, 1024), np.uint8)
        theirs[300:400, 200:300] = 1
        read = dicom.read(film)
        which = Corrected(read.uid, files.sha256(film), read.stored_shape)
        basis = Basis("other", [], {}, theirs)
        Corrections(tmp_path / "corrections", "Dr B").save(which, theirs, basis, None)
        stroke(page, (0.4, 0.6), (0.6, 0.6))
        wait_for(page, "fault")
        assert "Dr B changed this film's correction" in page.inner_text(".correct .state")
        page.get_by_role("button", name="Take theirs").click()
        wait_for(page, "saved")
        assert "by Dr B" in page.inner_text(".correct .state")
        assert np.array_equal(mask_of(page, address), theirs > 0)
        page.keyboard.press("Control+z")
        settled(page)
        assert (mask_of(page, address) & ~(theirs > 0)).any()  # and mine is not lost


@pytest.mark.slow
def test_a_film_that_the_server_forgot_is_found_again_by_its_content(kept, browser, film):
    with kept() as (address, _), visited(browser, address, 1200, READY) as page:
        start_correcting(page)
        ask(address + "api/films", method="DELETE")
        stroke(page, (0.4, 0.4), (0.6, 0.4))
        wait_for(page, "fault")
        assert "drop it again" in page.inner_text(".correct .state")
        ask(address + "api/films?name=again.dcm", film.read_bytes())
        page.get_by_role("button", name="Try again").click()
        wait_for(page, "draft")
        assert mask_of(page, address).any()


def test_without_a_folder_of_corrections_there_is_no_way_to_correct(page):
    assert page.get_by_role("button", name="Correct", exact=True).count() == 0


@pytest.mark.slow
def test_mistakes_are_one_line(model, tmp_path):
    assert "model=<folder>" in complaint(launch(tmp_path, module="pneumo.view"))
    done = launch(tmp_path, f"model={model}", "corrections=c", "open=false", module="pneumo.view")
    assert "corrections=<folder> reader=<who corrects>" in complaint(done)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = launch(
            tmp_path, f"model={model}", f"port={port}", "open=false", module="pneumo.view"
        )
    assert f"port={port}" in complaint(done)
