import json
import os
import shutil

import cv2
import numpy as np
import pytest
from conftest import write_film

from pneumo.data import cache, rendering
from pneumo.data.films import Item
from pneumo.data.settings import OnError, SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.masks import rle

ENDINGS = (".partial", ".copy.partial")  # of the folders that a cache is made in


@pytest.fixture
def items(phantoms, tmp_path):
    root = tmp_path / "films"
    shutil.copytree(phantoms, root)
    return siim.read_index(
        SiimData(name="siim", root=str(root), annotations=str(root / "train-rle.csv"))
    ).items


def test_films_and_masks_arrive(items, tmp_path):
    films = cache.build(items, 64, tmp_path / "cache", workers=0)
    assert films.ids == [item.id for item in items]
    assert films.images.shape == films.masks.shape == (24, 64, 64)
    assert films.images.dtype == films.masks.dtype == np.uint8
    for item, image, mask in zip(items, films.images, films.masks, strict=True):
        assert mask.any() == item.positive
        assert set(np.unique(mask)) <= {0, 1}
        assert image.std() > 20
    whole = cache.build(items, 1024, tmp_path / "cache", workers=0)
    for item, mask in zip(items, whole.masks, strict=True):
        assert np.array_equal(mask, rle.union(item.annotations))


def test_workers_change_nothing(items, tmp_path):
    alone, together = (
        cache.build(items, 64, tmp_path / str(workers), workers=workers) for workers in (0, 2)
    )
    assert np.array_equal(alone.images, together.images)
    assert np.array_equal(alone.masks, together.masks)
    assert alone.checksums == together.checksums


def test_a_second_run_decodes_nothing(items, tmp_path, monkeypatch):
    first = cache.build(items, 64, tmp_path / "cache", workers=0)
    monkeypatch.setattr(cache, "prepare", lambda *_, **__: pytest.fail("decoded again"))
    assert cache.build(items, 64, tmp_path / "cache", workers=0).fingerprint == first.fingerprint


def test_interrupted_work_continues_and_is_never_taken_for_whole(items, tmp_path, monkeypatch):
    whole = cache.build(items, 64, tmp_path / "whole", workers=0)
    prepare, decoded = cache.prepare, []

    def stop_at_ten(item, **options):
        if len(decoded) == 10:
            raise KeyboardInterrupt
        decoded.append(item.id)
        return prepare(item, **options)

    monkeypatch.setattr(cache, "prepare", stop_at_ten)
    with pytest.raises(KeyboardInterrupt):
        cache.build(items, 64, tmp_path / "cache", workers=0)
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [".partial"]
    monkeypatch.setattr(
        cache,
        "prepare",
        lambda item, **options: decoded.append(item.id) or prepare(item, **options),
    )
    films = cache.build(items, 64, tmp_path / "cache", workers=0)
    assert sorted(decoded) == sorted(item.id for item in items)  # each once
    assert np.array_equal(films.images, whole.images)
    assert np.array_equal(films.masks, whole.masks)
    assert films.checksums == whole.checksums


def test_changed_input_or_setting_makes_another_cache(items, tmp_path):
    def fingerprint(size=64):
        return cache.build(items, size, tmp_path / "cache", workers=0).fingerprint

    first = fingerprint()
    assert fingerprint(size=32) != first
    positive = next(item for item in items if item.positive)
    positive.annotations[0] = "5 " + positive.annotations[0].split(" ", 1)[1]
    second = fingerprint()
    assert second != first
    shutil.copy(items[1].path, items[0].path)
    assert fingerprint() not in (first, second)


