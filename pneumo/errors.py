"""The error that a command line shows as one line."""


class PneumoError(ValueError):
    """A mistake in the input or the configuration.

    The message says what is wrong, where, and what to do.
    """


def one_line(error: BaseException) -> str:
    """An error's text in one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def brief(error: BaseException, most: int = 160) -> str:
    """The same, cut to ``most`` characters."""
    text = one_line(error)
    return text if len(text) <= most else text[: most - 3] + "..."
