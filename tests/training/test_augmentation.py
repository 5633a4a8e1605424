import dataclasses
from types import SimpleNamespace

import albumentations
import cv2
import numpy as np
import pytest
import torch
from conftest import slow_but
from torch.utils.data import DataLoader

from pneumo.data import cache
from pneumo.data.settings import SiimData
from pneumo.data.sources import siim
from pneumo.training import augmentation
from pneumo.training.loader import EpochSampler, FilmDataset
from pneumo.training.options import Augmentation, Border, Intensity, Resolution, Sampling
from pneumo.training.sampling import EpochFilms

ALL = Augmentation(flip=0.5, intensity=0.3, distortion=0.3, crop=0.25)
SIZE = Resolution(64)
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 255, (64, 64), dtype=np.uint8)
MASK = np.zeros((64, 64), np.uint8)
MASK[10:30, 5:25] = 1


def test_images_stay_uint8_and_masks_binary():
    every = Augmentation(1, 1, 1, 1, 1, 1, list(Intensity))
    for window in (0, 32):
        run = augmentation.build(dataclasses.replace(every, window=window), SIZE)
        for i in range(30):
            image, mask = run(IMAGE, MASK, [0, 0, i])
            assert (image.dtype, mask.dtype) == (np.uint8, np.uint8)
            assert image.shape == mask.shape == ((32, 32) if window else (64, 64))
            assert set(np.unique(mask)) <= {0, 1}


def test_the_mask_changes_nothing_of_the_image():
    every = Augmentation(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, list(Intensity))
    run = augmentation.build(every, SIZE)
    for i in range(30):
        image, _ = run(IMAGE, MASK, [0, 0, i])
        same, empty = run(IMAGE, np.zeros_like(MASK), [0, 0, i])
        assert np.array_equal(image, same)
        assert not empty.any()


# of the films and masks that the paper's recipe gave before there were other groups: their sums
BEFORE = {
    0: (603191, 447),
    1: (518174, 481),
    5: (468203, 481),
    6: (517733, 1296),
    7: (517620, 504),
    9: (528779, 481),
    11: (586846, 476),
}


@pytest.mark.parametrize("key", BEFORE)
def test_the_papers_recipe_draws_what_it_always_drew(key):
    y, x = np.mgrid[:64, :64]
    image = (127 + 100 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint8)
    mask = ((x - 30) ** 2 + (y - 25) ** 2 < 150).astype(np.uint8)
    image, mask = augmentation.build(ALL, SIZE)(image, mask, [0, 0, key])
    grey, area = BEFORE[key]
    assert image.sum(dtype=int) == pytest.approx(grey, rel=1e-4)  # OpenCV's rounding may change
    assert mask.sum() == pytest.approx(area, abs=2)


@pytest.mark.parametrize("group", ["flip", "intensity", "distortion", "crop", "affine", "blur"])
def test_each_group_does_something_at_its_probability(group):
    changed = [
        not np.array_equal(
            augmentation.build(Augmentation(**{group: 0.5}), SIZE)(IMAGE, MASK, [0, 0, i])[0], IMAGE
        )
        for i in range(120)
    ]
    assert 0.3 < np.mean(changed) < 0.7


def blob(size, rng):
    """A film with one bright ellipse anywhere, its edge blurred over some pixels."""
    y, x = np.mgrid[:size, :size]
    top, left = rng.uniform(0.35, 0.65, 2) * size
    distance = np.hypot((y - top) / rng.uniform(1, 1.5), x - left)
    return (127.5 + 16 * (size / 6 - distance)).clip(0, 255).round().astype(np.uint8)


def centre(mask):
    return np.mean(np.nonzero(mask), axis=1)


