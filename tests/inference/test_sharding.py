"""A bundle on films in shards: the same files as on all films at once, or why not, in a line."""

import hashlib
import logging
import shutil
from threading import Thread

import pytest
from conftest import write_picture
from inference.stand_ins import random_bundle

from pneumo import files, runs, seals
from pneumo.errors import PneumoError
from pneumo.inference import applying, sharding
from pneumo.inference.settings import Predict, Save
from pneumo.inference.shards import NotJoined, Shard, lock_of
from pneumo.masks.settings import Rule
from pneumo.settings import Machine


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles of different random weights."""
    place = tmp_path_factory.mktemp("bundles")
    return [random_bundle(place / name) for name in ("model", "other")]


@pytest.fixture
def films(tmp_path):
    """Films in several folders, some of one name; one that cannot be read; a file that is none."""
    folder = tmp_path / "films"
    for name in ("a/film.png", "b/film.png", "b/other.png", "c/Film.png", "d.png"):
        write_picture(folder / name)
    (folder / "b" / "broken.png").write_bytes((folder / "b" / "other.png").read_bytes()[:300])
    (folder / "c" / "notes.txt").write_text("no film")
    return folder


def asked(bundle, films, out, shard=None, **more):
    machine = Machine(accelerator="cpu", threads=1)
    given = {"model": str(bundle), "input": str(films), "out": str(out), "machine": machine}
    return Predict(**given, shard=shard, **more)


def done(*args, **more):
    """What a shard, or all films, came to: the error at the end, if there is one."""
    try:
        sharding.apply(asked(*args, **more))
    except PneumoError as error:
        return error
    return None


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_joined_shards_are_what_one_process_writes_bit_for_bit(bundles, films, tmp_path):
    whole = done(bundles[0], films, tmp_path / "whole")
    assert "1 of 6 films could not be used" in str(whole)
    out = tmp_path / "out"
    said = [str(done(bundles[0], films, out, f"{number}/3")) for number in (3, 1, 2)]
    assert said[-1] == str(whole)  # the last one joins, and says what failed in any
    assert said[:-1].count("None") >= 1
    assert digests(out) == digests(tmp_path / "whole")
    assert {"film-mask.png", "film-2-mask.png", "Film-3-mask.png", "rle.csv"} <= digests(out).keys()


def test_missing_shards_are_named_and_then_made(bundles, films, tmp_path, caplog):
    caplog.set_level(logging.INFO, "pneumo")
    out = tmp_path / "out"
    done(bundles[0], films, out, "1/3")
    assert "not joined, shard 2/3 is missing, 3/3 is missing" in caplog.text
    assert not (out / "films.csv").exists()
    done(bundles[0], films, out, "3/3")
    with runs.lock(lock_of(out / "shards", Shard(2, 3))):
        assert "not joined, shard 2/3 is being written" in str(done(bundles[0], films, out))
    error = done(bundles[0], films, out)  # without shard= they are joined, never made
    assert isinstance(error, NotJoined)
    assert [str(shard) for shard in error.faults] == ["2/3"]
    caplog.clear()
    done(bundles[0], films, out, "1/3")
    assert "1of3: done already" in caplog.text
    assert "holds shards of 3" in str(done(bundles[0], films, out, "1/2"))
    done(bundles[0], films, out, "2/3")
    assert (out / "films.csv").is_file()
    assert not (out / "shards").exists()


def test_shards_that_were_made_in_another_way_are_not_joined(bundles, films, tmp_path):
    out = tmp_path / "out"
    done(bundles[0], films, out, "1/2", save=Save(overlay=False))
    for model, more, fault in (
        (1, {}, "of another model"),
        (0, {}, "made with another save"),
        (0, {"save": Save(overlay=False), "tta": True}, "made with another tta"),
        (0, {"postprocess": Rule(binarization_threshold=0.7)}, "made with another postprocess"),
    ):
        error = str(done(bundles[model], films, out, **more))
        assert f"not joined, shard 1/2 is {fault}, 2/2 is missing" in error
    done(bundles[0], films, out, "1/2")  # it is made anew
    assert (out / "shards" / "1of2" / "film-overlay.png").is_file()


def test_shards_of_other_films_or_damaged_ones_are_not_joined(bundles, films, tmp_path):
    out, more = tmp_path / "out", tmp_path / "more"
    for number in (1, 2):
        done(bundles[0], films, out, f"{number}/3")
    shutil.copytree(films, more)
    write_picture(more / "z.png")
    error = done(bundles[0], more, out)
    assert "1/3 is of other films, 2/3 is of other films, 3/3 is missing" in str(error)
    record = out / "shards" / "1of3" / "shard.json"
    record.write_text(record.read_text().replace("film", "firm", 1))
    mask = next((out / "shards" / "2of3").glob("*-mask.png"))
    mask.write_bytes(mask.read_bytes()[:-1])
    error = str(done(bundles[0], films, out))
    assert f"1/3 is damaged, 2/3 is damaged ({mask.name} is not as it was written)" in error


def test_a_shard_that_waits_to_join_finds_that_another_has_done_so(
    bundles, films, tmp_path, caplog
):
    out, errors = tmp_path / "out", []
    done(bundles[0], films, out, "1/2")
    together = out / "shards"
    thread = Thread(target=lambda: errors.append(done(bundles[0], films, out, "2/2")))
    with runs.lock(together):
        thread.start()
        while "waiting for it to finish" not in caplog.text:
            assert thread.is_alive()
        files.remove_folder(together)  # what the other does at its end
    thread.join()
    assert errors == [None]
    assert not together.exists()


def test_a_shard_whose_films_failed_says_so_again(bundles, films, tmp_path):
    each = [[done(bundles[0], films, tmp_path, f"{number}/3") for _ in "ab"] for number in (1, 2)]
    assert [[str(one) for one in both] for both in each if both[0]] == [
        ["1 of 2 films could not be used (listed above)"] * 2
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shard", [None, "1/2"])
def test_a_join_that_was_stopped_goes_on(bundles, films, tmp_path, monkeypatch, shard):
    done(bundles[0], films, tmp_path / "whole")
    out = tmp_path / "out"
    done(bundles[0], films, out, "1/2")
    replace, moved = sharding.os.replace, []

    def stopped(old, new):
        if new.parent == out and "-mask" in new.name:
            moved.append(new)
        if len(moved) == 3:
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(sharding.os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        sharding.apply(asked(bundles[0], films, out, "2/2"))
    monkeypatch.undo()
    assert not (out / "films.csv").exists()
    done(bundles[0], films, out, shard)
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.slow
def test_a_stopped_shard_leaves_nothing_half_written(bundles, films, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    monkeypatch.setattr(seals, "write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        sharding.apply(asked(bundles[0], films, out, "1/2"))
    assert not list((out / "shards").glob("*1of2*/*.png"))
    assert not (out / "shards" / "1of2").exists()


def test_no_shard_tells_a_patients_path(bundles, tmp_path):
    """Films whose path may tell who the patient is are recorded by what the table says of them."""
    films = tmp_path / "films"
    for name in "ab":
        write_picture(films / "Doe^John" / f"{name}.png")
    done(bundles[0], films, tmp_path / "out", "1/2")
    record = seals.read_json(tmp_path / "out" / "shards" / "1of2" / "shard.json")
    assert [film["shown"] for film in record["films"]] == [""]


def test_without_shards_all_films_are_done_at_once(bundles, films, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(applying, "apply", called.append)
    sharding.apply(asked(bundles[0], films, tmp_path / "out"))
    assert len(called) == 1
