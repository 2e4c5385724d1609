"""How the kernels are compiled: what numba options, where the results are kept, how they find each other."""

import hashlib
import os
import pathlib
import tempfile

import numba
from llvmlite import binding
from numba import types

FILES = ("build", "simd", "kernel", "backward", "ffi")
i64, f32 = types.int64, types.float32
njit = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

aligned_alloc = types.ExternalFunction("aligned_alloc", i64(i64, i64))
free = types.ExternalFunction("free", types.void(i64))
usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
madvise = types.ExternalFunction("madvise", types.int32(i64, i64, types.int32))


def _cache_folder():
    """Per user and per version of the files here (numba by itself looks at one file only)."""
    here = pathlib.Path(__file__).parent
    sources = b"".join(
        file.read_bytes() for file in sorted(here.glob("*.py")) if file.stem in FILES
    )
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(home, "bahdanau_jax", "numba-" + hashlib.sha256(sources).hexdigest()[:12])
    try:
        os.makedirs(folder, exist_ok=True)
        return folder
    except OSError:
        return tempfile.mkdtemp()


def compiled(arguments):
    """Decorator: a C function of so many int64 that returns int64, compiled now or loaded from the cache."""

    def decorate(function):
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _cache_folder()
        try:
            return numba.cfunc(i64(*[i64] * arguments), cache=True, error_model="numpy")(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


def library_function(arguments):
    """Decorator: as `compiled`, known to the linker by its name, and called by that name from numba code.

    numba compiles a function into each of its callers, and each caller into its own: what is large and
    deep below is better compiled once.
    """

    def decorate(function):
        binding.add_symbol(function.__name__, compiled(arguments)(function).address)
        return types.ExternalFunction(function.__name__, i64(*[i64] * arguments))

    return decorate
