import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pneumo.data.sources.siim import read_table
from pneumo.masks import rle

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)


def test_runs_are_relative_and_go_down_the_columns():
    mask = rle.decode("1 2 1 3", (4, 3))
    assert mask.tolist() == [[0, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert mask.dtype == np.uint8


@given(masks)
def test_encoding_loses_nothing_also_at_first_and_last_pixel(mask):
    assert np.array_equal(rle.decode(rle.encode(mask), mask.shape), mask)


@given(masks)
def test_text_is_canonical(mask):
    text = rle.encode(mask)
    assert rle.encode(rle.decode(text, mask.shape)) == text


@pytest.mark.parametrize("text", ["-1", " -1", "", "  ", "-1\r"])
def test_empty_in_every_spelling(text):
    assert not rle.decode(text, (3, 3)).any()


def test_whole_image_is_one_run():
    assert rle.encode(np.ones((3, 2))) == "0 6"


def test_union_of_overlapping_rows():
    assert rle.union(["0 3", "2 3", "-1"], (4, 2)).T.ravel().tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "pairs"),
        ("1 x", "whole numbers"),
        ("1.5 2", "whole numbers"),
        ("1 0", "length 0"),
        ("5 3 -2 1", "negative"),
        ("0 17", "beyond"),
        ("10 4 3 1", "beyond"),
        ("0 99999999999999999999", "whole numbers|beyond"),
    ],
)
def test_malformed_text_is_explained(text, message):
    with pytest.raises(rle.RLEError, match=message):
        rle.decode(text, (4, 4))


def test_real_rows_are_reproduced_to_the_letter(real_data):

    rows = [
        row.text
        for rows in read_table(real_data / "siim" / "stage_2_train.csv.gz").rows.values()
        for row in rows
        if row.text
    ]
    assert len(rows) == 3576
    assert [text for text in rows[::10] if rle.encode(rle.decode(text)) != text] == []


def drawn(runs, shape):
    """The pixels of run lengths, one after the other."""
    pixels, place = np.zeros(shape[0] * shape[1], np.uint8), 0
    for gap, length in runs:
        pixels[place + gap : place + gap + length] = 1
        place += gap + length
    return pixels.reshape(shape[1], shape[0]).T


several = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=4))


@given(several, st.integers(1, 9))
def test_a_union_is_every_pixel_of_any_of_its_annotations(annotations, rows):
    longest = max((sum(map(sum, runs)) for runs in annotations), default=0)
    shape = (rows, -(-longest // rows) + 1)
    texts = [" ".join(f"{gap} {length}" for gap, length in runs) for runs in annotations]
    each = [drawn(runs, shape) for runs in annotations]
    expected = np.max([np.zeros(shape, np.uint8), *each], axis=0)
    assert np.array_equal(rle.union(texts, shape), expected)
    assert np.array_equal(rle.decode(rle.encode(expected), shape), expected)


@given(st.text("0123456789 -+.e\t\nx٣", max_size=24))
def test_any_text_is_a_mask_or_a_reason(text):
    try:
        starts, ends = rle.runs(text, 4 * 6)
    except rle.RLEError:
        with pytest.raises(rle.RLEError):
            rle.decode(text, (4, 6))
        return
    assert len(starts) == len(ends)
    assert (np.diff(np.ravel(np.column_stack([starts, ends]))) >= 0).all()
    assert rle.decode(text, (4, 6)).sum() == (ends - starts).sum()


def test_a_run_may_end_with_its_film_but_no_pixel_later():
    assert rle.decode("10 4 0 2", (4, 4)).sum() == 6
    with pytest.raises(rle.RLEError, match="ends at pixel 17, beyond the image's 16 pixels"):
        rle.decode("10 4 0 3", (4, 4))