@pytest.mark.parametrize("group", ["flip", "intensity", "distortion", "crop", "affine", "blur"])
def test_masks_stay_on_their_films_to_a_twentieth_of_a_pixel(group):
    run = augmentation.build(Augmentation(**{group: 1}, brightness_limit=0), Resolution(128))
    rng, apart = np.random.default_rng(0), []
    for i in range(400):
        film = blob(128, rng)
        image, mask = run(film, (film > 127).astype(np.uint8), [0, 0, i])
        edge = 127
        if group == "intensity":  # another level stands at the same edge
            edge = np.interp(127.5, np.sort(film.ravel()), np.sort(image.ravel()))
        apart.append(centre(mask) - centre(image > edge))
    assert np.abs(np.mean(apart, axis=0)).max() < 0.05


def shifts(maps):
    """How far along x and y each pixel's source lies, from maps of many draws, (n, 2, h, w)."""
    return np.array(maps) - np.stack(np.meshgrid(*2 * [np.arange(maps[0][0].shape[1])]))


@pytest.mark.parametrize(("normalized", "figure"), [(False, 10.1), (True, 5.7)])
def test_the_grid_distortion_is_as_strong_as_in_2019(normalized, figure):
    """albumentations 0.3: 10.1 px along an axis at 256²; 2.0.8 with its defaults: 5.7."""
    rng = np.random.default_rng(0)
    maps = [augmentation.grid(256, 0.3, normalized, rng).source() for _ in range(400)]
    assert np.abs(shifts(maps)).mean() == pytest.approx(figure, abs=0.4)
    borders = {x[0, 0] for x, _ in maps} | {float(x[-1, -1]) for x, _ in maps}
    assert (max(borders) < 256) == normalized


@pytest.mark.parametrize(("alpha", "affine"), [(120, 0), (0, 3.6), (120, 3.6)])
def test_the_elastic_transform_has_noise_and_an_affine_part(alpha, affine):
    """Uniform noise has variance 1/3; a Gaussian of sigma leaves 1 / (4 pi sigma²) of it. Between
    three points that move by variance a²/3, the mean of a film moves by 5/4 of it.
    """
    rng = np.random.default_rng(0)
    maps = [augmentation.elastic(256, alpha, 6, affine, rng).source() for _ in range(150)]
    variance = alpha**2 / 3 / (4 * np.pi * 6**2) + 5 / 4 * affine**2 / 3
    assert shifts(maps).std() == pytest.approx(np.sqrt(variance), rel=0.08)


def theirs(transform, size=256):
    """Where an albumentations transform takes each pixel from: x and y, float32 (2, size, size)."""
    ramps = np.stack(np.meshgrid(*2 * [np.arange(size, dtype=np.float32)]), axis=-1)
    return np.moveaxis(transform(image=ramps)["image"], -1, 0)


@pytest.mark.parametrize("k", [-0.3, 0.5, 2.0])
def test_albumentations_distorts_optically_as_we_do(k):
    mapped = theirs(albumentations.OpticalDistortion(distort_limit=(k, k), p=1))
    ours = np.array(augmentation.Optical(256, k).source())
    inside = ((ours > 0) & (ours < 255)).all(0)  # beyond the border it mirrors
    assert inside.mean() > 0.3
    # cv2.remap knows a 32nd of a pixel
    assert mapped[:, inside] == pytest.approx(ours[:, inside], abs=0.05)


def test_albumentations_distorts_as_much_where_it_does_what_it_did_in_2019():
    """A grid whose borders stay, and noise without an affine part; means of 60 draws."""
    inner, rng = (..., slice(32, -32), slice(32, -32)), np.random.default_rng(0)
    kinds = [
        (
            albumentations.GridDistortion(distort_limit=0.3, p=1),
            lambda: augmentation.grid(256, 0.3, True, rng).source(),
        ),
        (
            albumentations.ElasticTransform(120, 6, noise_distribution="uniform", p=1),
            lambda: augmentation.elastic(256, 120, 6, 0, rng).source(),
        ),
    ]
    for transform, draw in kinds:
        seeded = albumentations.Compose([transform], seed=0)
        expected = np.abs(shifts([theirs(seeded) for _ in range(60)])[inner]).mean()
        assert np.abs(shifts([draw() for _ in range(60)])[inner]).mean() == pytest.approx(
            expected, rel=0.1
        )


