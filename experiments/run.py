"""Trains a model and evaluates it.

    ./launch.sh [--config=experiments/imdb.py] [--config.<field>=<value> ...] [--workdir=<folder>]

--config    A Python file with a function get_config(). A relative path is looked up in the current folder,
            then in this repository.
--config.x  Overrides the field x, as in --config.epochs=1, --config.model.dropout=0.2 or
            --config.bucket_lengths="(250, 500)". The fields are listed below.
--workdir   The run's folder; default: runs/<name of the config file> in this repository. Rerun the same
            command to resume.

--coordinator=HOST:PORT --processes=N --process=I
            This is process I of N that train together; process 0 listens at HOST:PORT. Under SLURM, Kubeflow
            Trainer, SkyPilot or Open MPI and on a TPU pod no flags are needed (docs/runs.md). On one machine
            `launch.sh --processes=N` starts all of them.

SIGTERM or Ctrl-C finishes the step and saves it. A second Ctrl-C stops at once.

Exit codes: 0 done, 2 wrong input, 66 data not found, 75 stopped by a signal or by the loss of another process
(rerun the same command to resume; the result is bit-identical), 130 second Ctrl-C.
"""

import errno
import inspect
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from experiments.command import (
    DATA_NOT_FOUND,
    asks_for_help,
    fail,
    one_line,
    until_the_reader_leaves,
)
from experiments.config_file import parse

START_AGAIN = 75  # sysexits.h: EX_TEMPFAIL
INTERRUPTED = 130  # a shell's code for SIGINT
_OUT_OF_OUR_HANDS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def take_processes(
    argv: Sequence[str],
) -> tuple[list[str], tuple[str | None, int | None, int | None]]:
    """Returns the command line without --coordinator, --processes and --process, and their values."""
    asked = flags.FlagValues()
    flags.DEFINE_string("coordinator", None, "", flag_values=asked)
    flags.DEFINE_integer("processes", None, "", lower_bound=1, flag_values=asked)
    flags.DEFINE_integer("process", None, "", lower_bound=0, flag_values=asked)
    asked.set_gnu_getopt(True)
    rest = asked(argv, known_only=True)
    return rest, (asked.coordinator, asked.processes, asked.process)


def show_help() -> None:
    """Prints how to use the command, then every field of a config."""
    from bahdanau_jax.runs.parse_config import describe_fields

    print(__doc__)
    print("Fields of a config, with their defaults:\n")
    for name, default, expected, sentence in describe_fields():
        print(f"--config.{name}={default!r}  ({expected})\n    {sentence}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if asks_for_help(argv):
        with until_the_reader_leaves():
            show_help()
        return 0
    try:
        argv, joining = take_processes(argv)
        config, workdir = parse(argv)
    except flags.Error as error:
        return fail(one_line(error))
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones

    # Imported late: --help and a misspelt flag need not wait for JAX.
    environment, errors, multihost, preemption, run = _import_training(config)
    try:
        environment.dispatch_in_turn()
        multihost.join(*joining)
        with multihost.told_when_one_is_gone():
            run(config, workdir)
    except errors.DataNotFound as error:
        return fail(str(error), DATA_NOT_FOUND)
    except errors.InputError as error:
        return fail(one_line(error))
    except OSError as error:
        if error.errno not in _OUT_OF_OUR_HANDS:
            raise
        return fail(f"{one_line(error)}; what was written before is kept in {workdir}")
    except preemption.Stopped as stopped:
        print(f"{stopped}; rerun the same command to resume", file=sys.stderr)
        multihost.leave()
        return START_AGAIN
    except multihost.PeerGone as gone:
        return fail(f"{gone}; rerun the same command in all processes to resume", START_AGAIN)
    except KeyboardInterrupt:
        return fail(
            "interrupted; rerun the same command to resume from the last checkpoint", INTERRUPTED
        )
    except (MemoryError, RuntimeError) as error:  # XLA has no exception class for it
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return fail(
            "out of memory; expected a smaller config.batch_size (or model, or max_length): "
            + one_line(error)[:200]
        )
    return 0


def _import_training(config: ConfigDict):
    """Imports JAX and returns the modules that `main` needs, and the function that runs.

    Ctrl-C ends the program at once meanwhile. Inside an import it would get lost in a callback or end in a
    traceback.
    """
    handler = signal.getsignal(signal.SIGINT)
    ours = handler is signal.default_int_handler  # not where it is ignored, as under nohup
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from bahdanau_jax import errors
        from bahdanau_jax.runs import environment, multihost, preemption

        if config.get("task") == "seq2seq":
            from bahdanau_jax.training.seq2seq import train_seq2seq as run
        elif config.get("task") == "language_model":
            from bahdanau_jax.training.language_model import train_language_model as run
        elif "task" in config:
            from bahdanau_jax.recipes.pretrain import pretrain as run
        else:
            from bahdanau_jax.training.train import train_and_evaluate as run
    finally:
        if ours:
            signal.signal(signal.SIGINT, handler)
    return environment, errors, multihost, preemption, run


def _joined() -> bool:
    """Whether other processes of this run still wait for this one."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _quiet_libraries() -> None:
    """Keeps the messages of libraries' threads off the terminal.

    A failed checkpoint is raised again in the main thread, which prints one line. Orbax, asyncio and
    TensorStore print hundreds of lines about it before.
    """
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    threading.excepthook = lambda _: None

    def show_of_main_thread(failed):
        # After a failure Orbax leaves coroutines unfinished; each would report it again.
        left_over = inspect.iscoroutine(failed.object)
        if threading.current_thread() is threading.main_thread() and not left_over:
            sys.__unraisablehook__(failed)

    sys.unraisablehook = show_of_main_thread
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


if __name__ == "__main__":
    _quiet_libraries()
    code = main()
    if code == INTERRUPTED or (code and _joined()):
        # A normal exit would wait for a running compilation, or for the other processes.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
