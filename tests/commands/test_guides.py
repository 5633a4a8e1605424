"""Four people follow the README's guides as they stand: a student with the challenge's data, an
engineer who extends, a radiologist with films, and a reader who corrects. Only sizes are cut down.
"""

import csv
import json
import re
import shlex
import shutil
import urllib.request
from pathlib import Path

import cv2
import pydicom
import pytest
import timm
from conftest import asking, complaint, launch, one, serving, visited
from safetensors.torch import load_file, save_file

from pneumo import seals
from pneumo.data import dicom
from pneumo.data.settings import PhantomData, SiimData
from pneumo.data.sources import phantom, siim
from pneumo.masks import pictures

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SMALL = (
    *("scale.positive_rate=0.34", "scale.size=0.125", "scale.epochs=0.03"),
    *("epochs=2", "batch_size=8", "log.pictures=0", "machine.threads=1", "split.validation=0.25"),
    "log.checkpoints=true",
)
SMALL_ENCODERS = {"tu-efficientnet_b3": "tu-test_efficientnet"}


def guide(heading: str, folder: Path) -> list[list[str]]:
    """The arguments of each command of a guide; its files are written below ``folder``."""
    (section,) = re.findall(rf"^### {heading}\n(.*?)(?=^##)", README, re.DOTALL | re.MULTILINE)
    commands = []
    for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
        if language == "bash":
            commands += [shlex.split(line, comments=True) for line in text.splitlines()]
        else:
            path = folder / re.search(r"# ([\w/]+\.\w+)", text)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    assert 1 <= len(commands) <= 10
    return commands


def small(arguments: list[str]) -> list[str]:
    """A training cut down to two epochs on a few small films, with a network as small."""
    cut = [*arguments, *(() if "scale=mini" in arguments else ("scale=mini",)), *SMALL]
    if "data=phantom" in arguments:
        cut += ["data.images=24", "data.seed=3"]
    if "+experiment=wide" not in arguments:  # averages exponentially, so no epochs are counted
        cut.append("averaging.epochs=1")
    encoders = [one.partition("=")[2] for one in arguments if one.startswith("model.encoder=")]
    cut = [one for one in cut if not one.startswith("model.encoder=")]
    return [*cut, f"model.encoder={SMALL_ENCODERS[encoders[0]] if encoders else 'tu-test_resnet'}"]


def follow(heading: str, folder: Path) -> list:
    """Run a guide's commands one after another; all must end well."""
    finished = []
    for python, option, module, *arguments in guide(heading, folder):
        assert (python, option) == ("python", "-m")
        # what cuts a training down stands in the names of its runs
        typed = [re.sub(r"runs/(\w+)/[^/]+/.*", r"runs/\1/*/*", one) for one in arguments]
        typed = small(typed) if module == "pneumo.train" else typed
        done = launch(folder, *typed, module=module)
        assert done.returncode == 0, (module, typed, done.stderr)
        finished.append(done)
    return finished


@pytest.fixture
def challenge(phantoms, tmp_path) -> Path:
    """A folder that holds phantoms as somebody has the challenge's files."""
    shutil.copytree(phantoms, tmp_path / "dicom-images-train")
    table = tmp_path / "dicom-images-train" / "train-rle.csv"
    table.rename(tmp_path / "stage_2_train.csv")
    (tmp_path / "dicom-images-test").mkdir()
    patients, wanted = ["Kaggle_ID,NIH_ID"], ["ImageId,EncodedPixels"]
    numbers: dict[str, int] = {}  # the NIH's file names begin with the patient's number
    for number, path in enumerate(sorted((tmp_path / "dicom-images-train").rglob("*.dcm"))):
        header = pydicom.dcmread(path)
        patient = numbers.setdefault(header.PatientID, len(numbers))
        patients.append(f"{header.SOPInstanceUID},{patient:08}_{number:03}.png")
        if number < 3:
            shutil.copy(path, tmp_path / "dicom-images-test" / f"ID_{number}.dcm")
            wanted.append(f"ID_{number},-1")
    (tmp_path / "nih_id.csv").write_text("\n".join(patients))
    (tmp_path / "stage_2_sample_submission.csv").write_text("\n".join(wanted))
    return tmp_path


