"""Errors as one line."""

from pneumo.errors import brief, one_line, visible


def test_an_error_of_several_lines_is_one_line():
    assert one_line(ValueError("first\n   second\tthird")) == "first second third"
    assert one_line(MemoryError()) == "MemoryError"


def test_a_long_text_is_cut_and_shows_that_it_is():
    assert brief(ValueError("x" * 10), 10) == "x" * 10
    assert brief(ValueError("x" * 11), 10) == "x" * 7 + "..."


def test_what_steers_a_terminal_is_shown_as_text():
    assert visible("a\x1b[2J\rb\x9bc\u202ed\x7f") == "a\\x1b[2J\\rb\\x9bc\\u202ed\\x7f"
    assert visible("ä ×\u00a0²\n\tb") == "ä ×\u00a0²\n\tb"