@pytest.mark.parametrize(("k", "corner", "side"), [(-0.35, 0, 0), (-0.5, 1, 0), (-1, 1, 1)])
def test_the_optical_distortion_folds_the_film_where_it_says(k, corner, side):
    x = augmentation.Optical(256, k).source()[0]
    r = np.array([0, 0.25, 0.5])  # along the middle row, in film widths from the centre
    assert (x[128, [128, 192, 255]] - 128) / 256 == pytest.approx(
        r * (1 + k * r**2 + k * r**4), abs=0.005
    )
    assert (x[-2, -2] > x[-1, -1]) == corner
    assert (x[128, -2] > x[128, -1]) == side
    everywhere = augmentation.Optical(256, -2).source()[0][128, 128:]
    assert everywhere.argmax() / 256 == pytest.approx(0.37, abs=0.005)


@pytest.mark.parametrize("size", [256, 512])
def test_optical_maps_are_opencvs_to_a_thousandth_of_a_pixel(size):
    camera = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1]], np.float32)
    for k in (-2, -0.5, 2):
        bends = np.array([k, k, 0, 0, 0], np.float32)
        shape, kind = (size, size), cv2.CV_32FC1
        exact = cv2.initUndistortRectifyMap(camera, bends, None, None, shape, kind)[:2]
        assert np.abs(np.array(augmentation.Optical(size, k).source()) - exact).max() < 0.001


