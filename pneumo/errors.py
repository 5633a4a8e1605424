"""The error that a command line shows as one line."""

import re


class PneumoError(ValueError):
    """A mistake in the input or the configuration.

    The message says what is wrong, where, and what to do.
    """


def one_line(error: BaseException) -> str:
    """An error's text in one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def visible(text: str) -> str:
    """A text without what steers a terminal: as escapes stand control characters, but for tabs and
    line feeds, and marks that turn the direction of writing.

    Names of files and tags of films come from anyone, and are printed.
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", _escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def brief(error: BaseException, most: int = 160) -> str:
    """The same, cut to ``most`` characters."""
    text = one_line(error)
    return text if len(text) <= most else text[: most - 3] + "..."
