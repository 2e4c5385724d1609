"""launch.sh, in a folder where Python is a stub that records its calls."""

import os
import platform
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from benchmarks.worker import TUNABLES

ROOT = Path(__file__).parent.parent
TOOLS = "bash env dirname cksum mktemp rm cat grep getconf sh sleep mkdir cp chmod".split()

READLINK = f"""#!/bin/sh
[ "$1" != -f ] || exit 1 # as on macOS before 12.3
exec {shutil.which("readlink")} "$@"
"""
PYTHON = """#!/usr/bin/env bash
case "$*" in
"-c "*) exit 0 ;;
"-m venv --clear "*)
    mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"
    ;;
esac
echo "$PWD | ${GLIBC_TUNABLES-} | $*" >>"$CALLS"
case "$*" in
*"pip"*) echo "pip says no" && exit "${PIP_CODE:-0}" ;;
*"--config.wait"*)
    trap 'echo told INT >>"$CALLS"; exit 75' INT
    trap 'echo told TERM >>"$CALLS"; exit 75' TERM
    echo ready
    while true; do sleep 0.1; done
    ;;
*"--config.kill"*) kill -KILL $$ ;;
*"-m experiments.run") exit "${RUN_CODE:-0}" ;;
*"experiments.run --config"*) exit "${RUN_WITH_CONFIG_CODE:-0}" ;;
esac
"""