@pytest.mark.parametrize("size", [256, 512])
def test_places_beyond_the_edge_become_those_that_mirror_them(size):
    film = np.random.default_rng(0).integers(0, 255, (size, size), dtype=np.uint8)
    beyond, inside = augmentation.Optical(size, 2).source(), augmentation.Optical(size, 2).source()
    augmentation.mirror(inside, size)
    assert np.max(beyond) > 1.5 * size
    assert (np.min(inside), np.max(inside)) >= (0, size - 2)
    assert np.max(inside) <= size - 1
    expected, found = (
        cv2.remap(film, *source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for source in (beyond, inside)
    )
    # where a place lies halfway between two 32nds, either is right
    assert np.quantile(np.abs(expected.astype(int) - found), 0.99) <= 1


def covariances(weights):
    """Of all pairs of pixels that are such sums (rows) of draws (columns)."""
    return weights @ weights.T


@pytest.mark.parametrize("size", [256, 512])
def test_elastic_shifts_vary_and_go_together_to_a_hundredth_as_noise_of_every_pixel(size):
    """Exactly, along a row of pixels: noise and its smoothing are alike along both axes."""
    step = 2 ** augmentation.doublings(6)
    assert step == 4
    maps = []
    for drawn in np.eye(size // step):
        still = SimpleNamespace(
            random=lambda shape, kind, drawn=drawn: (np.full(shape, drawn[:, None], kind) + 1) / 2,
            uniform=lambda least, most, shape: np.zeros(shape),
        )
        maps.append(augmentation.elastic(size, 1, 6, 0, still).source()[0][0] - np.arange(size))
    fast = covariances(np.transpose(maps)) * step  # a draw stands for step pixels along the row

    each = np.eye(size, dtype=np.float32)
    border = cv2.BORDER_REFLECT
    exact = covariances(cv2.GaussianBlur(each, (0, 0), 6, sigmaY=1e-3, borderType=border).T)
    assert np.abs(fast - exact).max() < 0.01 * exact[size // 2, size // 2]


@pytest.mark.parametrize("size", [256, 512])
def test_elastic_shifts_are_those_of_the_gaussian_to_three_hundredths_of_a_pixel(size):
    """Of the same noise, drawn at every fourth pixel, summed up for each pixel."""
    noise = np.random.default_rng(0).random((size // 4, size // 4, 2), np.float32) * 2 - 1
    nodes = (np.arange(-size // 4, size // 2) + 0.5) * 4 - 0.5
    gaussian = np.exp(-((np.arange(size)[:, None] - nodes) ** 2) / 72)
    gaussian /= gaussian.sum(1, keepdims=True)
    left, middle, right = np.split(gaussian, 3, axis=1)
    each = left[:, ::-1] + middle + right[:, ::-1]  # mirrored at the edges
    exact = [120 / 4 * each @ noise[..., axis] @ each.T for axis in range(2)]
    found = shifts([augmentation.elastic(size, 120, 6, 0, np.random.default_rng(0)).source()])[0]
    apart = found - exact
    assert np.sqrt(np.mean(apart**2)) < 0.03
    assert np.abs(apart).max() < 0.15


@pytest.mark.parametrize(
    ("limits", "change"),
    [
        ({"contrast_limit": 0.2}, lambda new, old: new / old - 1),
        ({"brightness_limit": 0.2}, lambda new, old: (new - old) / 255),
        ({"gamma_limit": [80, 120]}, lambda new, old: np.log(new / 255) / np.log(old / 255) - 1),
    ],
)
def test_intensity_changes_by_up_to_a_fifth(limits, change):
    still = {"contrast_limit": 0, "brightness_limit": 0, "gamma_limit": [100, 100]}
    run = augmentation.build(Augmentation(intensity=1, **{**still, **limits}), SIZE)
    film = np.full((64, 64), 120, np.uint8)
    found = [change(run(film, MASK, [0, 0, i])[0].mean(), 120) for i in range(300)]
    assert min(found) == pytest.approx(-0.2, abs=0.02)
    assert max(found) == pytest.approx(0.2, abs=0.02)
    assert 0.5 < np.mean(np.abs(found) < 1e-9) < 0.8  # the other two of three


def test_a_crop_is_a_square_of_the_film_as_small_as_the_least_or_as_large_as_all():
    run = augmentation.build(Augmentation(crop=1), Resolution(64, crop_min=0.5))
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8), (64, 64)).copy()
    sides = [np.ptp(run(ramp, MASK, [0, 0, i])[0][0].astype(int)) + 1 for i in range(300)]
    assert (min(sides), max(sides)) == (32, 64)


def test_distortion_draws_no_black_border():
    run = augmentation.build(Augmentation(distortion=1), SIZE)
    assert (
        min(run(np.full((64, 64), 200, np.uint8), MASK, [0, 0, i])[0].min() for i in range(40))
        > 190
    )


def test_beyond_the_edge_lies_a_mirror_image_or_nothing():
    film, mask = np.full((64, 64), 200, np.uint8), np.ones((64, 64), np.uint8)
    for group in ("distortion", "affine"):
        for border in Border:
            run = augmentation.build(Augmentation(**{group: 1}, border=border), SIZE)
            found = [run(film, mask, [0, 0, i]) for i in range(40)]
            black = border is Border.black
            assert (min(image.min() for image, _ in found) == 0) == black
            assert (min(moved.min() for _, moved in found) == 0) == black


def disc(size=128):
    """A mask right of the centre, by which shift, scale and rotation can be told apart."""
    y, x = np.mgrid[:size, :size]
    return (np.hypot(x - 0.75 * size, y - 0.5 * size) < size / 10).astype(np.uint8)


def moved_discs(**limits):
    """Centres (y, x) from the film's centre, in film sides, and areas as multiples of before."""
    still = {"shift_limit": 0, "scale_limit": 0, "rotate_limit": 0, **limits}
    run = augmentation.build(Augmentation(affine=1, **still), Resolution(128))
    masks = [run(disc() * 200, disc(), [0, 0, i])[1] for i in range(300)]
    centres = np.array([centre(mask) for mask in masks]) / 128 - 0.5
    return centres, np.array([mask.sum() for mask in masks]) / disc().sum()


def test_films_shift_by_up_to_the_limit_along_each_axis():
    centres, areas = moved_discs(shift_limit=0.1)
    shifts_of_both = centres - [0, 0.25]
    assert shifts_of_both.min(0) == pytest.approx([-0.1, -0.1], abs=0.01)
    assert shifts_of_both.max(0) == pytest.approx([0.1, 0.1], abs=0.01)
    assert np.abs(areas - 1).max() < 0.05


def test_films_grow_and_shrink_about_their_centre_by_up_to_the_limit():
    centres, areas = moved_discs(scale_limit=0.2)
    assert (areas.min(), areas.max()) == pytest.approx((0.8**2, 1.2**2), abs=0.05)
    assert centres == pytest.approx(np.sqrt(areas)[:, None] * [0, 0.25], abs=0.01)


def test_films_turn_about_their_centre_by_up_to_the_limit():
    centres, areas = moved_discs(rotate_limit=30)
    angles = np.degrees(np.arctan2(centres[:, 0], centres[:, 1]))
    assert (angles.min(), angles.max()) == pytest.approx((-30, 30), abs=1)
    assert np.hypot(*centres.T) == pytest.approx(0.25, abs=0.01)
    assert np.abs(areas - 1).max() < 0.05


def test_a_blur_is_a_mean_a_median_or_a_motion():
    """One white pixel: nine greys, none, or a line through the kernel."""
    run = augmentation.build(Augmentation(blur=1), SIZE)
    film = np.zeros((64, 64), np.uint8)
    film[30, 30] = 252
    greys = set()
    for i in range(60):
        image, mask = run(film, MASK, [0, 0, i])
        assert np.array_equal(mask, MASK)
        greys.add(tuple(image[image > 0].tolist()))
    assert greys == {(28,) * 9, (), (126, 126), (84, 84, 84)}


def test_a_motion_is_a_line_of_sum_one_as_long_as_its_kernel_at_most():
    rng = np.random.default_rng(0)
    for side in (3, 7):
        kernels = [augmentation.motion(side, rng) for _ in range(200)]
        assert {kernel.shape for kernel in kernels} == {(side, side)}
        assert [kernel.sum() for kernel in kernels] == pytest.approx([1] * 200)
        pixels = {int((kernel > 0).sum()) for kernel in kernels}
        assert pixels == set(range(2, side + 1))


def chosen(**settings):
    """A film of levels 80 and 160 under one change of them, many times: its new levels."""
    run = augmentation.build(Augmentation(intensity=1, **settings), SIZE)
    film = np.full((64, 64), 80, np.uint8)
    film[32:] = 160
    return np.array([run(film, MASK, [0, 0, i])[0][[0, 63], 0] for i in range(300)], int)


@pytest.mark.parametrize(("of_mean", "unit"), [(False, 255), (True, 120)])
def test_contrast_and_brightness_change_together_by_white_or_by_the_mean(of_mean, unit):
    both = [Intensity.brightness_contrast]
    dark, light = chosen(intensity_choices=both, brightness_of_mean=of_mean).T
    contrast = (light - dark) / 80 - 1
    brightness = (dark - 80 * (1 + contrast)) / unit
    for change in (contrast, brightness):
        assert (change.min(), change.max()) == pytest.approx((-0.2, 0.2), abs=0.03)
    assert abs(np.corrcoef(contrast, brightness)[0, 1]) < 0.2


def test_clahe_evens_out_the_histogram_of_tiles_as_opencv_does():
    settings = {"intensity_choices": [Intensity.clahe], "clahe_limit": 4, "clahe_tiles": 4}
    run = augmentation.build(Augmentation(intensity=1, **settings), Resolution(256))
    dull = np.tile(IMAGE, (4, 4)) // 8 + 100
    spreads = [run(dull, dull & 0, [0, 0, i])[0].std() for i in range(60)]
    most = cv2.createCLAHE(4, (4, 4)).apply(dull).std()
    least = cv2.createCLAHE(1, (4, 4)).apply(dull).std()
    assert dull.std() < least < most
    assert (min(spreads), max(spreads)) == pytest.approx((least, most), rel=0.1)


def corners(mask, key_count=400, **settings):
    """Where windows of 32² of a film lie, by a film that tells each pixel's place."""
    run = augmentation.build(Augmentation(window=32, **settings), SIZE)
    rows, columns = np.mgrid[:64, :64].astype(np.uint8)
    return np.array(
        [
            [run(ramp, mask, [0, 0, i])[0][0, 0] for ramp in (rows, columns)]
            for i in range(key_count)
        ]
    )


def test_windows_lie_anywhere_with_equal_chances():
    places = corners(MASK)
    assert (places.min(), places.max()) == (0, 32)
    assert places.mean(0) == pytest.approx([16, 16], abs=1.5)


def test_windows_hold_some_of_the_mask_where_they_must():
    dot = np.zeros((64, 64), np.uint8)
    dot[5, 60] = 1  # in windows whose top is at most 5, and whose left is at least 29
    places = corners(dot, window_nonempty=1)
    assert (places.min(0).tolist(), places.max(0).tolist()) == ([0, 29], [5, 32])
    run = augmentation.build(Augmentation(window=32, window_nonempty=0.5), SIZE)
    held = np.mean([run(IMAGE, dot, [0, 0, i])[1].any() for i in range(400)])
    by_chance = 6 * 4 / 33**2
    assert held == pytest.approx(0.5 + 0.5 * by_chance, abs=0.08)
    empty = np.zeros_like(dot)
    assert corners(empty, 50, window_nonempty=1).max() > 20  # a film without a mask: anywhere


def test_none():
    assert augmentation.build(Augmentation(), SIZE) is None


@pytest.fixture(scope="module")
def films(phantoms, tmp_path_factory):
    index = siim.read_index(
        SiimData(name="siim", root=str(phantoms), annotations=str(phantoms / "train-rle.csv"))
    )
    return cache.build(index.items, 64, tmp_path_factory.mktemp("cache"), workers=0)


def epochs(films, workers, persistent, count=3, seed=0):
    dataset = FilmDataset(films, np.arange(len(films.ids)), augmentation.build(ALL, SIZE), seed)
    drawn = EpochFilms(Sampling(), [False] * len(dataset), count, seed)
    sampler = EpochSampler(dataset, drawn)
    loader = DataLoader(
        dataset,
        batch_size=5,
        sampler=sampler,
        num_workers=workers,
        collate_fn=dataset.collate,
        persistent_workers=persistent and workers > 0,
    )
    seen = []
    for epoch in range(count):
        sampler.set_epoch(epoch)  # Lightning's call
        batches = list(loader)
        seen.append(
            {key: torch.cat([batch[key] for batch in batches]) for key in ("image", "mask", "row")}
        )
    return seen


@pytest.mark.parametrize("loading", slow_but([(2, True)], [(1, True), (2, True), (2, False)]))
def test_the_same_images_whatever_the_workers(films, loading):
    workers, persistent = loading
    for one, other in zip(epochs(films, 0, False), epochs(films, workers, persistent), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_each_epoch_is_different_and_each_seed(films):
    first, second, _ = epochs(films, 0, False)
    assert not torch.equal(first["row"], second["row"])
    assert sorted(first["row"].tolist()) == list(range(24))
    row = int(first["row"][0])
    images = [one["image"][one["row"] == row] for one in epochs(films, 0, False, count=6)]
    assert len({image.numpy().tobytes() for image in images}) > 3
    assert not torch.equal(first["image"], epochs(films, 0, False, seed=1)[0]["image"])


def test_batches_travel_as_one_channel_bytes(films):
    batch = epochs(films, 0, False, count=1)[0]
    assert (batch["image"].dtype, batch["mask"].dtype, tuple(batch["image"].shape[1:])) == (
        torch.uint8,
        torch.uint8,
        (1, 64, 64),
    )
