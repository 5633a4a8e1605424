"""Bundles outlive the code that wrote them."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import launch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import pneumo
from pneumo import seals
from pneumo.data import dicom
from pneumo.errors import PneumoError
from pneumo.inference import bundle, findings, stack
from pneumo.inference.bundle import Role
from pneumo.inference.engine import Probabilities
from pneumo.inference.settings import Unsuitable, Use
from pneumo.inference.stack import Stack
from pneumo.masks.histograms import Histograms
from pneumo.masks.resize import shrink
from pneumo.masks.settings import Postprocess
from pneumo.training.network import build_network
from pneumo.training.options import Architecture, Attention, BatchNorm, Model, Pooling

PARTS = {
    "encoder.": "unet.encoder.",
    "decoder.": "unet.decoder.",
    "head.": "unet.segmentation_head.",
}


@pytest.fixture
def older(model, tmp_path):
    """The bundle as commit 0481b17 wrote it: other names of weights, fewer keys in its card."""
    place = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("*.onnx"))
    path = place / "weights-0.safetensors"
    state = {}
    for key, value in load_file(path).items():
        part = next(name for name in PARTS if key.startswith(name))
        state[PARTS[part] + key.removeprefix(part)] = value
    save_file(state, path, metadata={"format": "pneumo-1", "card": "{}"})
    card = seals.read_json(place / "card.json")
    (member,) = card["members"]
    member["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    for key in ("onnx", "onnx_sha256", "onnx_difference"):
        del member[key]
    known = ("name", "encoder", "encoder_weights", "stem", "mean", "std")
    member["model"] = {key: member["model"][key] for key in known} | {"mean": 0.0, "std": 1.0}
    del card["calibration"]
    (place / "card.json").write_text(json.dumps(card))
    return place


def test_a_bundle_of_version_1_finds_the_same(model, older):
    film = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)
    ours = bundle.load(model, engine="torch")
    theirs = bundle.load(older)
    assert theirs.rule == ours.rule
    assert np.array_equal(theirs.says(film)[0], ours.says(film)[0])


@pytest.mark.slow
def test_onnx_gives_what_torch_gives(tmp_path):
    """With each channel's own mean and std, and another eps."""
    model = Model("x", encoder="tu-test_resnet", batch_norm=BatchNorm(eps=1e-3))
    model.mean, model.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    network = build_network(model, pretrained=False).eval()
    assert bundle.export_onnx(network, 64, tmp_path / "a.onnx") < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        Model("x", Architecture.albunet, "tu-test_resnet", presence=True),
        Model("x", encoder="tu-test_resnet", decoder_attention=Attention.scse),
        Model("x", Architecture.classifier, "tu-test_resnet", presence=True),
        Model("x", Architecture.mil, "tu-test_resnet", presence=True, pooling=Pooling.noisy_or),
        Model("x", encoder="tu-test_convnext"),  # its first map has a quarter of the side
    ],
    ids=lambda model: f"{model.architecture.name}-{model.encoder}-{model.pooling.name}",
)
def test_onnx_gives_what_torch_gives_for_other_networks(tmp_path, model):
    network = build_network(model, pretrained=False).eval()
    assert bundle.export_onnx(network, 64, tmp_path / "a.onnx") < 1e-5
    assert str(Path(pneumo.__file__).parent).encode() not in (tmp_path / "a.onnx").read_bytes()


