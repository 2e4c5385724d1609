"""Compiles the kernel's functions with numba and caches them per user."""

import atexit
import functools
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile

import numba
from llvmlite import binding
from numba import types
from numba.core.codegen import get_host_cpu_features

COMPLETE = "complete"  # a file of a cache folder, with the number of the others
i64, f32 = types.int64, types.float32
njit = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

aligned_alloc = types.ExternalFunction("aligned_alloc", i64(i64, i64))
free = types.ExternalFunction("free", types.void(i64))
memset = types.ExternalFunction("memset", i64(i64, types.int32, i64))
usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
getpagesize = types.ExternalFunction("getpagesize", types.int32())
madvise = types.ExternalFunction("madvise", types.int32(i64, i64, types.int32))


def cpu_features() -> frozenset[str]:
    """The features of the CPU that numba compiles for, such as "avx2" and "fma"."""
    flags = numba.config.CPU_FEATURES  # NUMBA_CPU_FEATURES, or "" for NUMBA_CPU_NAME=generic
    if flags is None:
        flags = get_host_cpu_features()
    return frozenset(flag[1:] for flag in flags.split(",") if flag.startswith("+"))


def _name_of_cache() -> str:
    """Tells versions of the kernel apart, and what numba compiles them with and for."""
    here = pathlib.Path(__file__).parent
    digest = hashlib.sha256(repr([here, numba.__version__, sys.version_info]).encode())
    cpu = numba.config.CPU_NAME or binding.get_host_cpu_name()
    digest.update(repr([cpu, sorted(cpu_features())]).encode())
    for file in sorted(here.glob("*.py")):  # with its time: numba compiles a newer file again
        digest.update(file.read_bytes() + str(file.stat().st_mtime_ns).encode())
    return f"numba-{digest.hexdigest()[:12]}"


def _files_in(folder: pathlib.Path) -> int:
    return len(list(folder.glob("*/*.nb?")))


def _is_complete(folder: pathlib.Path) -> bool:
    try:
        return int((folder / COMPLETE).read_text()) == _files_in(folder)
    except (OSError, ValueError):
        return False


@functools.cache
def _cache_folders() -> tuple[str, pathlib.Path | None]:
    """Where numba reads compiled functions, or writes them; and what the folder is to be called at last.

    All functions of a folder come from one process. numba names a function inside by a number that it counts
    up, so that functions of two processes may have one name, and one would be linked in place of the other.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = pathlib.Path(home, "bahdanau_jax", _name_of_cache())
    if _is_complete(folder):
        return str(folder), None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        own = tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent)
    except OSError:
        own, folder = tempfile.mkdtemp(), None
    atexit.register(shutil.rmtree, own, ignore_errors=True)  # if it keeps this name
    return own, folder


def keep_compiled() -> None:
    """Called once everything is compiled: later processes load it. The first of several processes wins."""
    written, folder = _cache_folders()
    if folder is None or _is_complete(folder):
        return
    own = pathlib.Path(written)
    try:
        (own / COMPLETE).write_text(str(_files_in(own)))
        shutil.rmtree(folder, ignore_errors=True)  # something has deleted a part of it
        own.rename(folder)
    except OSError:
        pass  # another process was faster; or the disk is full, and the next process compiles again


def compiled(arguments):
    """Decorator: compiles a C function of `arguments` int64 that returns int64, or loads it from the cache."""

    def decorate(function):
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _cache_folders()[0]
        try:
            return numba.cfunc(i64(*[i64] * arguments), cache=True, error_model="numpy")(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


def library_function(arguments):
    """Decorator: as `compiled`, and numba code calls the function by its name, through the linker.

    numba compiles an ordinary function again for each caller. A large function deep in the call tree is
    better compiled once.
    """

    def decorate(function):
        binding.add_symbol(function.__name__, compiled(arguments)(function).address)
        return types.ExternalFunction(function.__name__, i64(*[i64] * arguments))

    return decorate
