"""Whether a film looks like those of training: the figures of the README, on real films."""

import numpy as np
import pytest

from pneumo.data import dicom
from pneumo.data.likeness import SAMPLE, look, sample


@pytest.fixture(scope="module")
def challenge(real_data):
    folder = real_data / "siim"
    paths = sorted(folder.rglob("*.png")) + sorted(folder.rglob("*.dcm"))
    return [dicom.read(path).pixels for path in paths]


def test_challenge_films_look_like_one_another(challenge):
    """Each against the mean of the others."""
    alike = [look(challenge[:i] + challenge[i + 1 :]).of(film) for i, film in enumerate(challenge)]
    assert len(alike) == 71
    assert (round(min(alike), 2), round(max(alike), 2)) == (0.33, 0.94)


def test_other_parts_of_the_body_do_not(challenge, real_data):
    seen = look(challenge)
    tibia = dicom.read(real_data / "films" / "RG3_RLE.dcm").pixels
    assert round(seen.of(tibia), 2) == -0.24
    assert seen.of(tibia) < seen.least <= 0.25
    turned = [seen.of(np.ascontiguousarray(np.rot90(film))) for film in challenge]
    assert np.median(turned) < seen.least < min(map(seen.of, challenge))


def test_what_is_kept_is_plain_and_a_film_of_one_level_is_like_nothing(challenge):
    seen = look(challenge[:5])
    assert all(type(value) is int for value in seen.to_dict()["mean"])
    assert seen.of(np.zeros((300, 200), np.uint8)) == 0


def test_a_sample_is_even_and_bounded():
    rows = np.arange(3 * SAMPLE + 1)
    assert len(sample(rows)) <= SAMPLE
    assert sample(rows)[-1] > 0.99 * len(rows)
    assert np.array_equal(sample(rows[:7]), rows[:7])
