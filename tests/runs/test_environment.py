"""A run names its commit, versions, hardware and memory."""

import mmap
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from bahdanau_jax.runs import environment


def git(folder, *arguments):
    who = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # a hook that runs the tests points git at its own repository
    git(tmp_path, "init", "-q")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "code.py").write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_the_commit_shows_whether_tracked_files_were_changed(repository):
    clean = environment.commit(repository / "package")
    assert clean is not None and len(clean) == 40
    (repository / "notes.txt").write_text("untracked files change nothing that ran\n")
    assert environment.commit(repository / "package") == clean
    (repository / "package" / "code.py").write_text("2\n")
    assert environment.commit(repository / "package") == clean + "-dirty"


def test_an_installed_package_does_not_take_the_commit_of_the_project_around_it(repository):
    installed = repository / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("1\n")
    assert environment.commit(installed) is None


def test_no_commit_without_a_repository_or_without_git(tmp_path, repository, monkeypatch):
    assert environment.commit(tmp_path / "missing") is None
    monkeypatch.setenv("PATH", "")
    assert environment.commit(repository / "package") is None


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("jax", "no-such-package-here"))
    versions = environment.versions()
    assert versions["python"] and versions["jax"]
    assert versions["no-such-package-here"] is None


def test_hardware_and_devices_are_named():
    found = environment.hardware()
    assert found["cpu"] and int(found["cores"]) >= 1
    assert all(" x " in device for device in environment.devices())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_peak_memory_never_falls_and_includes_freed_memory():
    before = environment.peak_memory()["peak_memory_bytes"]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    more = 100 * 2**20
    size = before - pages * os.sysconf("SC_PAGE_SIZE") + more
    fresh = np.frombuffer(mmap.mmap(-1, size), np.uint8)  # not what the heap keeps of earlier tests
    fresh[:] = 1
    del fresh
    after = environment.peak_memory()["peak_memory_bytes"]
    assert after > before + 0.8 * more
    assert environment.peak_memory()["peak_memory_bytes"] >= after


@pytest.mark.slow
def test_dispatched_in_turn_a_step_has_ended_when_its_call_returns():
    code = """
        import sys
        import jax, jax.numpy as jnp
        from bahdanau_jax.runs import environment
        if sys.argv[1] == "in turn":
            environment.dispatch_in_turn()
        step = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, x: jnp.tanh(x @ x), x))
        x = jnp.ones((300, 300))
        step(x).block_until_ready()
        print(step(x).is_ready())
    """
    for dispatch, ended in (("in turn", "True"), ("as JAX does", "False")):
        command = [sys.executable, "-c", textwrap.dedent(code), dispatch]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert done.stdout.split() == [ended]


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library has no malloc_trim"
)
def test_freed_memory_between_arrays_that_stay_is_given_back(monkeypatch):
    monkeypatch.setattr(environment.jax, "default_backend", lambda: "cpu")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    arrays = [np.ones(100_000, np.uint8) for _ in range(1_000)]  # small enough to lie in the heap
    stay = arrays[::10]
    del arrays
    before = resident()
    environment.return_freed_memory()
    assert resident() < before - 0.5 * 900 * 100_000
    assert all((array == 1).all() for array in stay)
