"""Compiles the kernel's functions with numba and caches them per user."""

import hashlib
import os
import pathlib
import tempfile

import numba
from llvmlite import binding
from numba import types
from numba.core.codegen import get_host_cpu_features

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


def _cache_folder():
    """One folder per user and version of this folder's files. numba alone would compare only one file."""
    here = pathlib.Path(__file__).parent
    sources = b"".join(file.read_bytes() for file in sorted(here.glob("*.py")))
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(home, "bahdanau_jax", "numba-" + hashlib.sha256(sources).hexdigest()[:12])
    try:
        os.makedirs(folder, exist_ok=True)
        return folder
    except OSError:
        return tempfile.mkdtemp()


def compiled(arguments):
    """Decorator: compiles a C function of `arguments` int64 that returns int64, or loads it from the cache."""

    def decorate(function):
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _cache_folder()
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
