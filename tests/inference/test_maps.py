"""What is told of each film beside its map."""

import dataclasses
import shutil

import numpy as np
import pydicom
import pytest
from evaluation.synthetic import synthetic

from pneumo.data.films import Item
from pneumo.data.sources import siim
from pneumo.data.spacing import Entry
from pneumo.errors import PneumoError
from pneumo.inference import maps
from pneumo.inference.maps import Case
from pneumo.masks import rle


@pytest.fixture
def told(phantoms, tmp_path):
    """What is told of a phantom film with other tags."""
    source = sorted(phantoms.rglob("*.dcm"))[0]

    def case(**tags):
        path = tmp_path / "film.dcm"
        shutil.copy(source, path)
        film = pydicom.dcmread(path)
        for key, value in tags.items():
            setattr(film, key, value)
        film.save_as(path)
        (found,) = maps.cases_of([Item("a", path, [])], labelled=True)
        return found

    return case


@pytest.mark.parametrize(
    ("text", "years"),
    [("038Y", 38), ("006M", 0.5), ("073D", 0.2), ("", None), ("412Y", None)],
)
def test_sex_and_age_are_those_of_the_tags(told, text, years):
    found = told(PatientSex="F", PatientAge=text)
    assert found.sex == "F"
    assert found.age == (years if years is None else pytest.approx(years, abs=0.01))


def test_a_spacing_too_fine_for_a_chest_is_not_believed(told):
    """The challenge's headers give the spacing of originals of twice the width."""
    assert told(PixelSpacing=[0.168, 0.168]).spacing is None
    assert told(PixelSpacing=[0.4, 0.42]).spacing == pytest.approx((0.4, 0.42))
    turned = told(PixelSpacing=[0.4, 0.42], PatientOrientation=["F", "L"])
    assert turned.spacing == pytest.approx((0.42, 0.4))


def test_a_table_s_spacing_is_that_of_the_original_squeezed_to_1024(predicted):
    """Of an original of 2,048 × 2,560 pixels of .2 mm; without a size, of the film's own pixels."""
    _, found = predicted
    first, second = found.ids[:2]
    table = {first: Entry(0.2, 0.2, (2048, 2560)), second: Entry(0.3, 0.31)}
    spaced = found.spaced(table)
    assert spaced.cases[0].spacing == pytest.approx((0.4, 0.5))
    assert spaced.cases[1].spacing == pytest.approx((0.3, 0.31))
    assert spaced.cases[2] == found.cases[2]
    lying = dataclasses.replace(found, cases=[dataclasses.replace(found.cases[0])])
    lying.cases[0].orientation = ("F", "L")
    assert lying.spaced(table).cases[0].spacing == pytest.approx((0.5, 0.4))


def test_truth_is_the_annotation_at_1024(predicted):
    folder, found = predicted
    (root,) = (
        path
        for path in (folder / "runs" / "phantom").iterdir()
        if path.is_dir() and "24-" in path.name
    )
    table = siim.read_table(root / "train-rle.csv")
    assert any(case.annotations for case in found.cases)
    for row, case in enumerate(found.cases):
        mask = case.mask()
        assert mask.shape == found.map(row, tta=True).shape == (1024, 1024)
        assert case.annotations == table.masks(case.id)
        assert bool(case.annotations) == mask.any()
        assert case.view in ("AP", "PA")
        assert case.patient


def test_counts_of_older_maps_or_masks_are_made_anew(predicted, tmp_path):
    _, found = predicted
    folder = tmp_path / "copy"
    shutil.copytree(found.folder, folder)
    right = maps.load(folder).histograms(tta=True)
    path = folder / maps.HISTOGRAMS
    with np.load(path) as kept:
        older = {**kept, "key": found.contents["key"]}  # version 1 named the maps alone
    older["flip_inside"] = np.zeros_like(older["flip_inside"])
    np.savez(path, **older)
    assert np.array_equal(maps.load(folder).histograms(tta=True).inside, right.inside)
    assert right.inside.any()


