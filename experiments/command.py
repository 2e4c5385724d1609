"""What the commands share: --help, flags, one-line errors and exit codes."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from absl import flags

from bahdanau_jax.errors import DataNotFound, InputError, one_line
from experiments.config_file import refuse_other_flags

DATA_NOT_FOUND = 66  # sysexits.h: EX_NOINPUT
INTERRUPTED = 130  # as a shell reports SIGINT
PIPE_CLOSED = 141  # as a shell reports SIGPIPE
REQUIRED = object()  # the default of a text flag that must be given


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether the command line asks for help."""
    return any(argument in ("-h", "-help", "--help", "--helpfull") for argument in argv[1:])


def fail(message: str, code: int = 2) -> int:
    """Prints an error message; returns the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def until_the_reader_leaves() -> Iterator[None]:
    """Ends the program quietly if nobody reads stdout any more, as after `| head -1`."""
    try:
        yield
        sys.stdout.flush()  # at its exit Python would print a traceback
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE_CLOSED)


def moved(old: str, new: str) -> int:
    """Says where a command went; returns the exit code."""
    return fail(f"python -m {old} is now python -m {new}")


def command(work: Callable[[Sequence[str]], int | None]) -> Callable[..., int]:
    """Turns `work(argv)` into a `main(argv=None)` that returns the exit code.

    `main` prints the module's docstring for --help. It reports wrong flags, input or data in one line.
    """

    @functools.wraps(work)
    @until_the_reader_leaves()
    def main(argv: Sequence[str] | None = None) -> int:
        argv = sys.argv if argv is None else argv
        if asks_for_help(argv):
            print(sys.modules[work.__module__].__doc__)
            return 0
        flags.FLAGS.mark_as_parsed()  # Grain refuses to run before absl's global flags are parsed
        try:
            return work(argv) or 0
        except DataNotFound as error:
            return fail(str(error), DATA_NOT_FOUND)
        except (flags.Error, InputError) as error:
            return fail(one_line(error))
        except KeyboardInterrupt:
            return fail("interrupted; everything written so far is kept", INTERRUPTED)

    return main


def parse_flags(
    argv: Sequence[str],
    *,
    config: bool = False,
    positional: bool = False,
    at_least: Mapping[str, int] | None = None,
    **defaults: Any,
) -> tuple[flags.FlagValues, list[str]]:
    """Parses a command's own flags, without touching absl's global ones.

    Args:
      argv: the command line, program name first.
      config: keep --config and its overrides for `config_file.parse`.
      positional: allow arguments that are not flags.
      at_least: lower bounds of integers; the default bound is 1, or 0 where the default is 0.
      **defaults: flag names and defaults. The default gives the type: a tuple is a choice whose first
        element is the default, a list is comma-separated and may be repeated, None and REQUIRED are text.

    Returns:
      the flags, and what is left of the command line: with `config`, as `config_file.parse` takes it;
      with `positional`, the positional arguments.

    Raises:
      flags.Error: in one line, naming the flag.

    Example:
      >>> asked, texts = parse_flags(["x", "--top=3", "a"], positional=True, top=8, form=("csv", "txt"))
      >>> asked.top, asked.form, texts
      (3, 'csv', ['a'])
    """
    asked = flags.FlagValues()
    for name, default in defaults.items():
        _define(asked, name, default, at_least or {})
    if config:
        asked.set_gnu_getopt(True)  # our flags may follow the value of a --config FILE
        rest = asked(list(argv), known_only=True)
        refuse_other_flags(rest, list(defaults))
    else:
        rest = asked(list(argv))[1:]
        if rest and not positional:
            expected = ", ".join(f"--{name}" for name in defaults)
            raise flags.Error(f"unexpected argument {rest[0]!r}; expected {expected}")
    for name, default in defaults.items():
        value = getattr(asked, name)
        if default is REQUIRED and not value:
            raise flags.Error(f"--{name} is missing")
        if isinstance(default, list):
            setattr(asked, name, list(chain.from_iterable(value)))
        if value == "" != default:
            raise flags.Error(f"--{name} is empty")
    return asked, rest


def _define(asked: flags.FlagValues, name: str, default: Any, at_least: Mapping[str, int]) -> None:
    match default:
        case bool():
            flags.DEFINE_boolean(name, default, "", flag_values=asked)
        case int():
            lowest = at_least.get(name, min(default, 1))
            flags.DEFINE_integer(name, default, "", lower_bound=lowest, flag_values=asked)
        case float():
            flags.DEFINE_float(name, default, "", lower_bound=0.0, flag_values=asked)
        case list():
            lists = flags.ListParser(), flags.CsvListSerializer(",")
            flags.DEFINE_multi(*lists, name, default, "", flag_values=asked)
        case tuple():
            choices = [choice for choice in default if choice is not None]
            flags.DEFINE_enum(name, default[0], choices, "", flag_values=asked)
        case _:
            text = None if default is REQUIRED else default
            flags.DEFINE_string(name, text, "", flag_values=asked)
