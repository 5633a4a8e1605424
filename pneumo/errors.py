"""The error that a command line shows as one line."""


class PneumoError(ValueError):
    """A mistake in the input or the configuration: the message says what is wrong, where, and what to do."""