@pytest.mark.slow
def test_a_student_comes_from_the_challenges_data_to_a_submission(challenge):
    checked, trained, judged, submitted, reported = follow(
        "From the challenge's data to a submission", challenge
    )
    assert "24  films on disk" in checked.stdout
    assert "split by patient" in trained.stdout
    assert "Dice" in judged.stdout
    assert "3 images" in submitted.stdout
    with (challenge / "submission.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["ImageId"] for row in rows} == {"ID_0", "ID_1", "ID_2"}
    page = challenge / re.search(r"Page: +(\S+)", reported.stdout)[1]
    assert "exp5" in page.read_text()


@pytest.mark.slow
def test_an_engineer_trains_on_data_of_their_own(phantoms, tmp_path):
    data = SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    for folder in ("films", "masks"):
        (tmp_path / folder).mkdir()
    for item in siim.read_index(data).items:
        film = dicom.read(item.path)
        cv2.imwrite(str(tmp_path / "films" / f"{item.id}.png"), film.pixels)
        mask = item.mask(film.stored_shape)
        cv2.imwrite(str(tmp_path / "masks" / f"{item.id}.png"), mask * 255)
    checked, trained, judged = follow("Your own data", tmp_path)
    assert "24  films on disk" in checked.stdout
    run = one(tmp_path, "exp5")
    assert run.parent.name.startswith("ours-mini")
    made = launch(tmp_path, f"run={run}", "out=model", "resamples=20", module="pneumo.export")
    assert made.returncode == 0, made.stderr
    assert "exp5_stage1" in trained.stdout
    assert "Dice" in judged.stdout


@pytest.mark.slow
def test_an_engineer_trains_an_experiment_with_an_encoder_and_a_loss_of_their_own(tmp_path):
    follow("Your own experiment", tmp_path)
    assert (one(tmp_path, "wide") / "weights.safetensors").is_file()

    classifier = timm.create_model("test_efficientnet")
    classifier.conv_stem.weight.data.fill_(0.125)
    save_file(classifier.state_dict(), tmp_path / "encoder.safetensors")
    (done,) = follow("Your own encoder", tmp_path)
    (run,) = (tmp_path / "runs" / "exp2").glob("*/*")
    stem = load_file(run / "weights.safetensors")["encoder.model.conv_stem.weight"]
    assert (stem - 0.125).abs().max() < 0.1  # a few steps away from where it started
    shutil.rmtree(run.parent)

    (done,) = follow("Your own loss", tmp_path)
    run = one(tmp_path, "exp2")
    assert "tversky" in (run / "own_loss.py").read_text()
    assert "Next" in done.stdout
    (run / "metrics.json").unlink()  # as if it had been stopped, and the loss is another since
    with (tmp_path / "ourloss.py").open("a") as file:
        file.write("# a change\n")
    again = launch(tmp_path, *done.args[3:], module="pneumo.train")
    assert "its loss.own changed since this run was interrupted" in complaint(again)


@pytest.mark.slow
def test_an_engineer_joins_five_folds_in_an_ensemble(tmp_path, film):
    trained, judged, _ = follow("Five folds and their ensemble", tmp_path)
    assert len(list((tmp_path / "runs" / "exp2").glob("*/fold?-seed0*"))) == 5
    assert "mean" in trained.stdout
    assert "24 films" in judged.stdout
    card = json.loads((tmp_path / "ensemble" / "card.json").read_text())
    assert len(card["members"]) == 5
    used = launch(tmp_path, "model=ensemble", f"input={film}", module="pneumo.predict")
    assert used.returncode == 0, used.stderr


@pytest.mark.slow
def test_a_radiologist_comes_from_films_to_masks_and_a_page(model, phantoms, browser, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "films").mkdir()
    films = sorted(phantoms.rglob("*.dcm"))[:3]
    for number, path in enumerate(films[:2]):
        shutil.copy(path, tmp_path / "films" / f"chest{number}.dcm")
    hip = pydicom.dcmread(films[2])
    hip.BodyPartExamined = "HIP"
    hip.save_as(tmp_path / "films" / "hip.dcm")

    _, predict, view = guide("From films to masks", tmp_path)
    done = launch(tmp_path, *predict[3:], module=predict[2])
    assert done.returncode == 1  # one of the films is no chest
    assert "hip.dcm: not a chest by its tags" in done.stdout
    assert (tmp_path / "masks" / "chest0-mask.png").is_file()
    assert (tmp_path / "masks" / "chest1-overlay.png").is_file()

    with serving(tmp_path, *view[3:]) as (address, _):
        for width in (1200, 390):  # a desk, and a phone
            with visited(browser, address, width, "body[data-ready] .film canvas") as page:
                for name in ("chest0.dcm", "chest1.dcm"):
                    page.locator("#list .pick", has_text=name).click()
                    page.wait_for_selector(f".film[data-drawn='declared']:has-text('{name}')")
                assert "not a chest by its tags" in page.inner_text("#said")
                assert "drawn phantoms" in page.inner_text("header")
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                with page.expect_download() as download:
                    page.locator(".film a[data-kind='overlay.png']").click()
                assert download.value.suggested_filename == "chest1-overlay.png"


@pytest.mark.slow
def test_a_reader_corrects_masks_and_a_training_goes_on_from_them(model, finished, tmp_path):
    """Every mask is set to the truth, over HTTP as the page does it, and becomes the training's."""
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(
        one(finished[0], "exp5"), tmp_path / "runs" / "exp5" / "siim-full" / "fold0-seed0"
    )
    root = tmp_path / "films"
    phantom.generate(PhantomData(name="new", images=12, positive_rate=0.5, seed=9), root)
    truth = SiimData(name="truth", root=str(root), annotations=str(root / "train-rle.csv"))
    items = {item.id: item for item in siim.read_index(truth).items}

    view, train = guide("Corrections that come back", tmp_path)
    with serving(tmp_path, *view[3:]) as (address, _):
        with urllib.request.urlopen(asking(f"{address}api/films")) as answer:
            shown = json.load(answer)["films"]
        for film in shown:
            item = items[Path(film["name"]).stem]
            mask = pictures.png(item.mask((film["rows"], film["columns"])) * 255)
            url = f"{address}api/films/{film['id']}/correction"
            with urllib.request.urlopen(asking(url, mask, "PUT")) as answer:
                assert json.load(answer)["state"] == "saved"
    assert len(shown) == 12

    done = launch(tmp_path, *small(train[3:]), module=train[2])
    assert done.returncode == 0, done.stderr
    assert "from runs/exp5/siim-full/fold0-seed0/weights.safetensors" in done.stdout
    (run,) = (tmp_path / "runs" / "exp5").glob("corrected-mini*/*")
    assert (run / "metrics.json").is_file()
    parts = seals.read_json(run / "parts.json")
    assert {image for part in parts.values() for image in part} == set(items)
    corrected = SiimData(
        name="c", root=str(root), annotations=str(tmp_path / "corrections" / "corrections.csv")
    )
    for item in siim.read_index(corrected).items:
        shape = dicom.read_tags(item.path).stored_shape
        assert (item.mask(shape) == items[item.id].mask(shape)).all()
