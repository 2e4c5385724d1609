"""What a run runs on: processor, devices, versions and commit, shown at its start and kept in result.json."""

import collections
import ctypes
import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from bahdanau_jax.errors import InputError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "bahdanau-jax")


def hardware() -> dict[str, str | int]:
    """The processor and the number of cores that this process may use.

    Example:
      >>> hardware()  # doctest: +SKIP
      {'cpu': 'AMD EPYC 7763 64-Core Processor', 'cores': 2}
    """
    return {"cpu": _cpu_name(), "cores": _cores()}


def devices() -> list[str]:
    """JAX's devices, counted by kind, such as `["1 x NVIDIA H200"]`."""
    kinds = collections.Counter(device.device_kind for device in jax.devices())
    return [f"{count} x {kind}" for kind, count in kinds.items()]


def peak_memory() -> dict[str, Any]:
    """The most memory this process has held so far, in bytes; None if it is unknown.

    `peak_memory_bytes` is resident memory, `peak_device_memory_bytes` that of the fullest accelerator.

    Example:
      >>> peak_memory()  # doctest: +SKIP
      {'peak_memory_bytes': 1610612736, 'peak_device_memory_bytes': None}
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    on_devices = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    return {
        "peak_memory_bytes": _peak_resident(),
        "peak_device_memory_bytes": max(on_devices, default=None),
    }


def versions(*others: str) -> dict[str, str | None]:
    """The versions of Python, of PACKAGES and of `others`; None for a package that is not installed."""
    names = (*PACKAGES, *others)
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def provenance(*packages: str) -> dict[str, Any]:
    """Processor, versions (also of `packages`), commit and time, for result.json."""
    return {
        "hardware": hardware(),
        "versions": versions(*packages),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def commit(folder: str | Path = Path(__file__).parent) -> str | None:
    """The git commit of `folder`, with "-dirty" if tracked files were changed.

    None if git does not answer, or if the repository around `folder` tracks nothing in it: a package installed
    in a .venv must not take the commit of the project around it.
    """
    if not _git(folder, "ls-files", "--", "."):
        return None
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return head + ("-dirty" if changed else "")


def use_compilation_cache() -> str:
    """Makes JAX keep compiled functions for the next start, in a folder of the user, which is returned.

    JAX_COMPILATION_CACHE_DIR takes precedence.
    """
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if folder is None:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = str(Path(cache) / "bahdanau_jax" / "xla")
        jax.config.update("jax_compilation_cache_dir", folder)
        # A start compiles hundreds of small functions besides the steps.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def dispatch_in_turn() -> None:
    """Makes a CPU's next step wait for the one before it. It has no effect once JAX runs.

    JAX starts steps ahead of time, and each of them holds its memory: 0.1 to 0.4 GB more in `imdb.py`.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def return_freed_memory() -> None:
    """Makes glibc give memory back that the steps of a CPU have freed. Elsewhere it does nothing.

    Steps of several lengths leave holes between the arrays that stay: 0.3 to 0.6 GB in `imdb.py`. Now and then
    is enough. After every step it would cost the time that launch.sh's settings of malloc save.
    """
    if sys.platform == "linux" and jax.default_backend() == "cpu":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # another C library has none
        if trim is not None:
            trim(0)


def use_host_devices(asked: int, *, batch_size: int, kernel: bool) -> None:
    """Splits the CPU into virtual devices, over which a batch is split as over GPUs.

    Args:
      asked: number of devices. 0 = automatic: 1 with the CPU kernel, which uses all cores, otherwise one per
        core, since the scan's loop uses a single core.
      batch_size: rows of a batch. With 0 devices asked, each device gets at least 64 of them.
      kernel: whether the recurrence is the CPU kernel.

    Raises:
      InputError: JAX already runs in this process with another number.
    """
    count = asked
    if not count:
        if kernel or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
            return
        most = min(_cores(), batch_size // 64)
        count = next((n for n in range(most, 1, -1) if batch_size % n == 0), 1)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:  # JAX has made its devices
        found = jax.local_device_count("cpu")
        if asked and asked != found:
            raise InputError(
                f"config.host_devices is {asked}; expected {found}, since JAX already runs in this process"
            ) from error


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    # A container or taskset may leave this process fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _peak_resident() -> int:
    # ru_maxrss only if there is no /proc: on Linux a child inherits its parent's.
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: str | Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
