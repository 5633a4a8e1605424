"""Films with outlines and heat, as people look at them."""

import io

import numpy as np
import pytest
from PIL import Image

from pneumo.masks import pictures

FILM = np.full((64, 64), 90, np.uint8)
SQUARE = np.zeros((64, 64), np.uint8)
SQUARE[10:20, 10:20] = 1


def where(picture, colour):
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_outlines_lie_where_the_masks_do():
    """At four times the size: a film is shown at 256 pixels at least."""
    picture = pictures.overlay(FILM, SQUARE, SQUARE[:, ::-1])
    assert picture.shape == (256, 256, 3)
    assert where(picture, pictures.TRUTH) == (40, 79, 40, 79)
    assert where(picture, pictures.PREDICTION) == (40, 79, 176, 215)
    assert picture[60, 60].tolist() == [90, 90, 90]  # an outline leaves the inside as it is


def test_heat_shows_probabilities_from_a_twentieth_on():
    levels = np.where(SQUARE, 200, 12).astype(np.uint8)
    picture = pictures.heat(FILM, levels, np.zeros_like(FILM))
    changed = (picture != 90).any(axis=2)
    assert np.array_equal(changed, SQUARE > 0)
    alpha = pictures.heat_colours(levels)[..., 3]
    assert set(np.unique(alpha)) == {0, 90}  # 200 * .45
    assert np.array_equal(alpha > 0, SQUARE > 0)


def test_a_text_is_burnt_into_the_bottom_of_a_picture():
    picture = np.full((200, 300, 3), 90, np.uint8)
    pictures.write(picture, "not for diagnosis")
    assert (picture[:150] == 90).all()
    assert (picture[180:] > 150).any()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_a_png_comes_back_to_the_same_pixels_and_colours(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    back = np.array(Image.open(io.BytesIO(pictures.png(picture))))
    assert np.array_equal(back, picture)
