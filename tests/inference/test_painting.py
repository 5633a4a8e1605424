"""What is painted on the page's picture, and what becomes of the film's own pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from pneumo.errors import PneumoError
from pneumo.inference import painting

SHAPES = [(2500, 2048), (1500, 1031), (1024, 1024), (600, 400), (1025, 7)]


def ragged(shape, seed=0):
    """A mask whose edges fit no cell: noise of single pixels in a box."""
    mask = np.zeros(shape, np.uint8)
    rows, columns = shape[0] // 2, shape[1] // 2
    mask[:rows, :columns] = np.random.default_rng(seed).random((rows, columns)) < 0.02
    return mask


def png(array, mode=None):
    out = io.BytesIO()
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pixel_is_shown_on_where_any_of_its_film_pixels_is(shape):
    mask = ragged(shape)
    rows, columns = painting.shown_shape(shape)
    assert max(rows, columns) == min(1024, max(shape))
    expected = np.zeros((rows, columns), np.uint8)
    for y, x in np.argwhere(mask):
        expected[y * rows // shape[0], x * columns // shape[1]] = 1
    assert np.array_equal(painting.shown(mask), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_that_were_not_painted_stay_bit_for_bit(shape):
    """A stroke through the middle: outside of it nothing changes, inside it fills whole cells."""
    found = ragged(shape)
    painted = painting.shown(found)
    rows = painted.shape[0]
    stroke = slice(rows // 4, rows // 2)
    painted[stroke] = 1
    mask = painting.applied(painted, found, found)
    cell = np.arange(shape[0]) * rows // shape[0]
    touched = (cell >= stroke.start) & (cell < stroke.stop)
    assert np.array_equal(mask[~touched], found[~touched])
    was_off = (
        painting.shown(found)[cell][:, np.arange(shape[1]) * painted.shape[1] // shape[1]] == 0
    )
    assert mask[touched][was_off[touched]].all()
    assert np.array_equal(painting.shown(mask), painted)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stroke_that_is_undone_gives_back_every_pixel(shape):
    found = ragged(shape)
    before = painting.shown(found)
    erased = before.copy()
    erased[: len(erased) // 3] = 0
    mask = painting.applied(erased, found, found)
    assert mask.sum() < found.sum()
    assert np.array_equal(painting.applied(before, mask, found), found)


def test_an_empty_mask_is_empty_in_the_film_too():
    """One pixel of a large film is shown, so that clearing what is shown clears it."""
    found = np.zeros((4000, 3000), np.uint8)
    found[1234, 567] = 1
    assert painting.shown(found).sum() == 1
    assert not painting.applied(np.zeros_like(painting.shown(found)), found, found).any()


def test_what_was_saved_before_keeps_its_pixels_too():
    """Where the page changes nothing, the mask that it was given stays, not the model's."""
    found, current = ragged((2048, 2048), 1), ragged((2048, 2048), 2)
    mask = painting.applied(painting.shown(current), current, found)
    assert np.array_equal(mask, current)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_mask_may_be_any_kind_of_black_and_white_png(mode):
    mask = painting.shown(ragged((2048, 1024)))
    assert np.array_equal(painting.read(png(mask * 255, mode), (2048, 1024)), mask)


def test_a_mask_may_have_the_films_own_size():
    mask = ragged((2048, 1024))
    read = painting.read(png(mask * 255), (2048, 1024))
    assert np.array_equal(painting.applied(read, 1 - mask, mask), mask)


def test_what_is_no_mask_is_refused_in_words():
    shape = (2048, 1024)
    good = np.zeros((1024, 512), np.uint8)
    wrong = {
        "1024 × 512 or 2048 × 1024": png(np.zeros((512, 1024), np.uint8)),
        "other than 0 and 255": png(np.full((1024, 512), 1, np.uint8)),
        "values other": png(np.dstack([good, good, good + 255])),
        "kind I;16": png(np.zeros((1024, 512), np.uint16)),
        "not a readable PNG": png(good)[:60],
        "not a readable": b"\xff\xd8\xff\xe0 a JPEG",
    }
    for words, content in wrong.items():
        with pytest.raises(PneumoError, match=words):
            painting.read(content, shape)
