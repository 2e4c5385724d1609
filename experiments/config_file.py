"""From the command line to a config: --config=FILE, --config.<field>=<value>, --workdir=FOLDER."""

import difflib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CONFIG = "experiments/imdb.py"


def load_config(path: str) -> ConfigDict:
    """Returns what `get_config()` of the file returns. Raises flags.Error if it is not a config file."""
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
            f"config file {path} is not a config: {type(error).__name__}: {error}"
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
                raise flags.Error(f"config file {path} is not a config: expected a .py file")
            return file
    ours = [
        f"experiments/{file.name}"
        for file in sorted((ROOT / "experiments").glob("*.py"))
        if re.search(r"^def get_config\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    close = difflib.get_close_matches(f"experiments/{Path(path).name}", ours, n=3, cutoff=0.6)
    raise flags.Error(f"config file {path} does not exist; " + _suggest(close, ours))


def parse(argv: Sequence[str]) -> tuple[ConfigDict, Path]:
    """Returns the config with the command line's overrides, and the run's folder.

    Flags live in a `FlagValues` of their own, so nothing global changes and a process can parse twice.

    Raises:
      flags.Error: a flag is wrong; one line.
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


def refuse_other_flags(argv: Sequence[str], known: Sequence[str]) -> None:
    """Raises flags.Error for a flag that does not belong to the config. The message lists `known`.

    For commands with flags of their own, which they have taken out of `argv` already.
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


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
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
