"""What a user sees of ``python -m pneumo.search``."""

import sys

import pytest
from conftest import say

OWN = ["+experiment=exp2", "data=phantom", "scale=mini"]


def test_mistakes_are_one_line_before_anything_is_made(tmp_path, monkeypatch):
    def refused(*typed):
        status, out, errors = say("search", [*OWN, *typed], tmp_path, monkeypatch)
        assert (status, out) == (1, "")
        assert len(errors.splitlines()) == 1
        return errors

    assert "search.space is not set" in refused()
    assert "did you mean +search=lr" in refused("+search=l")
    assert "did you mean lr?" in refused("search.space={lrr:[1,2,log]}")
    assert "python -m pneumo.evaluate" in refused(
        "search.space={postprocess.binarization_threshold:[.3,.8,linear]}"
    )
    assert "batch_size=9.5: must be a whole number" in refused("search.space={batch_size:[8,9.5]}")
    assert "search.score=dise: must be one of dice," in refused("+search=lr", "search.score=dise")
    assert "names its runs itself" in refused("+search=lr", "tag=mine")
    assert not list(tmp_path.iterdir())


def test_without_optuna_the_line_says_how_it_is_had(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, errors = say("search", [*OWN, "+search=lr"], tmp_path, monkeypatch)
    assert status == 1
    assert errors == "error: pneumo.search needs Optuna: pip install -e '.[search]'\n"


@pytest.mark.parametrize(
    "typed",
    [
        "search.space={lr:[1e-4,1e-2,log],optimizer.weight_decay:[0,1e-3,linear]}",
        "search.space={lr: [1e-4, 1e-2, log], optimizer: {weight_decay: [0, 1e-3, linear]}}",
    ],
)
def test_a_space_may_be_typed_with_dots_or_nested(tmp_path, monkeypatch, typed):
    status, out, errors = say("search", [*OWN, typed, "--cfg", "job"], tmp_path, monkeypatch)
    assert (status, errors) == (0, "")
    assert "lr:\n    - 0.0001\n    - 0.01\n    - log" in out
    assert "weight_decay:\n" in out
