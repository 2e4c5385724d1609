"""Flags, errors and exit codes are the same in every command."""

import os
import shlex
import subprocess
import sys

import pytest
from absl import flags

from bahdanau_jax.errors import DataNotFound, InputError
from experiments.command import INTERRUPTED, REQUIRED, command, parse_flags
from experiments.config_file import ROOT


def test_defaults_give_the_types_of_flags():
    defaults = dict(a=3, b=0.5, c=False, d=["x"], e=("y", "z"), f=None, g="t", h=(None, "u"))
    asked, rest = parse_flags(["command"], **defaults)
    found = [getattr(asked, name) for name in defaults]
    assert found == [3, 0.5, False, ["x"], "y", None, "t", None] and rest == []
    given = ["--a=4", "--b=1", "--c", "--d=x,y", "--e=z", "--f=p", "--g=q", "--h=u"]
    asked, _ = parse_flags(["command", *given], **defaults)
    found = [getattr(asked, name) for name in defaults]
    assert found == [4, 1.0, True, ["x", "y"], "z", "p", "q", "u"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--workdir is missing"),
        (["--workdir="], "--workdir is missing"),
        (["--workdir=a", "--out="], "--out is empty"),
        (["--workdir=a", "--top=0"], "--top=0"),
        (["--workdir=a", "--top=x"], "--top=x"),
        (["--workdir=a", "--seed=-1"], "--seed=-1"),
        (["--workdir=a", "--form=xml"], "--form=xml"),
        (["--workdir=a", "--tpo=3"], "'tpo'"),
        (["--workdir=a", "b"], "unexpected argument 'b'; expected --workdir"),
    ],
)
def test_a_wrong_flag_is_named(arguments, expected):
    defaults = dict(workdir=REQUIRED, out="b", top=3, seed=0, form=("csv", "txt"))
    with pytest.raises(flags.Error, match=expected):
        parse_flags(["command", *arguments], **defaults)


def test_config_flags_are_left_for_the_config():
    argv = ["command", "--config", "a.py", "--top=4", "--config.epochs=1"]
    asked, rest = parse_flags(argv, config=True, top=3)
    assert asked.top == 4
    assert rest == ["command", "--config", "a.py", "--config.epochs=1"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a\nb"), 2, "error: a b\n"),
        (flags.Error("wrong"), 2, "error: wrong\n"),
        (DataNotFound("not here:\n  look there"), 66, "error: not here:\n  look there\n"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
    ],
)
def test_errors_become_messages_and_exit_codes(error, code, message, capsys):
    @command
    def main(argv):
        raise error

    assert main(["command"]) == code
    assert message in capsys.readouterr().err


def test_help_is_the_docstring_of_the_module(capsys):
    @command
    def main(argv):
        raise AssertionError

    assert main(["command", "--help"]) == 0
    assert capsys.readouterr().out == f"{__doc__}\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("experiments.benchmark", "benchmarks"),
        ("experiments.scaling", "benchmarks.scaling"),
        ("experiments.torture", "tests.torture"),
    ],
)
def test_a_moved_command_names_its_new_place(old, new):
    done = subprocess.run(
        [sys.executable, "-P", "-m", old, "--quick"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: python -m {old} is now python -m {new}\n"


@pytest.mark.parametrize(
    "module",
    ["run", pytest.param("predict", marks=pytest.mark.slow)],  # imports JAX
)
def test_a_reader_that_leaves_early_is_no_error(module):
    python = shlex.quote(sys.executable)
    head = f"{python} -m experiments.{module} --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", head], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout == "141\n"
