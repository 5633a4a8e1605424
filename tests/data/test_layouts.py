"""Phantoms in the layouts of other sets are read as what was drawn: whose, what and where.

The 24 drawn films of a session stand in every layout once.
"""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from pneumo.data import dicom, index
from pneumo.data.settings import Drawing, Layout
from pneumo.data.sources import layouts
from pneumo.errors import PneumoError
from pneumo.masks.truth import Truth
from pneumo.settings import CONF, checked

KINDS = {
    Layout.candid: Truth.masks,
    Layout.chexlocalize: Truth.masks,
    Layout.coco: Truth.masks,
    Layout.vindr: Truth.boxes,
    Layout.nih: Truth.boxes,
    Layout.padchest: Truth.boxes,
    Layout.labels: Truth.labels,
    Layout.ptx498: Truth.masks,
}


@pytest.fixture(scope="module")
def written(phantoms, tmp_path_factory):
    """The settings that read each layout, written when it is asked for."""
    root, kept = tmp_path_factory.mktemp("layouts"), {}

    def of(layout):
        if layout not in kept:
            kept[layout] = layouts.lay_out(layout, phantoms, root / layout.name)
        return kept[layout]

    return of


def read(typed):
    with initialize_config_dir(CONF, version_base="1.3"):
        config = checked(compose("siim", typed))
    return index.read(config.data, config.runs_dir)


def drawn_as(items, films):
    """The drawn film of each item that was read, known by its pixels."""
    small = {film.number: film.pixels[::32, ::32].astype(float) for film in films}
    numbers = {}
    for item in items:
        pixels = dicom.read(item.path).pixels[:1024][::32, ::32]
        numbers[item.id] = min(small, key=lambda n: np.abs(small[n] - pixels).mean())
    assert len(set(numbers.values())) == len(items)
    by_number = {film.number: film for film in films}
    return {image: by_number[number] for image, number in numbers.items()}


@pytest.mark.parametrize("layout", Layout, ids=[layout.name for layout in Layout])
def test_what_was_drawn_is_read(phantoms, written, layout):
    films = layouts._films(phantoms)
    found = read(written(layout))
    expected = {film.number: film for film in films if not film.unknown}
    if layout is Layout.ptx498:  # it has no unknown films
        expected = {film.number: film for film in films}
    drawn = drawn_as(found.items, films)
    assert {film.number for film in drawn.values()} == set(expected)
    assert {item.truth for item in found.items} == {KINDS[layout]}
    for item in found.items:
        film = drawn[item.id]
        assert item.positive == bool(film.masks)
        mask, stored = layouts._union(film), dicom.read_tags(item.path).stored_shape
        known = item.mask(stored)[:1024]
        if KINDS[layout] is Truth.labels:
            assert known.all() == bool(film.masks)
        elif KINDS[layout] is Truth.boxes:
            assert not (mask & ~known).any()  # each lesion is in a box
            assert not film.masks or len(item.annotations) % len(film.masks) == 0  # of readers
            # readers' boxes are up to 4 pixels larger
            around = sum((width + 5) * (height + 5) for _, _, width, height in film.boxes)
            assert known.sum() <= around
        elif layout is Layout.coco:  # outlines of lesions with holes are a little larger
            assert (mask != known).sum() <= 0.03 * mask.sum()
        else:
            assert np.array_equal(mask, known)
    if layout in (Layout.vindr, Layout.ptx498):  # these sets do not say who the patients are
        assert all(item.patient is None for item in found.items)
    else:
        pairs = {(item.patient, drawn[item.id].patient) for item in found.items}
        assert len(pairs) == len({film.patient for film in expected.values()})
        assert len(dict(pairs)) == len(pairs)
    if layout is Layout.ptx498:
        assert {item.site for item in found.items} == {"SiteA", "SiteB", "SiteC"}
    if layout is Layout.candid:
        assert all(item.tube == drawn[item.id].tube for item in found.items)
        assert any(item.tube for item in found.items)


def test_the_polygons_of_chexlocalize_tell_the_same_as_its_run_lengths(written):
    typed = written(Layout.chexlocalize)
    by_lengths = {item.id: item for item in read(typed).items}
    polygons = [one.replace("gt_segmentations", "gt_annotations") for one in typed]
    by_polygons = {item.id: item for item in read(polygons).items}
    assert by_polygons.keys() == by_lengths.keys()
    for image, item in by_polygons.items():
        assert item.positive == by_lengths[image].positive
        first, second = item.mask(item.shape), by_lengths[image].mask(item.shape)
        assert (first != second).sum() <= 0.03 * second.sum()


def test_films_of_which_nothing_is_known_are_left_aside(written):
    for layout in Layout:
        found = read(written(layout))
        assert bool(found.left_aside) == (layout is not Layout.ptx498)
        assert len(found.items) + sum(map(len, found.left_aside.values())) == 24


def test_a_reader_who_disagrees_changes_what_any_and_all_of_them_say(written):
    typed = written(Layout.vindr)
    counts = {
        readers: sum(item.positive for item in read([*typed, f"data.readers={readers}"]).items)
        for readers in ("any", "majority", "all")
    }
    assert counts["all"] < counts["majority"] == 8 < counts["any"]


def test_the_folder_is_whole_or_not_there_and_is_never_overwritten(tmp_path, monkeypatch):
    settings = Drawing(layout=Layout.candid, out=str(tmp_path / "set"), images=4)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(layouts.WRITERS, Layout.candid, fail)
    with pytest.raises(KeyboardInterrupt):
        layouts.write(settings)
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    monkeypatch.setattr(layouts.phantom, "_write_film", lambda *_: pytest.fail("drawn again"))
    layouts.write(settings)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    with pytest.raises(PneumoError, match="is there already"):
        layouts.write(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "x"}, "layout is not set: give one of candid, chexlocalize"),
        ({"layout": Layout.candid}, "out is not set"),
    ],
)
def test_what_is_not_said_is_asked_for(options, message):
    with pytest.raises(PneumoError, match=message):
        Drawing(**options)
