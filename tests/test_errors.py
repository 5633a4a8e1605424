"""Errors as one line."""

from pneumo.errors import brief, one_line


def test_an_error_of_several_lines_is_one_line():
    assert one_line(ValueError("first\n   second\tthird")) == "first second third"
    assert one_line(MemoryError()) == "MemoryError"


def test_a_long_text_is_cut_and_shows_that_it_is():
    assert brief(ValueError("x" * 10), 10) == "x" * 10
    assert brief(ValueError("x" * 11), 10) == "x" * 7 + "..."
