"""Errors that the user can fix. Commands print them as one line and exit with a code above 0."""


class InputError(ValueError):
    """A file, field or flag is wrong; the message names it, what was found and what was expected."""


class DataNotFound(InputError):
    """The data set is neither prepared on this machine nor reachable; the message lists what to do."""


def one_line(error: BaseException) -> str:
    """The error's message in one line, or its type if it has no message.

    Example:
      >>> one_line(ValueError("a\\n  b")), one_line(KeyboardInterrupt())
      ('a b', 'KeyboardInterrupt')
    """
    return " ".join(str(error).split()) or type(error).__name__
