"""A folder of films beside a folder of mask pictures."""

import cv2
import numpy as np
import pytest
from PIL import Image

from pneumo.data import cache, index
from pneumo.data.settings import FolderData, OnError
from pneumo.errors import PneumoError


def film(path, shape=(96, 128)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)


def square(shape=(96, 128)):
    mask = np.zeros(shape, np.uint8)
    mask[10:40, 20:60] = 255
    return mask


def picture(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)


@pytest.fixture
def place(tmp_path):
    """A positive film, a negative one, and one without a mask."""
    for name in "abc":
        film(tmp_path / "films" / f"{name}.png")
    picture(tmp_path / "masks" / "a.png", square())
    picture(tmp_path / "masks" / "b.png", np.zeros((96, 128), np.uint8))
    return tmp_path


def read(place, **options):
    data = FolderData(name="own", root=str(place / "films"), masks=str(place / "masks"), **options)
    return index.read(data, str(place / "runs"))


def test_films_and_masks_are_joined_by_name(place):
    found = read(place)
    assert [(item.id, item.positive) for item in found.items] == [("a", True), ("b", False)]
    reason = "films without a mask picture (not annotated, so not negative)"
    assert found.left_aside[reason] == [str(place / "films" / "c.png")]
    films = cache.build(found.items, 64, place / "cache")
    assert films.masks[0].mean() == pytest.approx(square().mean() / 255, abs=0.01)
    assert films.masks[1].sum() == 0


def test_a_mask_may_have_another_size_than_its_film(place):
    picture(place / "masks" / "a.png", cv2.resize(square(), (64, 48)))
    films = cache.build(read(place).items, 64, place / "cache")
    assert films.masks[0].mean() == pytest.approx(square().mean() / 255, abs=0.03)


def test_colours_palettes_and_lossy_pictures_are_masks_too(place):
    plain = cache.build(read(place).items, 64, place / "cache").masks[0].copy()
    colour = np.zeros((96, 128, 3), np.uint8)
    colour[..., 2] = square()
    for name, mask in (("a.png", colour), ("a.jpg", square()), ("a.bmp", square())):
        for old in (place / "masks").glob("a.*"):
            old.unlink()
        picture(place / "masks" / name, mask)
        assert np.array_equal(cache.build(read(place).items, 64, place / "cache").masks[0], plain)


def test_ptx_498_numbers_the_films_of_each_site_from_one_on(tmp_path):
    root = tmp_path / "PTX-498"
    for site in ("SiteA", "SiteB"):
        film(root / site / "7.1.img.png")
        picture(root / site / "7.2.mask.png", square() * (site == "SiteB"))
        for name in ("7.1.img.nii.gz", "7.2.mask.nii"):  # its copies for other programs
            (root / site / name).write_bytes(b"NIfTI")
    found = index.read(FolderData(name="ptx", root=str(root), masks=str(root)), "runs")
    assert [(item.id, item.site, item.positive) for item in found.items] == [
        ("SiteA-7", "SiteA", False),
        ("SiteB-7", "SiteB", True),
    ]
    assert found.left_aside == {}
    (root / "who.csv").write_text("film,patient,site\nSiteA-7,P1,North\n")
    data = FolderData(name="ptx", root=str(root), masks=str(root), patients=str(root / "who.csv"))
    items = index.read(data, "runs").items
    assert [(item.patient, item.site) for item in items] == [("P1", "North"), (None, "SiteB")]


def test_numbered_films_and_masks_that_are_of_no_site_keep_their_names(tmp_path):
    film(tmp_path / "images" / "7.1.img.png")
    picture(tmp_path / "masks" / "7.2.mask.png", square())
    data = FolderData(name="own", root=str(tmp_path), masks=str(tmp_path))
    assert [(i.id, i.site) for i in index.read(data, "runs").items] == [("7", None)]


def test_the_challenges_films_as_pictures_beside_masks_of_the_same_name(tmp_path):
    for name, mask in (("0_test_1_", square()), ("1_train_0_", square() * 0)):
        film(tmp_path / "png_images" / f"{name}.png")
        picture(tmp_path / "png_masks" / f"{name}.png", mask)
    for part in ("train", "test"):
        (tmp_path / f"stage_1_{part}_images.csv").write_text("new_filename,ImageId,has_pneumo\n")
    data = FolderData(
        name="mirror", root=str(tmp_path / "png_images"), masks=str(tmp_path / "png_masks")
    )
    found = index.read(data, "runs")
    assert [(item.id, item.positive) for item in found.items] == [
        ("0_test_1_", True),
        ("1_train_0_", False),
    ]
    assert found.left_aside == {}


def test_patients_and_sites_come_from_a_table(place):
    (place / "who.csv").write_text("film,patient,site\na,P1,North\nb,P2,South\n")
    items = read(place, patients=str(place / "who.csv")).items
    assert [(item.patient, item.site) for item in items] == [("P1", "North"), ("P2", "South")]


def test_a_mask_of_another_shape_is_refused_or_left_out(place):
    picture(place / "masks" / "a.png", square((96, 96)))
    with pytest.raises(PneumoError, match=r"a\.png: 96 × 96 .* 128 × 96 .*on_error=skip"):
        read(place)
    skipped = read(place, on_error=OnError.skip)
    assert [item.id for item in skipped.items] == ["b"]
    assert "mask pictures that cannot be used" in skipped.left_aside


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda place: (place / "masks" / "a.png").write_bytes(b"x"), "not a picture"),
        (lambda place: picture(place / "masks" / "a_mask.png", square()), "none of its films"),
        (lambda place: picture(place / "masks" / "deep" / "a.png", square()), "second mask"),
        (lambda place: [path.unlink() for path in (place / "masks").iterdir()], "no mask pictures"),
        (lambda place: [path.unlink() for path in (place / "films").iterdir()], "no films"),
    ],
)
def test_what_does_not_fit_is_named(place, change, message):
    change(place)
    if message == "none of its films":
        film(place / "films" / "z.png")
        for name in "abc":
            (place / "films" / f"{name}.png").unlink()
    with pytest.raises(PneumoError, match=message):
        read(place)


def test_the_folders_must_be_named():
    with pytest.raises(PneumoError, match=r"data\.root is not set"):
        index.read(FolderData(name="own"), "runs")
    with pytest.raises(PneumoError, match=r"data\.masks is not set"):
        index.read(FolderData(name="own", root="films"), "runs")
