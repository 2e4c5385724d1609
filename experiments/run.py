"""Trains a model and evaluates it.

    ./launch.sh [--config=experiments/imdb.py] [--config.<field>=<value> ...] [--workdir=<folder>]

--config    The settings: a Python file with a function get_config(). A relative path is looked up
            where you stand, then in this repository.
--config.x  Overrides the field x of the settings, as in --config.epochs=1,
            --config.model.dropout=0.2 or --config.bucket_lengths="(250, 500)".
--workdir   The run's folder; default: runs/<the config file's name> in this repository. The same
            command on the same folder goes on from the last checkpoint.

--coordinator=HOST:PORT --processes=N --process=I
            This is process I of N that train together, the first of which (0) listens at HOST:PORT.
            Inside a SLURM job, under Open MPI, on a TPU pod or GKE they find each other without flags;
            on one machine `launch.sh --processes=N` starts them.

SIGTERM or Ctrl-C lets the step finish and saves it; Ctrl-C twice stops at once.

Ends with 0 when done, 2 when something asked for is not right, 66 when the data is not found, 75 when
a signal stopped it, or another process of the run is gone: the same command goes on, to the same bits; 130
after Ctrl-C twice.
"""

import difflib
import errno
import importlib.util
import inspect
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.command import DATA_NOT_FOUND, asks_for_help, fail, one_line

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = "experiments/imdb.py"
START_AGAIN = 75  # sysexits.h: EX_TEMPFAIL
INTERRUPTED = 130  # as a shell says of SIGINT
_OUT_OF_OUR_HANDS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def load_config(path: str) -> ConfigDict:
    """Returns what `get_config()` of the file returns; flags.Error when it is no config file."""
    file = find_config(path)
    try:
        spec = importlib.util.spec_from_file_location("config", file)
        assert spec is not None and spec.loader is not None, "not a Python file"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not callable(getattr(module, "get_config", None)):
            raise flags.Error(f"config file {path} has no function get_config()")
        config = module.get_config()
    except flags.Error:
        raise
    except (Exception, SystemExit) as error:
        raise flags.Error(
            f"config file {path} is no config: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(config, ConfigDict):
        raise flags.Error(
            f"get_config() of {path} returned {type(config).__name__}; expected an"
            " ml_collections.ConfigDict"
        )
    return config


def find_config(path: str) -> Path:
    """Returns the config file: from the current folder, else from the repository."""
    if not path:
        raise flags.Error("--config is empty; expected a config file")
    for file in (Path(path), ROOT / path):
        if file.is_dir():
            raise flags.Error(f"config file {path} is a folder; expected a .py file")
        if file.is_file():
            if file.suffix != ".py":
                raise flags.Error(f"config file {path} is no config: expected a .py file")
            return file
    ours = [
        f"experiments/{file.name}"
        for file in sorted((ROOT / "experiments").glob("*.py"))
        if re.search(r"^def get_config\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    close = difflib.get_close_matches(f"experiments/{Path(path).name}", ours, n=3, cutoff=0.6)
    raise flags.Error(f"config file {path} does not exist; " + _suggest(close, ours))


def parse(argv: Sequence[str]) -> tuple[ConfigDict, Path]:
    """Returns the config, with the command line's overrides, and the run's folder.

    Raises `flags.Error`, in one line, for whatever is not right on the command line. Flags live in
    a `FlagValues` of their own, so nothing global changes and a process can parse twice.
    """
    flag_values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=flag_values)
    path, argv = _take_config(flag_values.read_flags_from_files(list(argv), force_gnu=False))
    config = load_config(path)
    fields = list(_fields(config))
    known = ["config", "workdir", *(f"config.{field}" for field in fields)]
    try:
        _check_overrides(argv, config, fields)
        # Defined as a dict, not as a file: a config file is then read once, from where we found it.
        config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=argv)
        rest = flag_values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        close = _nearest(error.flagname, known)
        raise flags.Error(
            f"unknown flag --{error.flagname}; " + _suggest(close, ["config", "workdir"], "--")
        ) from error
    except flags.IllegalFlagValueError as error:
        raise flags.Error(_wrong_type(str(error), config)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise flags.Error(f"{type(error).__name__}: {error}") from error
    if rest:
        raise flags.Error(f"unexpected argument {rest[0]!r}; expected --config or --workdir")
    if flag_values.workdir == "":
        raise flags.Error("--workdir is empty; expected a folder")
    workdir = flag_values.workdir or ROOT / "runs" / Path(path).stem
    return config, Path(workdir)


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


def refuse_other_flags(argv: Sequence[str], known: Sequence[str]) -> None:
    """Raises flags.Error for a flag that is not about the config; `known` are named as those there are.

    For commands that have flags of their own, which are no longer in `argv`, and leave the rest to `parse`.
    """
    for argument in argv[1:]:
        if re.match(r"--?(?!(no)?config\b)[a-z]", argument):
            name = argument.lstrip("-").split("=")[0]
            everything = ["config", *known]
            raise flags.Error(
                f"unknown flag --{name}; " + _suggest(_nearest(name, everything), everything, "--")
            )


def _take_config(argv: list[str]) -> tuple[str, list[str]]:
    """Takes --config=FILE or --config FILE out of the command line."""
    paths, rest = [], argv[:1]
    arguments = iter(argv[1:])
    for argument in arguments:
        if argument in ("--config", "-config"):
            value = next(arguments, None)
            if value is None:
                raise flags.Error("--config has no value; expected a config file")
            paths.append(value)
        elif argument.startswith(("--config=", "-config=")):
            paths.append(argument.split("=", 1)[1])
        else:
            rest.append(argument)
    if len(paths) > 1:
        raise flags.Error(f"--config is given twice: {paths[0]} and {paths[1]}; expected one")
    return (paths[0] if paths else DEFAULT_CONFIG), rest


def _check_overrides(argv: Sequence[str], config: ConfigDict, fields: list[str]) -> None:
    """Refuses an override of a field that the config does not have."""
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match is None or match[1] in fields:
            continue
        name = match[1]
        inside = [field for field in fields if field.startswith(f"{name}.")]
        if inside:
            raise flags.Error(
                f"config.{name} is a group of fields; its fields are: " + _list(inside)
            )
        close = _nearest(name, fields)
        raise flags.Error(f"config has no field {name!r}; " + _suggest(close, fields))


def _fields(config: ConfigDict, prefix: str = ""):
    """Yields the dotted names of a config's fields."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _wrong_type(message: str, config: ConfigDict) -> str:
    """Adds to absl's message what the field holds in the config file."""
    message = message.splitlines()[0]
    match = re.match(r"flag --config\.([\w.]+)=", message)
    if match is None:
        return message
    group = config
    *groups, name = match[1].split(".")
    for part in groups:
        group = group[part]
    return f"{message}; expected {group.get_type(name).__name__}, such as {group[name]!r}"


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    """Returns up to three names like this one, also when its groups were left out."""
    last = [other.rsplit(".", 1)[-1] for other in names]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.7)
    close_last = difflib.get_close_matches(name.rsplit(".", 1)[-1], last, n=3, cutoff=0.7)
    close += [other for other, leaf in zip(names, last, strict=True) if leaf in close_last]
    return list(dict.fromkeys(close))[:3]


def _suggest(close: Sequence[str], everything: Sequence[str], prefix: str = "") -> str:
    if close:
        return "did you mean " + _list([prefix + name for name in close]) + "?"
    return "there are: " + _list([prefix + name for name in everything])


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv if argv is None else argv
    if asks_for_help(argv):
        print(__doc__)
        return 0
    try:
        argv, joining = take_processes(argv)
        config, workdir = parse(argv)
    except flags.Error as error:
        return fail(one_line(error))
    flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own and refuses unparsed ones

    # Imported this late so that --help and a misspelt flag need not wait for JAX.
    errors, processes, stop, run = _import_training(config)
    try:
        processes.join(*joining)
        with processes.told_when_one_is_gone():
            run(config, workdir)
    except errors.DataNotFound as error:
        return fail(str(error), DATA_NOT_FOUND)
    except errors.InputError as error:
        return fail(one_line(error))
    except OSError as error:
        if error.errno not in _OUT_OF_OUR_HANDS:
            raise
        return fail(f"{one_line(error)}; what was written before is kept in {workdir}")
    except stop.Stopped as stopped:
        print(f"{stopped}; the same command goes on from there", file=sys.stderr)
        processes.leave()
        return START_AGAIN
    except processes.PeerGone as gone:
        return fail(f"{gone}; the same command, in all processes, goes on from there", START_AGAIN)
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on from the last checkpoint", INTERRUPTED)
    except (MemoryError, RuntimeError) as error:  # XLA has no class of its own for it
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return fail(
            "out of memory; expected a smaller config.batch_size (or model, or max_length): "
            + one_line(error)[:200]
        )
    return 0


def _import_training(config: ConfigDict):
    """Returns the modules `errors`, `processes` and `stop`, and the function that makes the config's run.

    Ctrl-C meanwhile ends the program at once, which has done nothing yet: in the middle of an
    import it would be lost in a callback or end in a traceback.
    """
    handler = signal.getsignal(signal.SIGINT)
    ours = handler is signal.default_int_handler  # not where it is ignored, as under nohup
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from bahdanau_jax import errors, processes, stop

        if "task" in config:
            from bahdanau_jax.pretrain import pretrain as run
        else:
            from bahdanau_jax.train import train_and_evaluate as run
    finally:
        if ours:
            signal.signal(signal.SIGINT, handler)
    return errors, processes, stop, run


def _joined() -> bool:
    """Whether other processes of this run still wait for this one."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _quiet_libraries() -> None:
    """Keeps what libraries' threads print about a failure off the terminal.

    A checkpoint that cannot be written is raised again in the main thread, which ends with one
    line; Orbax, asyncio and TensorStore print hundreds about it before.
    """
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    threading.excepthook = lambda _: None

    def show_of_main_thread(failed):
        # Orbax leaves coroutines unfinished where another one has failed; each would tell it again.
        left_over = inspect.iscoroutine(failed.object)
        if threading.current_thread() is threading.main_thread() and not left_over:
            sys.__unraisablehook__(failed)

    sys.unraisablehook = show_of_main_thread
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


if __name__ == "__main__":
    _quiet_libraries()
    code = main()
    if code == INTERRUPTED or (code and _joined()):
        # An ordinary end would wait for a compilation that is under way, or for the other processes.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
