"""What the commands here share: when they print their help, and how they say that something is wrong."""

import sys
from collections.abc import Sequence

DATA_NOT_FOUND = 66  # sysexits.h: EX_NOINPUT


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether a command line wants the command's docstring and nothing else."""
    return any(argument in ("-h", "-help", "--help", "--helpfull") for argument in argv[1:])


def one_line(error: BaseException) -> str:
    """What an error says, or what it is."""
    return " ".join(str(error).split()) or type(error).__name__


def fail(message: str, code: int = 2) -> int:
    """Prints the message as an error; returns the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code
