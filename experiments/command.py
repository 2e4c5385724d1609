"""What the commands here share: when they print their help, and how they say that something is wrong."""

import functools
import sys
from collections.abc import Callable, Sequence

from absl import flags

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


def command(work: Callable[[Sequence[str]], None]) -> Callable[..., int]:
    """Makes a `main(argv=None)`: prints the module's docstring, or does the work; returns the exit code.

    What is not right with the command line, the files or the data ends in one line.
    """

    @functools.wraps(work)
    def main(argv: Sequence[str] | None = None) -> int:
        argv = sys.argv if argv is None else argv
        if asks_for_help(argv):
            print(sys.modules[work.__module__].__doc__)
            return 0
        # Imported this late, for experiments.run imports this module before it needs JAX.
        from bahdanau_jax.errors import DataNotFound, InputError

        try:
            work(argv)
        except DataNotFound as error:
            return fail(str(error), DATA_NOT_FOUND)
        except (flags.Error, InputError) as error:
            return fail(one_line(error))
        return 0

    return main
