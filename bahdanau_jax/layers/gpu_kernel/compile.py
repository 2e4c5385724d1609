"""Compiles the kernels when a program is traced, by NVRTC, and calls it through XLA.

NVRTC is a library that `jax[cuda12]` and `jax[cuda13]` install: no CUDA toolkit is needed. XLA takes the
result, a text in NVIDIA's PTX, by its custom call `__gpu$xla.gpu.ptx`; the driver makes machine code of it.
"""

import ctypes
import functools
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

FOLDER = Path(__file__).parent
# NVRTC may be newer than the driver, which then refuses its PTX. The kernels need nothing newer than this.
PTX_VERSION = "8.0"  # CUDA 12.0
ARCHITECTURE = "compute_80"  # Ampere and later


def source_of(file: str) -> str:
    """The source of the kernels in a file of this folder."""
    return (FOLDER / "common.cuh").read_text() + (FOLDER / file).read_text()


def call(
    file: str,
    name: str,
    macros: dict[str, int],
    results: Sequence[jax.ShapeDtypeStruct],
    operands: Sequence[Any],
    *,
    grid: tuple[int, int],
    threads: int,
    shared_bytes: int,
) -> list[jax.Array]:
    """Runs a kernel.

    Args:
      file: where it is, in this folder.
      name: of the kernel.
      macros: the macros that it is compiled with.
      results: shapes and dtypes of the arrays that it writes, its last parameters.
      operands: the arrays that it reads.
      grid: the number of blocks, x and y.
      threads: of a block.
      shared_bytes: of dynamic shared memory.
    """
    run = jax.ffi.ffi_call("__gpu$xla.gpu.ptx", tuple(results))
    sizes = dict(grid_x=grid[0], grid_y=grid[1], grid_z=1, block_x=threads, block_y=1, block_z=1)
    attributes = {key: np.int32(size) for key, size in sizes.items()}
    attributes["shared_mem_bytes"] = np.int32(shared_bytes)
    ptx = compile_ptx(source_of(file), tuple(macros.items()))
    return list(run(*operands, name=name, kernel_type="ptx", kernel_data=ptx, **attributes))


@functools.cache
def compile_ptx(source: str, macros: tuple[tuple[str, int], ...]) -> str:
    """Compiles CUDA C++ to PTX.

    Raises:
      OSError: NVRTC is not installed.
      RuntimeError: it does not take the source, with its log.
    """
    nvrtc = library()
    program = ctypes.c_void_p()
    options = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17"]
    options += [f"-D{name}={value}" for name, value in macros]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"lstm.cu", 0, None, None)
    )
    try:
        if nvrtc.nvrtcCompileProgram(program, len(options), given):
            log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
            raise RuntimeError(f"NVRTC does not compile the kernel: {log}")
        ptx = _read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return re.sub(r"(?m)^\.version .*$", f".version {PTX_VERSION}", ptx, count=1)


def _read(size_of, read, program) -> str:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(read(program, text))
    return text.value.decode()


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"NVRTC failed with code {code}")


@functools.cache
def library() -> ctypes.CDLL:
    """Loads NVRTC: that of the pip packages, else that of the system.

    Raises:
      OSError: there is none.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [file for folder in folders for file in Path(folder).glob("*/lib/libnvrtc.so.*")]
    # Where 12 and 13 are installed, either will do.
    for name in [*sorted(found), "libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"]:
        # NVRTC looks for this library by its name, and not in the folder of pip. A loaded one is found.
        builtins = name.parent.glob("libnvrtc-builtins.so.*") if isinstance(name, Path) else ()
        try:
            for file in builtins:
                ctypes.CDLL(str(file))
            return ctypes.CDLL(str(name))
        except OSError:
            continue
    raise OSError("libnvrtc is not installed; jax[cuda12] and jax[cuda13] bring it")
