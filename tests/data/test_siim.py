import gzip
import shutil

import numpy as np
import pytest
from conftest import write_film, write_picture
from data.dialects import as_people_save_it, dialects, ids
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pneumo.data import cache, dicom
from pneumo.data.settings import MaskSize, OnError, SiimData
from pneumo.data.sources import siim
from pneumo.errors import PneumoError
from pneumo.inference import maps
from pneumo.masks import rle
from pneumo.masks.resize import shrink, shrink_mask


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


PLAIN = "ImageId,EncodedPixels\na,-1\nb,5 2\nb,9 1 4 2\nc,1 1\n"
DIALECTS = {
    "plain": PLAIN,
    "blank in header": PLAIN.replace("ImageId,Enc", "ImageId, Enc"),
    "other names": PLAIN.replace("ImageId,EncodedPixels", "fname,mask"),
    "no header": PLAIN.split("\n", 1)[1],
    "byte-order mark": "\ufeff" + PLAIN,
    "mark, no header": "\ufeff" + PLAIN.split("\n", 1)[1],
    "carriage returns": PLAIN.replace("\n", "\r\n"),
    "leading blanks": PLAIN.replace(",-1", ", -1").replace(",5 2", ", 5 2"),
    "empty cell": PLAIN.replace("a,-1", "a,"),
    "suffixes": PLAIN.replace("a,", "a.dcm,").replace("c,", "c.png,"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_reads_alike(tmp_path, text):
    table = siim.read_table(write(tmp_path / "t.csv", text))
    assert list(table.rows) == ["a", "b", "c"]
    assert [table.masks(image) for image in "abc"] == [[], ["5 2", "9 1 4 2"], ["1 1"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.csv"


runs = st.lists(st.tuples(st.integers(0, 999), st.integers(1, 99)), min_size=1, max_size=3)
texts = st.just("-1") | runs.map(lambda pairs: " ".join(f"{gap} {of}" for gap, of in pairs))


@settings(max_examples=25)
@example([("a", "5 2"), ("b", "-1"), ("a", "9 1 4 2")], True, (",", "\n", False, False, False))
@given(st.lists(st.tuples(ids, texts), min_size=1, max_size=6), st.booleans(), dialects)
def test_no_row_of_a_table_is_lost_in_any_dialect(place, rows, has_header, dialect):
    head = [("ImageId", "EncodedPixels")] * has_header
    place.write_bytes(as_people_save_it([*head, *rows], *dialect))
    expected = {}
    for image, text in rows:
        expected.setdefault(image, []).extend([text] * (text != "-1"))
    table = siim.read_table(place)
    assert {image: table.masks(image) for image in table.rows} == expected
    assert sum(map(len, table.rows.values())) == len(rows)


def test_gzip(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(PLAIN.encode()))
    assert list(siim.read_table(path).rows) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("d,1 2 3", "line 6.*pairs"),
        ("d,1 x", "line 6.*whole"),
        ("d,1,2", "line 6.*columns"),
    ],
)
def test_malformed_row_is_named_and_can_be_skipped(tmp_path, row, message):
    path = write(tmp_path / "t.csv", PLAIN + row + "\n")
    with pytest.raises(PneumoError, match=message + r".*data\.on_error=skip"):
        siim.read_table(path)
    table = siim.read_table(path, OnError.skip)
    assert list(table.rows) == ["a", "b", "c"]
    assert len(table.left_aside) == 1


@pytest.mark.parametrize("text", ["", "ImageId,EncodedPixels\n"])
def test_empty_table(tmp_path, text):
    with pytest.raises(PneumoError, match="no annotations"):
        siim.read_table(write(tmp_path / "t.csv", text))


def test_table_that_is_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(bytes(range(256)))
    with pytest.raises(PneumoError, match=r"t\.csv: not a readable CSV"):
        siim.read_table(tmp_path / "t.csv")


def test_a_round_1_list_that_fits_nothing_is_an_error(phantoms, tmp_path):
    sample = write(tmp_path / "sample.csv", "ImageId,EncodedPixels\nother,-1\n")
    with pytest.raises(PneumoError, match="names none of the images"):
        index(phantoms, phantoms / "train-rle.csv", round=1, round1_test=str(sample))


def test_overlap_is_found():
    assert siim.overlapping(["0 5", "4 2"])
    assert not siim.overlapping(["0 5", "5 2"])


def index(root, table, **options):
    options = {"on_missing": OnError.skip, **options}
    return siim.read_index(SiimData(name="siim", root=str(root), annotations=str(table), **options))


def native(shape):
    """A film and its mask, both of one bright box in the lower right part."""
    mask = np.zeros(shape, np.uint8)
    mask[shape[0] * 5 // 8 : shape[0] * 7 // 8, shape[1] // 2 : shape[1] * 3 // 4] = 1
    return (40 + 150 * mask).astype(np.uint8), mask


@pytest.mark.parametrize("shape", [(1500, 1200), (1200, 1500), (600, 400)])
@pytest.mark.parametrize(
    ("kind", "size"),
    [("dcm", MaskSize.challenge), ("dcm", MaskSize.film), ("png", MaskSize.film)],
)
def test_run_lengths_count_the_films_own_pixels(tmp_path, shape, kind, size):
    """Also beyond 1024², where films are not square, and where they are stored lying."""
    image, mask = native(shape)
    orientation = None
    if kind == "dcm":
        orientation = ("F", "L")
        write_film(tmp_path / "a.dcm", image, PatientOrientation=list(orientation))
    else:
        Image.fromarray(image).save(tmp_path / "a.png")
    table = write(tmp_path / "t.csv", f"ImageId,EncodedPixels\na,{rle.encode(mask)}\n")
    items = index(tmp_path, table, mask_size=size).items
    assert np.array_equal(items[0].mask(shape), mask)
    films = cache.build(items, 64, tmp_path / "cache", workers=0)
    upright = dicom.upright(mask, orientation)
    assert np.array_equal(films.masks[0], shrink_mask(upright, 64))
    assert np.array_equal(films.images[0], shrink(dicom.upright(image, orientation), 64))
    assert (films.images[0][films.masks[0] == 1] > 60).all()  # the mask lies on the box
    # films are judged as the network sees them: squeezed into a square, at 1024²
    (case,) = maps.cases_of(items, labelled=True)
    assert np.array_equal(case.mask(), shrink_mask(upright, 1024))


def test_a_mirror_of_any_size_has_the_challenges_run_lengths(tmp_path):
    _, mask = native((1024, 1024))
    small, _ = native((512, 512))
    Image.fromarray(small).save(tmp_path / "a.png")
    table = write(tmp_path / "t.csv", f"ImageId,EncodedPixels\na,{rle.encode(mask)}\n")
    items = index(tmp_path, table).items
    films = cache.build(items, 64, tmp_path / "cache", workers=0)
    assert np.array_equal(films.masks[0], shrink_mask(mask, 64))
    own = index(tmp_path, table, mask_size=MaskSize.film).items
    with pytest.raises(PneumoError, match=r"a\.png: its run lengths do not fit 512 × 512 pixels"):
        cache.build(own, 64, tmp_path / "cache", workers=0)


def test_a_run_beyond_its_film_names_film_size_and_way_out(tmp_path):
    image, mask = native((1500, 1200))
    table = write(tmp_path / "t.csv", f"ImageId,EncodedPixels\na,{rle.encode(mask)}\n")
    Image.fromarray(image).save(tmp_path / "a.png")
    with pytest.raises(
        PneumoError,
        match=r"a\.png: its run lengths do not fit 1024 × 1024 pixels: .* beyond .*1048576 pixels; "
        r".*data\.mask_size=film",
    ):
        cache.build(index(tmp_path, table).items, 64, tmp_path / "cache", workers=0)
    (tmp_path / "a.png").unlink()
    write_film(tmp_path / "a.dcm", image[:1000])
    with pytest.raises(PneumoError, match=r"a\.dcm: its run lengths do not fit 1000 × 1200 pixels"):
        cache.build(index(tmp_path, table).items, 64, tmp_path / "cache", workers=0)


def test_most_films_missing_is_said_not_trained_on(phantoms, tmp_path):
    """Of a table's films a few may be missing; more than a twentieth, only when that is meant."""
    table = phantoms / "train-rle.csv"
    for path in sorted(phantoms.rglob("*.dcm"))[2:]:
        shutil.copy(path, tmp_path)
    with pytest.raises(PneumoError, match=r"2 of the 24 images .* data.on_missing=skip"):
        index(tmp_path, table, on_missing=OnError.stop)
    assert len(index(tmp_path, table).items) == 22
    shutil.copy(sorted(phantoms.rglob("*.dcm"))[0], tmp_path)
    assert len(index(tmp_path, table, on_missing=OnError.stop).items) == 23


def test_a_table_with_semicolons_is_understood_and_another_table_named(tmp_path):
    path = write(tmp_path / "t.csv", "ImageId;EncodedPixels\na;1 2\nb;-1\n")
    assert siim.read_table(path).masks("a") == ["1 2"]
    path = write(tmp_path / "u.csv", "Kaggle_ID,NIH_ID\na,00001234_000.png\n")
    with pytest.raises(PneumoError, match="columns Kaggle_ID, NIH_ID; expected ImageId"):
        siim.read_table(path)


def test_films_and_table_are_joined_and_the_rest_is_counted(phantoms, tmp_path):
    films = sorted(phantoms.rglob("*.dcm"))
    root = tmp_path / "films"
    root.mkdir()
    shutil.copy(films[0], root)  # flat, by file name
    shutil.copy(films[1], root / "ID_0001.dcm")  # by SOPInstanceUID
    shutil.copy(films[2], root / "extra.dcm")
    shutil.copy(films[0], root / "sub.dcm")  # the same film again
    table = write(
        tmp_path / "t.csv",
        f"ImageId,EncodedPixels\n{films[0].stem},-1\n{films[1].stem},3 4\nabsent,-1\n",
    )
    found = index(root, table)
    assert [(item.id, item.positive) for item in found.items] == [
        (films[0].stem, False),
        (films[1].stem, True),
    ]
    counts = {reason.split(" (")[0]: len(cases) for reason, cases in found.left_aside.items()}
    assert counts == {
        "films without a row in the table": 1,
        "films whose id stands on disk more than once": 1,
        "images of the table that are not on disk": 1,
    }


def test_round_1_leaves_out_its_test_images(tmp_path):
    for image in "abcd":
        write_picture(tmp_path / "films" / f"{image}.png")
    table = write(tmp_path / "t.csv", PLAIN + "d,-1\n")
    sample = write(tmp_path / "sample.csv", "ImageId,EncodedPixels\na,-1\na,-1\nb,-1\n")
    found = index(tmp_path / "films", table, round=1, round1_test=str(sample))
    assert {item.id for item in found.items} == {"c", "d"}


def test_nothing_to_join(phantoms, tmp_path):
    table = write(tmp_path / "t.csv", PLAIN)
    with pytest.raises(PneumoError, match="none of its 24 films is in"):
        index(phantoms, table)
    (tmp_path / "void").mkdir()
    with pytest.raises(PneumoError, match="no films in it"):
        index(tmp_path / "void", table)
    with pytest.raises(PneumoError, match="no such file or folder"):
        index(tmp_path / "absent", table)


def test_round_1_of_table_i(real_data):
    folder = real_data / "siim"
    sample = folder / "stage_1_sample_submission.csv"
    data = SiimData(
        name="siim",
        root=str(folder),
        annotations=str(folder / "stage_2_train.csv.gz"),
        round=1,
        round1_test=str(sample),
        on_missing=OnError.skip,
    )
    assert [number for _, number in siim.read_index(data).counts()[:3]] == [
        10_675,
        11_582,
        2_379,
    ]


def test_the_organisers_sample_reads_alike_in_both_dialects(real_data):
    tables = [
        siim.read_table(real_data / "siim" / name)
        for name in ("train-rle-sample.csv", "train-rle-sample-variant.csv")
    ]
    assert [t.masks(i) for t in tables[:1] for i in t.rows] == [
        t.masks(i) for t in tables[1:] for i in t.rows
    ]
    assert len(tables[0].rows) == 10
