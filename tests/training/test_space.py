"""What can be searched: ranges and choices; and what is refused by name."""

import pytest

from pneumo.errors import PneumoError
from pneumo.training import space
from pneumo.training.space import Choices, Range


def test_a_list_is_a_range_by_its_last_words_else_choices():
    read = space.read(
        {
            "lr": [1e-4, 1e-2, "log"],
            "batch_size": [8, 64, "int"],
            "epochs": [4, 40, "int", "log"],
            "loss": {"dice": [0, 2, "linear"]},
            "averaging": ["paper", "none"],
            "optimizer.accumulate": [1, 2],
            "averaging.at": [[1, 2], [3]],
            "handoff.inherit": [True, False],
            "parent": [None, "exp2"],
        },
        ["+experiment=exp5"],
    )
    assert read == {
        "lr": Range(1e-4, 1e-2, whole=False, log=True),
        "batch_size": Range(8, 64, whole=True, log=False),
        "epochs": Range(4, 40, whole=True, log=True),
        "loss.dice": Range(0, 2, whole=False, log=False),
        "averaging": Choices(["paper", "none"]),
        "optimizer.accumulate": Choices(["1", "2"]),
        "averaging.at": Choices(["[1,2]", "[3]"]),
        "handoff.inherit": Choices(["true", "false"]),
        "parent": Choices(["null", "exp2"]),
    }


def test_a_proposed_value_is_typed_in_three_digits_within_its_range():
    lr = Range(1.2345e-4, 1e-2, whole=False, log=True)
    assert lr.typed(0.00123456) == "0.00123"
    assert lr.typed(1.2345e-4) == "0.00012345"  # 1.23e-4 would be below the range
    assert Range(8, 64, whole=True, log=False).typed(12) == "12"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "search.space is not set: .*lr"),
        ({"lrr": [1, 2, "log"]}, "lrr: no such setting; did you mean lr"),
        ({"postprocess.binarization_threshold": [0.3, 0.8, "linear"]}, "pneumo.evaluate"),
        ({"postprocess": {"top_threshold": [0.3, 0.8]}}, "pneumo.evaluate"),
        ({"seed": [0, 1]}, "seed: changes what a trial is judged by"),
        ({"split.validation": [0.1, 0.2]}, "split.validation: changes what a trial is judged by"),
        ({"scale": ["mini", "full"]}, "type scale=<value> beside the search"),
        ({"data.images": [10, 20]}, "changes what a trial is judged by"),
        ({"machine.threads": [1, 2]}, "not what is learnt or how"),
        ({"experiment": ["exp1", "exp2"]}, "not what is learnt or how"),
        ({"handoff": ["swa", "best"]}, "handoff: a group of settings; name one of it, handoff"),
        ({"epochs": [3, 4]}, "epochs: is typed, too"),
        ({"lr": 0.1}, "lr=0.1: must be"),
        ({"lr": [1e-2, 1e-4, "log"]}, "an empty range"),
        ({"lr": [1e-2, 1e-2, "linear"]}, "an empty range"),
        ({"lr": [0, 1e-2, "log"]}, "begins above 0"),
        ({"lr": [1e-4, "log"]}, "must be"),
        ({"lr": [1, 2, "log", "linear"]}, "must be"),
        ({"lr": ["a", "b", "log"]}, "must be"),
        ({"batch_size": [8, 16.5, "int"]}, "whole numbers"),
        ({"averaging": ["paper"]}, "at least two choices"),
        ({"averaging": ["paper", "paper"]}, "each once"),
        ({"averaging": ["paper", "papr"]}, "averaging=papr: no such choice; one of .*paper"),
        ({"averaging": [1, 2, "int"]}, "has names, not numbers"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_its_name(wanted, said):
    with pytest.raises(PneumoError, match=said):
        space.read(wanted, ["+experiment=exp5", "epochs=3"])
