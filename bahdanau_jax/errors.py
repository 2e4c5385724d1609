"""What a user can mend: entry points print these as one line and exit non-zero, without a traceback."""


class InputError(ValueError):
    """A file, field or flag is not what was expected; the message names it, what was found, what expected."""


class DataNotFound(InputError):
    """The data set is neither prepared on this machine nor reachable; the message names the ways on."""