def test_a_learned_stem_was_of_3_by_3(older):
    weights = older / "weights-0.safetensors"
    stem = {"stem.weight": torch.ones(3, 1, 3, 3), "stem.bias": torch.ones(3)}
    metadata = {"format": "pneumo-1", "card": "{}"}
    save_file({**load_file(weights), **stem}, weights, metadata=metadata)
    card = seals.read_json(older / "card.json")
    (member,) = card["members"]
    member["model"]["stem"] = "conv"
    member["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    (older / "card.json").write_text(json.dumps(card))
    assert bundle.load(older).says(np.zeros((64, 64), np.uint8))[0].ndim == 2


def test_a_film_s_probability_is_what_the_card_s_curve_makes_of_its_score(older, film):
    """An older card has no curve: the probability is the score itself, as it was then."""
    before = pneumo.load_model(older)(film)
    assert before.probability == before.score
    card = seals.read_json(older / "card.json")
    card["calibration"] = {"slope": 0.5, "intercept": -1.0}
    (older / "card.json").write_text(json.dumps(card))
    after = pneumo.load_model(older)(film)
    assert after.score == before.score
    odds = before.score / (1 - before.score)
    assert after.probability == pytest.approx(1 / (1 + np.exp(1) / np.sqrt(odds)))
    assert np.array_equal(after.mask, before.mask)


def test_limits_say_to_what_a_probability_is_calibrated():
    assert "not a calibrated risk" in bundle.limits(["siim"])
    assert "22.2% show pneumothorax" in bundle.limits(["siim"], 0.222)


def test_a_bundle_that_was_tampered_with_is_refused(model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    weights = copy / "weights-0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"zzzz")
    with pytest.raises(PneumoError, match="not the file that the card describes"):
        bundle.load(copy, engine="torch")
    onnx = copy / "weights-0.onnx"
    content = bytearray(onnx.read_bytes())
    content[5_000_000:5_001_000] = bytes(1000)
    onnx.write_bytes(content)
    with pytest.raises(PneumoError, match="not the file that the card describes"):
        bundle.load(copy, engine="onnx")
    card = seals.read_json(copy / "card.json")
    for elsewhere in ("../model/weights-0.safetensors", "weights-0.pth"):
        card["members"][0]["weights"] = elsewhere
        (copy / "card.json").write_text(json.dumps(card))
        with pytest.raises(PneumoError, match="outside the bundle"):
            bundle.load(copy)
    with pytest.raises(PneumoError, match=r"pneumo\.export"):
        bundle.load(tmp_path)


@pytest.fixture
def small(tmp_path):
    """A bundle of one untrained network without ONNX, and the card it was made of."""
    network = build_network(Model("x", encoder="tu-test_resnet"), pretrained=False)
    model = {"name": "x", "encoder": "tu-test_resnet", "encoder_weights": "none"}
    data = {"format": "phantom", "name": "phantom", "training": 9}
    card = {"name": "small", "limits": "", "postprocess": {}, "tta": False, "data": [data]}

    def write(folder):
        about = {"model": model, "input": {"size": 32}}
        bundle.write(folder, card, [network], [about], onnx=False)
        return folder

    return write


def test_a_bundle_holds_what_its_card_says_and_nothing_from_elsewhere(small, tmp_path):
    place, other = small(tmp_path / "model"), small(tmp_path / "other")
    assert bundle.load(place).says(np.zeros((40, 40), np.uint8))[0].shape == (32, 32)
    card = seals.read_json(place / "card.json")
    weights = place / "weights-0.safetensors"
    for elsewhere in ("../other/weights-0.safetensors", str(other / "weights-0.safetensors")):
        card["members"][0]["weights"] = elsewhere
        (place / "card.json").write_text(json.dumps(card))
        with pytest.raises(PneumoError, match="lies outside the bundle"):
            bundle.load(place)
    card["members"][0]["weights"] = weights.name
    (place / "card.json").write_text(json.dumps(card))
    bundle.load(place)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PneumoError, match="not the file that the card describes"):
        bundle.load(place)


def test_a_bundle_replaces_a_bundle_but_no_folder_that_holds_anything_else(small, tmp_path):
    place = small(small(tmp_path / "model"))
    note = place / "notes.txt"
    note.write_text("mine")
    with pytest.raises(PneumoError, match=r"holds notes\.txt beside a bundle"):
        small(place)
    assert note.read_text() == "mine"
    bundle.load(place)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "film.dcm").touch()
    with pytest.raises(PneumoError, match="not a bundle"):
        small(tmp_path / "films")
    assert (tmp_path / "films" / "film.dcm").is_file()


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members(finished, film, tmp_path):
    place = tmp_path / "both"
    wanted = "run=[runs/exp5/*/*,runs/exp5_stage1/*/*]"
    done = launch(
        finished[0], wanted, "blend=mean", f"out={place}", "resamples=0", module="pneumo.export"
    )
    assert done.returncode == 0, done.stderr
    both = bundle.load(place, engine="torch")
    pixels = dicom.read(film).pixels
    alone = []
    for member in both.members:
        single = bundle.Bundle(both.folder, both.card, [member], both.rule, both.tta, "torch")
        alone.append(single.says(pixels)[0])
    sizes = [levels.shape for levels in alone]
    assert sizes == [(64, 64), (32, 32)]
    expected = (alone[0].astype(float) + bundle.enlarge(alone[1], (64, 64))) / 2
    assert np.abs(both.says(pixels)[0] - expected).max() <= 0.5


def test_limits_follow_from_the_data(model, film, real_data):
    used = bundle.load(model)
    assert "phantoms, not on X-rays" in used.card["limits"]
    assert "adults" not in used.card["limits"]
    assert re.search(r"trained on 18 drawn phantoms.*Dice [01]\.\d+ on 6 held out", used.experience)
    assert "adults from one source" in bundle.limits(["siim"])
    real = sorted(real_data.glob("siim/dicom-images-train/**/*.dcm"))[0]
    use = Use(unsuitable=Unsuitable.use)
    assert "phantoms, not on X-rays" in findings.read("x", real.read_bytes(), use, used).notes[-1]
    assert not any("phantom" in n for n in findings.read("x", film.read_bytes(), use, used).notes)