def test_damage_is_found(items, tmp_path):
    films = cache.build(items, 64, tmp_path / "cache", workers=0)
    images = np.load(films.folder / "images.npy", mmap_mode="r+")
    images[5, 3, 3] ^= 1
    images.flush()
    again = cache.build(items, 64, tmp_path / "cache", workers=0)
    with pytest.raises(PneumoError, match=rf"damaged at image {items[5].id}; delete"):
        again.verify(5)
    (films.folder / "images.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(PneumoError, match="damaged cache"):
        cache.build(items, 64, tmp_path / "cache", workers=0)


def test_one_bad_film_among_many(items, tmp_path):
    items[3].path.write_bytes(items[3].path.read_bytes()[:5000])
    with pytest.raises(PneumoError, match=rf"{items[3].path.name}.*data\.on_error=skip"):
        cache.build(items, 64, tmp_path / "cache", workers=0)
    films = cache.build(items, 64, tmp_path / "cache", OnError.skip, workers=0)
    assert films.ids == [item.id for item in items if item is not items[3]]
    assert len(films.left_aside) == 1
    assert items[3].path.name in films.left_aside[0]
    for row in range(len(films.ids)):
        films.verify(row)
    expected = cache.build(
        [item for item in items if item is not items[3]], 64, tmp_path / "other", workers=0
    )
    assert np.array_equal(films.images, expected.images)


def test_a_stop_while_gaps_are_closed_swaps_no_films(items, tmp_path, monkeypatch):
    items[3].path.write_bytes(items[3].path.read_bytes()[:5000])
    write = cache.seals.write_json
    monkeypatch.setattr(
        cache.seals, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        cache.build(items, 64, tmp_path / "cache", OnError.skip, workers=0)
    monkeypatch.setattr(cache.seals, "write_json", write)
    films = cache.build(items, 64, tmp_path / "cache", OnError.skip, workers=0)
    expected = cache.build(
        [item for item in items if item is not items[3]], 64, tmp_path / "other", workers=0
    )
    assert films.ids == expected.ids
    assert np.array_equal(films.images, expected.images)
    with pytest.raises(
        PneumoError, match=r"data\.on_error=skip"
    ):  # what was left out is not forgotten
        cache.build(items, 64, tmp_path / "cache", OnError.stop, workers=0)


def test_what_killed_processes_left_is_removed(items, tmp_path):
    """Temporary files in folders that are begun, which are kept, and what a whole cache was made
    of.
    """
    place = tmp_path / "cache"
    films = cache.build(items, 64, place, workers=0)
    begun = place / "32px-0123456789abcdef.partial"
    for folder in (begun, *(films.folder.with_name(films.folder.name + end) for end in ENDINGS)):
        folder.mkdir()
        (folder / ".images.npy.0123ab.partial").touch()
        (folder / "masks.npy").touch()
    cache.build(items, 64, place, workers=0)
    kept = {begun.name, films.folder.name, ".lock"}
    assert {path.name for path in place.iterdir()} == kept
    assert [path.name for path in begun.iterdir()] == ["masks.npy"]


def test_an_annotation_beyond_its_film(items, tmp_path):
    items[0].annotations = ["1048576 1"]
    with pytest.raises(PneumoError, match=r"do not fit 1024 × 1024 pixels.*beyond"):
        cache.build(items, 64, tmp_path / "cache", workers=0)


def test_real_masks(real_data, tmp_path):
    """The areas known of five challenge films (union of rows, 1024²)."""
    folder = real_data / "siim"
    known = {"12743": 2071, "4440": 2486, "4982": 5232, "4904": 9418, "1314": 29079}
    index = siim.read_index(
        SiimData(
            name="siim",
            root=str(folder / "dicom-images-train"),
            annotations=str(folder / "stage_2_train.csv.gz"),
            on_missing=OnError.skip,
        )
    )
    films = cache.build(index.items, 1024, tmp_path, workers=0)
    areas = {
        image.split(".")[-3]: int(mask.sum())
        for image, mask in zip(films.ids, films.masks, strict=True)
    }
    assert {key: areas[key] for key in known} == known
    assert all(areas[key] == 0 for key in set(areas) - set(known))


def test_real_mask_lies_where_the_table_of_statistics_says(real_data):
    """Centroid and box, computed independently, in mask_statistics.csv: a transposed or mirrored
    mask would be elsewhere.
    """
    rows = (real_data / "siim" / "mask_statistics.csv").read_text().splitlines()
    header = rows[0].split(",")
    table = siim.read_table(real_data / "siim" / "stage_2_train.csv.gz")
    for line in rows[1:200:20]:
        row = dict(zip(header, line.split(","), strict=True))
        mask = rle.union(table.masks(row["id"]))
        moments = cv2.moments(mask, binaryImage=True)
        assert int(mask.sum()) == int(row["area"])
        assert moments["m01"] / moments["m00"] == pytest.approx(float(row["cy"]), abs=0.01)
        assert moments["m10"] / moments["m00"] == pytest.approx(float(row["cx"]), abs=0.01)


def test_contents_are_described(items, tmp_path):
    films = cache.build(items, 64, tmp_path / "cache", workers=0)
    contents = json.loads((films.folder / "contents.json").read_text())
    assert contents["size"] == 64
    assert contents["ids"] == films.ids


@pytest.fixture
def few(tmp_path):
    """Four small films, of which the second and the fourth have a mask."""
    made = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        path = write_film(tmp_path / f"{number}.dcm", pixels)
        made.append(Item(str(number), path, ["3 5"] if number % 2 else []))
    return made


def test_another_film_or_mask_or_rendering_makes_another_cache(few, tmp_path, monkeypatch):
    """Also a film that is replaced by one of the same size, as uncompressed films are."""
    fingerprints = [cache.build(few, 16, tmp_path / "cache", workers=0).fingerprint]

    def changed():
        found = cache.build(few, 16, tmp_path / "cache", workers=0)
        fingerprints.append(found.fingerprint)
        return found

    few[1].annotations[0] = "3 6"
    changed()
    before, pixels = few[0].path.stat(), np.full((32, 32), 9, np.uint8)
    write_film(few[0].path, pixels)
    os.utime(few[0].path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert few[0].path.stat().st_size == before.st_size
    assert (changed().images[0] == 9).all()
    monkeypatch.setattr(rendering, "VERSION", 0)
    changed()
    assert len(set(fingerprints)) == 4


def test_interrupted_caching_decodes_no_film_twice(few, tmp_path, monkeypatch):
    prepare, decoded = cache.prepare, []

    def stopped(item, **options):
        if len(decoded) == 2:
            decoded.append("stop")
            raise KeyboardInterrupt
        decoded.append(item.id)
        return prepare(item, **options)

    monkeypatch.setattr(cache, "prepare", stopped)
    with pytest.raises(KeyboardInterrupt):
        cache.build(few, 16, tmp_path / "cache", workers=0)
    films = cache.build(few, 16, tmp_path / "cache", workers=0)
    assert decoded == ["0", "1", "stop", "2", "3"]
    assert [mask.any() for mask in films.masks] == [False, True, False, True]


def test_a_changed_pixel_is_found_in_any_film(few, tmp_path):
    films = cache.build(few, 16, tmp_path / "cache", workers=0)
    for name in ("images.npy", "masks.npy"):
        array = np.load(films.folder / name, mmap_mode="r+")
        array[2, 3, 3] ^= 1
        array.flush()
        with pytest.raises(PneumoError, match="damaged at image 2; delete"):
            cache.build(few, 16, tmp_path / "cache", workers=0).verify(2)
        array[2, 3, 3] ^= 1
        array.flush()
    films.verify(2)


@pytest.mark.parametrize("orientation", [("L", "F"), ("F", "L"), ("R", "F"), ("L", "H")])
def test_masks_of_films_that_lie_turned_are_turned_with_them(tmp_path, orientation):
    bright = np.zeros((64, 64), np.uint8)
    bright[4:20, 40:60] = 200
    path = write_film(tmp_path / "film.dcm", bright, PatientOrientation=list(orientation))
    item = Item("film", path, [rle.encode(bright)])
    image, mask = cache.prepare(item, 32, 10_000, OnError.stop)
    assert np.array_equal(image, 200 * mask)
    assert mask.sum() == 8 * 10
