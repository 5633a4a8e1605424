"""A data set made ready for a fit: which films it has, and which are validated."""

import pytest
from hydra import compose, initialize_config_dir

from pneumo.settings import CONF
from pneumo.training.loader import FilmData
from pneumo.training.settings import load_config


@pytest.fixture(scope="module")
def divided(phantoms, tmp_path_factory):
    """The films of both parts under what is typed."""
    place = tmp_path_factory.mktemp("runs")

    def prepared(*typed, recorded=None):
        data = ["data=siim", f"data.root={phantoms}", f"data.annotations={phantoms}/train-rle.csv"]
        own = ["+experiment=exp2", *data, f"runs_dir={place}", "resolution.size=32", *typed]
        with initialize_config_dir(CONF, version_base="1.3"):
            made = FilmData(load_config(compose("train", own)))
        made.prepare(recorded)
        return made.parts_by_id()

    return prepared


@pytest.mark.parametrize("fewer", [[], ["scale.images=16"]], ids=["all films", "some films"])
def test_seeds_share_films_and_parts_and_split_seeds_do_not(divided, fewer):
    first = divided(*fewer)
    assert divided(*fewer, "seed=1") == first
    assert divided(*fewer, "split.seed=1")["validation"] != first["validation"]


def test_a_recorded_division_is_kept_while_the_films_are_the_same(divided):
    fresh = divided()
    swapped = {"training": fresh["validation"], "validation": fresh["training"]}
    assert divided(recorded=swapped) == swapped
    fewer = {**swapped, "validation": dict(list(fresh["training"].items())[1:])}
    assert divided(recorded=fewer) == fresh