class Machine:
    """launch.sh in a folder with a space in its name, an empty HOME, and a PATH with few programs (no git)."""

    def __init__(self, folder: Path):
        self.folder, self.root, self.bin = folder, folder / "the repository", folder / "bin"
        self.home, self.calls_file = folder / "home", folder / "calls"
        for new in (self.root, self.bin, self.home):
            new.mkdir()
        for name in ("launch.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        for name in TOOLS:
            path = shutil.which(name)
            if path is not None:
                (self.bin / name).symlink_to(path)
        self.script("readlink", READLINK)
        self.script("python3.12", PYTHON)

    def script(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def environment(self) -> dict[str, str]:
        return {"PATH": str(self.bin), "HOME": str(self.home), "CALLS": str(self.calls_file)}

    def launch(self, *arguments: str, program: Path | None = None, **environment: str):
        return subprocess.run(
            [program or self.root / "launch.sh", *arguments],
            cwd=self.folder,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, *arguments: str, **environment: str):
        return subprocess.Popen(
            [self.root / "launch.sh", *arguments],
            cwd=self.folder,
            env=self.environment() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self) -> list[str]:
        """The calls of Python since the last question, except those that create .venv."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [line.split(" | ")[-1] for line in lines if "-m venv" not in line]

    def pip(self, extras: str = "train") -> str:
        target = f"{self.root}[{extras}]"
        return f"-m pip --disable-pip-version-check install --quiet --editable {target}"


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", ["launch.sh", ".ci/run", ".ci/outside"])
def test_the_scripts_are_bash(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_only_the_first_start_installs(machine):
    done = machine.launch("--config.epochs=1")
    assert done.returncode == 0
    assert done.stderr.count("first start only") == 1
    assert machine.calls() == [machine.pip(), "-P -m experiments.run --config.epochs=1"]
    done = machine.launch("--config.epochs=1")
    assert "first start only" not in done.stderr
    assert machine.calls() == ["-P -m experiments.run --config.epochs=1"]


def test_it_installs_again_after_a_change_of_requirements_or_folder(machine):
    machine.launch("--help")
    machine.calls()
    with open(machine.root / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    machine.launch("--help")
    assert machine.pip() in machine.calls()
    machine.root = machine.root.rename(machine.folder / "moved")
    machine.launch("--help")
    assert machine.pip() in machine.calls()


def test_a_failed_installation_shows_why_and_is_repeated(machine):
    done = machine.launch("--help", PIP_CODE="1")
    assert done.returncode == 1
    assert "pip says no" in done.stderr and "launch.sh: error: " in done.stderr
    assert machine.calls() == [machine.pip()]
    machine.launch("--help")
    assert machine.calls() == [machine.pip(), "-P -m experiments.run --help"]


def test_arguments_and_current_directory_are_kept_even_through_a_link(machine):
    link = machine.folder / "link"
    link.symlink_to("second link")
    (machine.folder / "second link").symlink_to(machine.root / "launch.sh")
    machine.launch("--help", program=link)
    lines = machine.calls_file.read_text().splitlines()
    assert lines[-1].startswith(f"{machine.folder} | ")
    machine.calls()
    machine.launch("--config", "my config.py", "--config.bucket_lengths=(1, 2)")
    arguments = "--config my config.py --config.bucket_lengths=(1, 2)"
    assert machine.calls() == [f"-P -m experiments.run {arguments}"]


def test_it_returns_the_exit_code_of_the_run(machine):
    assert machine.launch("--config=x", RUN_WITH_CONFIG_CODE="2").returncode == 2
    assert machine.launch(RUN_CODE="130").returncode == 130


def test_without_data_and_arguments_it_trains_on_the_embedded_reviews(machine):
    done = machine.launch(RUN_CODE="66", RUN_WITH_CONFIG_CODE="7")
    assert done.returncode == 7
    assert "Training experiments/imdb_embedded.py" in done.stderr
    assert machine.calls() == [
        machine.pip(),
        "-P -m experiments.run",
        machine.pip("train,embedded"),
        f"-P -m experiments.run --config={machine.root}/experiments/imdb_embedded.py",
    ]


def test_without_data_but_with_arguments_it_fails(machine):
    done = machine.launch("--config=experiments/imdb.py", RUN_WITH_CONFIG_CODE="66")
    assert done.returncode == 66
    assert "imdb_embedded" not in done.stderr
    assert len(machine.calls()) == 2


RUN = "-P -m experiments.run --config.epochs=1"


@pytest.mark.parametrize("code", ["1", "75", "134"])
def test_retry_restarts_after_a_crash_or_preemption_up_to_a_limit(machine, code):
    done = machine.launch("--retry=2", "--config.epochs=1", RUN_WITH_CONFIG_CODE=code)
    assert done.returncode == int(code)
    assert machine.calls() == [machine.pip(), RUN, RUN, RUN]
    assert f"exit code {code}: restarting (2 of at most 2)" in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("code", ["0", "2", "66", "130"])
def test_retry_does_not_restart_if_that_cannot_help(machine, code):
    done = machine.launch("--config.epochs=1", "--retry", RUN_WITH_CONFIG_CODE=code)
    assert done.returncode == int(code)
    assert machine.calls() == [machine.pip(), RUN]


def test_retry_restarts_after_a_kill(machine):
    done = machine.launch("--retry=1", "--config.kill=1")
    assert done.returncode == 128 + signal.SIGKILL
    assert len(machine.calls()) == 3


def test_retry_without_data_trains_on_the_embedded_reviews(machine):
    done = machine.launch("--retry=1", RUN_CODE="66", RUN_WITH_CONFIG_CODE="75")
    assert done.returncode == 75
    assert [call[:22] for call in machine.calls()[-2:]] == ["-P -m experiments.run "] * 2


@pytest.mark.parametrize("count", ["", "-1", "x", "1.5", "9" * 40])
def test_a_wrong_number_of_restarts_is_refused(machine, count):
    done = machine.launch(f"--retry={count}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"launch.sh: error: --retry={count}; expected a number")
    assert machine.calls() == []


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_reaches_the_run_once_and_prevents_a_restart(machine, name):
    process = machine.start("--retry", "--config.wait=1")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 75
    assert machine.calls()[1:] == [
        "-P -m experiments.run --config.wait=1",
        f"told {'INT' if name == 'INT' else 'TERM'}",
    ]
    assert "restarting" not in errors


@pytest.mark.slow
def test_a_signal_reaches_a_run_that_has_just_started(machine):
    """It comes when the run is ready and launch.sh does not know its number yet."""
    slow = machine.folder / "slow.sh"
    slow.write_text("set -T; trap '[[ $BASH_COMMAND != child=?! ]] || sleep 1' DEBUG")
    process = machine.start("--retry", "--config.wait=1", BASH_ENV=str(slow))
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert machine.calls()[-1] == "told TERM"


def test_each_process_gets_its_number(machine):
    done = machine.launch("--processes=2", "--config.epochs=1")
    assert done.returncode == 0
    calls = [call for call in machine.calls() if "experiments.run" in call]
    started = sorted(call.split("--coordinator=localhost:")[1].split(" ", 1)[1] for call in calls)
    assert started == ["--processes=2 --process=0", "--processes=2 --process=1"]
    assert all(call.startswith("-P -m experiments.run --config.epochs=1 ") for call in calls)


@pytest.mark.parametrize("code, starts", [("75", 4), ("2", 2)])
def test_processes_restart_together(machine, code, starts):
    arguments = ["--processes=2", "--retry=1", "--config.epochs=1"]
    done = machine.launch(*arguments, RUN_WITH_CONFIG_CODE=code)
    assert done.returncode == int(code)
    assert len([call for call in machine.calls() if "--process=" in call]) == starts


@pytest.mark.parametrize("count", ["", "0", "x", "-2"])
def test_a_wrong_number_of_processes_is_refused(machine, count):
    done = machine.launch(f"--processes={count}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"launch.sh: error: --processes={count}; expected a number")


def test_a_signal_reaches_every_process(machine):
    process = machine.start("--processes=2", "--config.wait=1")
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    assert machine.calls().count("told TERM") == 2


ALL_CORES = "--numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder"


@pytest.mark.parametrize(
    "arguments, passed_on",
    [
        (["-k", "a or b"], "-k a or b"),
        ([], f"{ALL_CORES} -m not long"),
        (["--all"], ALL_CORES),
        (["--all", "--lf"], f"{ALL_CORES} --lf"),
        (["--fast"], f"{ALL_CORES} -m not slow"),
        (["--fast", "-k", "a or b"], f"{ALL_CORES} -m not slow -k a or b"),
    ],
)
def test_pytest_runs_in_the_repository(machine, arguments, passed_on):
    assert machine.launch("test", *arguments).returncode == 0
    lines = machine.calls_file.read_text().splitlines()
    assert lines[-1].split(" | ")[0] == str(machine.root)
    assert machine.calls() == [machine.pip("test"), f"-m pytest {passed_on}"]


def test_it_works_without_a_home_folder(machine):
    home = machine.home
    home.rmdir()
    assert machine.launch("--help", HOME="").returncode == 0
    assert not home.exists()
    assert machine.calls() == [machine.pip(), "-P -m experiments.run --help"]


def test_malloc_is_set_up_beside_existing_glibc_settings(machine):
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("this system has no glibc")
    ours = TUNABLES  # those of the benchmark
    for before, after in {
        "": ours,
        "glibc.malloc.check=1": f"glibc.malloc.check=1:{ours}",
        "glibc.malloc.hugetlb=0": ours.replace("hugetlb=1", "hugetlb=0"),
        ours: ours,
    }.items():
        environment = {"GLIBC_TUNABLES": before} if before else {}
        done = machine.launch("--help", **environment)
        last = machine.calls_file.read_text().splitlines()[-1]
        assert last.split(" | ")[1] == after
        assert (f"GLIBC_TUNABLES={after}" in done.stderr) == (before != after)


def test_it_installs_the_jax_for_the_accelerator(machine):
    machine.script("nvidia-smi", "#!/bin/sh\necho 'no devices were found'\nexit 6\n")
    machine.launch("--help")
    assert machine.calls()[0] == machine.pip()
    machine.script("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    done = machine.launch("--help")
    assert machine.calls()[0] == machine.pip("train,cuda")
    assert "GLIBC_TUNABLES" not in done.stderr
    (machine.bin / "nvidia-smi").unlink()
    machine.launch("--help", TPU_NAME="local")
    assert machine.calls()[0] == machine.pip("train,tpu")


def test_the_pythons_that_install_everything_come_first(machine):
    machine.script("python3.14", "#!/bin/sh\necho tried >>$CALLS\n")  # gensim has no wheel
    assert machine.launch("--help").returncode == 0
    assert "tried" not in machine.calls()


def test_a_missing_python_is_reported_in_one_line(machine):
    (machine.bin / "python3.12").unlink()
    # A pyenv shim whose version is not active.
    machine.script(
        "python3.13", "#!/bin/sh\necho 'pyenv: python3.13: command not found'\nexit 127\n"
    )
    done = machine.launch("--help")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1 and "3.11 to 3.14" in errors[0] and "brew install" in errors[0]
    assert "pyenv" not in done.stderr