def test_a_card_that_is_not_understood_names_its_writer(older):
    card = seals.read_json(older / "card.json")
    card["members"][0]["model"]["colour"] = 1
    (older / "card.json").write_text(json.dumps(card))
    with pytest.raises(PneumoError, match=r"written by pneumo 0\.1\.0, commit .*colour"):
        bundle.load(older)


def test_the_card_says_what_binds_whoever_uses_the_encoder():
    told = bundle.limits(["siim"], licences=["apache-2.0", "dinov3-license", "dinov3-license"])
    assert told.count("under dinov3-license, whose terms bind") == 1
    assert "apache" not in told


def saying(levels, presence=None):
    """An engine that says the same of every film and of its mirror image."""

    def engine(films):
        maps = np.full(films.shape, levels / 255, np.float32)
        told = None if presence is None else np.full(len(films), presence, np.float32)
        return Probabilities(maps, told)

    return engine


def of_maps(totals):
    return Histograms(totals, np.zeros_like(totals))


def test_a_blend_weighs_maps_and_stacks_what_is_said_of_the_film():
    """Two fits of masks, the first of two epochs; one that only tells presence; a stack of all."""
    names, _ = stack.features(of_maps(np.ones((1, 256))), np.ones(1))
    width = len(names)
    made = Stack([*names] * 2, [0.0] * 2 * width, [1.0] * 2 * width, [0.1] * 2 * width, -3.0, 9, 4)
    roles = [
        Role(0, "masks", 0.5, True),
        Role(0, "masks", 0.5, True),
        Role(1, "masks", 3.0, False),
        Role(2, "judge", 0.0, True),
    ]
    engines = [saying(100, 0.2), saying(50, 0.4), saying(200), saying(10, 0.9)]
    members = [(32, engine) for engine in engines]
    pixels = np.zeros((64, 64), np.uint8)
    plain = bundle.Bundle(Path(), {}, members, Postprocess(), True, "torch", roles=roles)
    levels, presence = plain.says(pixels)
    assert set(np.unique(levels)) == {round((75 + 3 * 200) / 4)}
    assert presence == pytest.approx((0.3 + 0.9) / 2)
    stacked = dataclasses.replace(plain, stack=made)
    _, presence = stacked.says(pixels)
    columns = []
    for level, told in ((75, 0.3), (10, 0.9)):
        total = np.zeros((1, 256))
        total[0, level] = 1024 * 1024
        columns.append(stack.features(of_maps(total), np.array([told]))[1])
    assert presence == pytest.approx(float(made(np.concatenate(columns, axis=1))[0]), abs=1e-6)


def test_many_films_at_once_give_what_each_gives_alone():
    def bright(films):
        level = films.astype(np.float32).mean((1, 2)) / 255
        return Probabilities(np.ones(films.shape, np.float32) * level[:, None, None], level)

    roles = [Role(0, "a"), Role(1, "b", 0.5)]
    members = [(32, bright), (16, bright)]
    made = bundle.Bundle(Path(), {}, members, Postprocess(), True, "torch", roles=roles)
    films = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype(np.uint8)
    at = {size: np.stack([shrink(film, size) for film in films]) for size in (16, 32)}
    for said, tta in zip(made.says_of(at), (False, True), strict=True):
        assert said.levels.shape == (3, made.size, made.size) == (3, 32, 32)
        for row, film in enumerate(films):
            levels, presence = made.says(film, tta)
            assert np.array_equal(said.levels[row], levels)
            assert said.presence[row] == pytest.approx(presence)


fits = st.lists(
    st.tuples(st.integers(0, 255), st.floats(0.1, 9), st.none() | st.floats(0, 1)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25)
@given(fits, st.randoms())
def test_a_blend_is_the_weighted_mean_whatever_the_order_of_its_networks(told, shuffle):
    levels, weights, presence = zip(*told, strict=True)
    expected = np.average(levels, weights=weights)
    scores = [one for one in presence if one is not None]
    for _ in range(2):
        made = bundle.Bundle(
            Path(),
            {},
            [(8, saying(level, score)) for level, _, score in told],
            Postprocess(),
            False,
            "torch",
            roles=[Role(place, "a", weight) for place, (_, weight, _) in enumerate(told)],
        )
        found, score = made.says(np.zeros((8, 8), np.uint8))
        assert found == pytest.approx(expected, abs=0.5 + 1e-6)
        assert score == (pytest.approx(np.mean(scores), abs=1e-6) if scores else None)
        shuffle.shuffle(told)
