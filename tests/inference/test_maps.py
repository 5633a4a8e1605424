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
from pneumo.inference.shards import NotJoined, Shard
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
        ("begun.json", 5, 0),  # the name of a key
        ("begun.json", -4, 0),  # the number of rows
        ("rows.npy", 130, 0),
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


FILMS, SIDE = 7, 8
ROWS = [(0, 2), (2, 4), (4, 7)]  # of three shards
WEIGHTS = {"weights": "w"}


def levels_of(films):
    """Maps of some of the films, that no other film has."""
    each = np.random.default_rng(3).integers(0, 256, (2, FILMS, SIDE, SIDE), dtype=np.uint8)
    return each[:, films]


def written(folder, key, begin=0, end=FILMS, presence=True, **facts):
    """Predictions of some of seven films."""
    truth = rle.encode(np.eye(SIDE, dtype=np.uint8))
    cases = [
        Case(str(film), "", [truth] if film % 2 else [], (SIDE, SIDE), patient=f"p{film // 2}")
        for film in range(FILMS)
    ]

    def fill(arrays, _):
        arrays.plain[:], arrays.flip[:] = levels_of(slice(begin, end))
        if presence:
            arrays.presence[:] = np.arange(begin, end)[:, None] / FILMS
        yield end - begin

    return maps.write(folder, key, cases[begin:end], SIDE, fill, {**WEIGHTS, **facts})


def in_shards(folder, which=(1, 2, 3), **facts):
    """Three shards of these predictions, or some of them; returns their folder."""
    together = maps.shards_of(folder)
    for number in which:
        rows, shard = list(ROWS[number - 1]), Shard(number, 3)
        key = maps.shard_key("source", shard, rows)
        written(together / shard.folder, key, *rows, rows=rows, **facts)
    return together


@pytest.mark.parametrize("presence", [True, False])
def test_joined_shards_are_what_one_process_writes_bit_for_bit(tmp_path, presence):
    whole = written(tmp_path / "whole", "key", presence=presence)
    together = in_shards(tmp_path / "val", presence=presence)
    inode = (together / "2of3" / maps.FLIP).stat().st_ino
    parts = maps.collected(together, "source", "w", SIDE, 3)
    found = maps.join(tmp_path / "val", "key", parts, dict(WEIGHTS))
    for name in (maps.CONTENTS, maps.PRESENCE):
        ours, theirs = (one.folder / name for one in (found, whole))
        assert ours.is_file() == theirs.is_file()
        assert not ours.is_file() or ours.read_bytes() == theirs.read_bytes()
    for name in ("plain", "flip"):
        joined = getattr(found, name)
        assert np.array_equal([joined[row] for row in range(FILMS)], getattr(whole, name))
        assert (joined.shape, len(joined)) == ((FILMS, SIDE, SIDE), FILMS)
    for tta in (False, True):
        for ours, theirs in zip(found.histograms(tta), whole.histograms(tta), strict=True):
            assert np.array_equal(ours, theirs)
    assert (found.folder / "2of3" / maps.FLIP).stat().st_ino == inode  # not copied
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert left == {"whole", "val"}


FAULTS = {
    "3/3 is missing": lambda together: shutil.rmtree(together / "3of3"),
    "2/3 is damaged at film 3": lambda together: changed(together / "2of3" / maps.PLAIN, -1),
    "1/3 is damaged": lambda together: changed(together / "1of3" / maps.CONTENTS, 300),
    "3/3 is damaged": lambda together: (together / "3of3" / maps.FLIP).unlink(),
    "2/3 is of other films": lambda together: (
        shutil.rmtree(together / "2of3"),
        shutil.copytree(together / "1of3", together / "2of3"),
    ),
    "2/3 is of other weights": lambda together: (
        shutil.rmtree(together / "2of3"),
        in_shards(together.with_name("val"), [2], weights="others"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_shards_that_are_not_all_there_and_of_one_kind_are_not_joined(tmp_path, fault):
    together = in_shards(tmp_path / "val")
    FAULTS[fault](together)
    with pytest.raises(NotJoined) as told:
        maps.collected(together, "source", "w", SIDE, 3)
    assert f"not joined, shard {fault}" in str(told.value)
    assert len(told.value.faults) == 1


def test_shards_of_other_films_or_another_size_are_not_joined(tmp_path):
    together = in_shards(tmp_path / "val")
    for source, side, fault in (("another", SIDE, "films"), ("source", 2 * SIDE, "size")):
        with pytest.raises(NotJoined, match=f"1/3 is of other {fault}, 2/3 is of other {fault}"):
            maps.collected(together, source, "w", side, 3)


def test_a_join_that_was_stopped_is_made_again(tmp_path, monkeypatch):
    together = in_shards(tmp_path / "val")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(maps.Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        maps.join(tmp_path / "val", "key", maps.collected(together, "source", "w", SIDE, 3), {})
    monkeypatch.undo()
    found = maps.join(tmp_path / "val", "key", maps.collected(together, "source", "w", SIDE, 3), {})
    assert [found.plain[row].tolist() for row in range(FILMS)] == levels_of(slice(None))[0].tolist()
