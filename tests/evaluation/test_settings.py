"""What the commands that judge refuse to be told."""

import pytest

from pneumo.errors import PneumoError
from pneumo.evaluation.settings import Evaluate, Export, Measures, Report, Submission


def test_a_submission_needs_to_know_its_films():
    with pytest.raises(PneumoError, match=r"on is not set.*on=<folder>"):
        Submission()
    assert Submission(on="val").on == "val"


@pytest.mark.parametrize("kind", [Evaluate, Export, Report])
def test_intervals_may_be_left_out_but_not_of_fewer_resamples_than_none(kind):
    assert kind(resamples=0).resamples == 0
    with pytest.raises(PneumoError, match="resamples=-1: must be 0 or more"):
        kind(resamples=-1)


@pytest.mark.parametrize("key", ["specificities", "sensitivities"])
def test_rates_of_a_test_lie_between_0_and_1(key):
    assert getattr(Measures(), key) == [0.8, 0.9, 0.95]
    with pytest.raises(PneumoError, match=rf"measures\.{key}=1\.5"):
        Measures(**{key: [0.9, 1.5]})


def test_a_point_may_not_lie_less_than_no_pixels_off():
    with pytest.raises(PneumoError, match=r"measures\.pointing_px=-1: must be 0 or more"):
        Measures(pointing_px=-1)


def test_sizes_are_whole_films_or_less_but_not_nothing():
    assert Measures(least_px=[]).least_px == []
    with pytest.raises(PneumoError, match=r"measures\.least_px=\[500, 0\]: must be at least 1"):
        Measures(least_px=[500, 0])