@pytest.mark.parametrize("where", ["contents.json", "begun.json"])
def test_killed_while_maps_get_their_name_no_scores_of_presence_are_made_up(
    tmp_path, monkeypatch, where
):
    """None of these networks tells presence, and none does after the second run."""

    def fill(arrays, begin):
        for row in range(begin, 2):
            arrays.plain[row], arrays.flip[row] = row + 1, row + 3
            yield row + 1

    def begin():
        cases = [maps.Case(name, name, None, (8, 8), None, None, None, None, None) for name in "ab"]
        return maps.write(tmp_path / "val", "key", cases, 8, fill, {})

    class Killed(BaseException):
        pass

    def kill(path, *_):
        if path.name == where:
            raise Killed
        write(path, *_)

    write = maps.seals.write_json
    monkeypatch.setattr(maps.seals, "write_json", kill)
    unlink = maps.Path.unlink
    monkeypatch.setattr(
        maps.Path,
        "unlink",
        lambda path, **kw: kill(path) if path.name == where else unlink(path, **kw),
    )
    with pytest.raises(Killed):
        begin()
    monkeypatch.undo()
    found = begin()
    assert found.scores is None
    assert found.plain[:, 0, 0].tolist() == [1, 2]
    assert found.flip[:, 0, 0].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("name", "place", "begins"),
    [
        ("plain.npy", -1, 2),  # of a row that was not whole
        ("plain.npy", 200, 0),
        ("flip.npy", 3, 0),
        ("presence.npy", 128, 0),
        ("begun.json", 5, 0),
        ("begun.json", -20, 0),
    ],
)
def test_interrupted_maps_go_on_unless_they_changed_on_the_disk(tmp_path, name, place, begins):
    cases = [maps.Case(name, name, None, (8, 8)) for name in "abc"]
    begun = []

    def fill(arrays, begin, stop=3):
        begun.append(begin)
        for row in range(begin, stop):
            for array in arrays:
                array[row] = row + 1
            yield row + 1

    class Killed(BaseException):
        pass

    def killed(arrays, begin):
        yield from fill(arrays, begin, stop=2)
        raise Killed

    with pytest.raises(Killed):
        maps.write(tmp_path / "val", "key", cases, 8, killed, {})
    changed(tmp_path / "val.partial" / name, place)
    found = maps.write(tmp_path / "val", "key", cases, 8, fill, {})
    assert begun == [0, begins]
    for tta in (False, True):
        assert [found.map(row, tta, 8)[0, 0] for row in range(3)] == [1, 2, 3]
    assert found.presence(tta=True).tolist() == [1, 2, 3]


def changed(path, place):
    """Change a byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_map_that_changed_on_the_disk_is_not_judged(predicted, tmp_path):
    _, found = predicted
    shutil.copytree(found.folder, tmp_path / "val")
    changed(tmp_path / "val" / maps.FLIP, -1)
    again = maps.load(tmp_path / "val")
    last = len(again) - 1
    assert np.array_equal(again.map(last, tta=False), found.map(last, tta=False))
    assert np.array_equal(again.map(0, tta=True), found.map(0, tta=True))
    with pytest.raises(PneumoError, match=rf"flip\.npy: damaged at film {again.ids[last]}"):
        again.map(last, tta=True)


def test_contents_that_changed_on_the_disk_are_not_read(predicted, tmp_path):
    _, found = predicted
    shutil.copytree(found.folder, tmp_path / "val")
    path = tmp_path / "val" / maps.CONTENTS
    path.write_text(path.read_text().replace(found.ids[0], found.ids[0] + "x"))
    assert maps.kept(tmp_path / "val", found.contents["key"]) is None
    with pytest.raises(PneumoError, match="damaged predictions"):
        maps.load(tmp_path / "val")


def test_counts_and_maps_of_others_are_not_taken_for_these(tmp_path):
    """A folder's histograms.npz that was copied, or of maps that were made anew meanwhile."""
    ours, others = (
        synthetic(tmp_path, name, films=6, first=first) for name, first in (("a", 0), ("b", 50))
    )
    theirs = others.histograms(tta=True)
    shutil.copy(others.folder / maps.HISTOGRAMS, ours.folder / maps.HISTOGRAMS)
    found = ours.histograms(tta=True)
    assert not np.array_equal(found.total, theirs.total)
    for row in range(6):
        counts = np.bincount(ours.map(row, tta=True).ravel(), minlength=256)
        assert np.array_equal(found.total[row], counts)
    assert maps.kept(ours.folder, "a").ids == ours.ids
    assert maps.kept(ours.folder, "b") is None


def test_the_truth_of_a_film_that_lies_turned_is_that_of_the_upright_film():
    stored = np.zeros((1024, 1024), np.uint8)
    stored[:200, 600:] = 1
    case = Case("a", "a.dcm", [rle.encode(stored)], (1024, 1024), ("F", "L"))
    assert np.array_equal(case.mask(), stored.T)
    assert np.array_equal(case.regions()[0], stored.T)
