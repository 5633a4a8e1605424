"""What predicting and the page refuse to be told."""

import pytest

from pneumo.errors import PneumoError
from pneumo.inference.settings import Predict, Use, View


def test_names_without_a_table_of_spacings_are_refused():
    with pytest.raises(PneumoError, match="spacing_names without spacing"):
        Use(spacing_names="nih_id.csv")


def test_a_use_that_cannot_be_is_refused_by_its_key():
    with pytest.raises(PneumoError, match="engine=keras: must be one of auto, torch, onnx"):
        Predict(engine="keras")
    with pytest.raises(PneumoError, match="port=0: must be 1 to 65535"):
        View(port=0)
    for half in ({"corrections": "folder"}, {"reader": "Dr A"}):
        with pytest.raises(PneumoError, match="corrections and reader go together"):
            View(**half)


def test_the_page_holds_films_in_memory_so_its_limits_are_lower_and_it_is_not_open_to_all():
    page, command = View(), Predict()
    assert page.max_megabytes < command.max_megabytes
    assert page.max_megapixels < command.max_megapixels
    assert page.host == "127.0.0.1"
