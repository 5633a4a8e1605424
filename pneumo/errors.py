"""The error that a command line shows as one line."""


class PneumoError(ValueError):
    """A mistake in the input or the configuration: the message says what is wrong, where, and what
    to do.
    """


def brief(error: BaseException) -> str:
    """An error's text in one line of at most 160 characters, or its kind where it has none."""
    text = " ".join(str(error).split())
    return text[:157] + "..." if len(text) > 160 else text or type(error).__name__
