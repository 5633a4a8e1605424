"""Data sets and splits that make sense, and places that must be there."""

import subprocess
import sys

import pytest

from pneumo.data.settings import Data, FolderData, PhantomData, SiimData, Split
from pneumo.errors import PneumoError


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        (SiimData, {"round": 3}, "data.round=3"),
        (SiimData, {"round": 1}, "data.round=1 needs data.round1_test"),
        (SiimData, {"max_megapixels": 0}, "data.max_megapixels=0"),
        (PhantomData, {"images": 3}, "data.images=3"),
        (PhantomData, {"positive_rate": 1.0}, "data.positive_rate=1.0"),
        (Split, {"validation": 0.0}, "split.validation=0.0"),
        (Split, {"folds": 1}, "split.folds=1"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(kind, options, key):
    name = {"name": "own"} if issubclass(kind, Data) else {}
    with pytest.raises(PneumoError) as refused:
        kind(**name, **options)
    assert str(refused.value).startswith(key)


def test_places_must_be_named_and_there_before_anything_is_read(tmp_path):
    with pytest.raises(PneumoError, match=r"data\.root is not set"):
        SiimData(name="own").check_places()
    with pytest.raises(PneumoError, match=r"data\.masks is not set"):
        FolderData(name="own", root=str(tmp_path)).check_places()
    with pytest.raises(PneumoError, match=r"data\.masks=.*/absent: no such file or folder"):
        FolderData(name="own", root=str(tmp_path), masks=f"{tmp_path}/absent").check_places()
    FolderData(name="own", root=str(tmp_path), masks=str(tmp_path)).check_places()
    PhantomData(name="own").check_places()  # films are drawn where they lack


def test_a_difficulty_that_there_is_not_is_refused_in_one_line():
    command = [sys.executable, "-m", "pneumo.siim", "data=phantom", "data.difficulty=medium"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert line.startswith("error: data.difficulty=medium")
    assert "[easy, hard]" in line
