"""An LSTM layer as a CPU kernel: XLA runs a whole layer, both directions, in one call.

`lax.scan` spends most of its time outside the products. This kernel keeps the state in the L1 and L2
caches, writes no gates before their nonlinearity, works only on the rows that are real at a step, and
shares the rows among the cores. It is written with numba, so it needs no compiler. XLA calls it through
its foreign function interface (FFI), without Python and without copies.

- product.py has the register-blocked product.
- job.py describes a call, plan.py splits it into parts, packing.py reorders weights and sums gradients.
- forward.py and backward.py compute a layer in training, predict.py in prediction, attention.py the
  attention of a prediction.
- simd.py has the vector instructions, vectors.py what is built on them, bfloat16.py both for bfloat16.
- ffi.py has the function that XLA calls, and the threads. build.py compiles everything.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bahdanau_jax.layers.layer import Arguments, Layer

TARGET, ATTENTION_TARGET = "bahdanau_jax_lstm", "bahdanau_jax_attention"
FORWARD, BACKWARD, PREDICT = 0, 1, 2  # as in job.py


@functools.cache
def obstacle() -> str | None:
    """Returns why the kernel cannot run in this process, or None if it can. Compiles it on first use."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    try:
        _register()
    except Exception as error:  # an unknown numba, LLVM or CPU may raise anything
        return f"numba cannot compile it here: {type(error).__name__}: {error}"
    return None


@functools.cache
def declined() -> str | None:
    """Returns why "auto" does not take the kernel: it cannot run, or would be slower than the scan."""
    return _slower_than_scan() or obstacle()


def _slower_than_scan() -> str | None:
    try:
        from llvmlite import binding

        from bahdanau_jax.layers.cpu_kernel.build import cpu_features
    except Exception:  # `obstacle` says why
        return None
    is_x86 = "86" in binding.get_process_triple().split("-")[0]
    if is_x86 and "fma" not in cpu_features():
        # Each of the kernel's many fma becomes a call of the C library: 28 times the scan's time.
        return "the CPU has no fused multiply-add (FMA) instructions, so native is slower than the scan"
    return None


def dtype_obstacle(dtype: np.dtype) -> str | None:
    """Returns why the kernel does not multiply in this dtype on this CPU, or None if it does."""
    if dtype == jnp.float32:
        return None
    if dtype != jnp.bfloat16:
        return f"the dtype is {dtype}, and native computes in float32 and bfloat16"
    try:
        from bahdanau_jax.layers.cpu_kernel.build import cpu_features
    except Exception:  # `obstacle` says why
        return None
    if "avx512f" in cpu_features():
        return None
    # AVX2 needs more instructions for bfloat16: from 128 units on the kernel would be slower than the scan.
    return "the dtype is bfloat16, in which native computes on CPUs with AVX-512; this one has none"


@functools.cache
def _register() -> None:
    """Compiles the kernel or loads it from the cache, and registers it with XLA."""
    from bahdanau_jax.layers.cpu_kernel import build, ffi

    build.keep_compiled()
    for target, handle in ((TARGET, ffi.handle), (ATTENTION_TARGET, ffi.handle_attention)):
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handle.ctypes), platform="cpu")


def record_size(layer: Layer, arguments: Arguments) -> int:
    """The number of int32 in the records: for each real step the four gates, the old cell and the old output.

    It has room for the widest vectors (AVX-512), so that it does not depend on the CPU, and for 64 bytes more
    (see `job.record_bytes`).
    """
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = arguments.recurrent_kernel.shape
    padded = -(-hidden // 16) * 16
    return (6 * padded + 16) * directions * batch * time


def run(layer: Layer, arguments: Arguments) -> tuple[Array, ...]:
    """Runs a layer and returns outputs, h and c."""
    operands = arguments.bias, arguments.h, arguments.c
    return _call(layer, arguments, operands, _results(layer, arguments))


def run_saving(layer: Layer, arguments: Arguments, size: int) -> tuple[tuple[Array, ...], Array]:
    """Runs a layer and returns also its records, `size` int32."""
    operands = arguments.bias, arguments.h, arguments.c
    results = [*_results(layer, arguments), jax.ShapeDtypeStruct((size,), jnp.int32)]
    *results, records = _call(layer, arguments, operands, results)
    return tuple(results), records


def gradients(layer: Layer, arguments: Arguments, records: Array, of_results) -> tuple[Array, ...]:
    """Returns the gradients of inputs, kernel, recurrent_kernel, bias, h and c. See `scan.gradients`."""
    return _call(
        layer,
        arguments,
        (records, *of_results),
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments.differentiable],
        kind=BACKWARD,
    )


def run_for_prediction(layer: Layer, arguments: Arguments, *, int16: bool) -> tuple[Array, ...]:
    """As `run`. Inputs may be ids (see `layers/prediction.py`), and products may be of int16.

    Ids select rows of `kernel`, which include the bias. Behind the last one there must be
    `rows_behind(hidden)` more, since the kernel reads whole vectors.
    """
    lookup = jnp.issubdtype(arguments.inputs.dtype, jnp.integer)
    operands, results = (arguments.bias, arguments.h, arguments.c), _results(layer, arguments)
    settings = dict(kind=PREDICT, lookup=lookup, int16=int16)
    return _call(layer, arguments, operands, results, **settings)


def rows_behind(hidden: int) -> int:
    """The number of rows [4*hidden] float32 that are as long as the widest vector register (AVX-512)."""
    return -(-4 // hidden)


def attend(
    values: Array, mask: Array, key_kernel: Array, query: Array, scorer: Array
) -> tuple[Array, Array]:
    """Additive attention: context and weights; `query` is projected and `values` are finite."""
    _register()
    batch, time, features = values.shape
    results = [_float32(batch, features), _float32(batch, time)]
    context, weights = jax.ffi.ffi_call(ATTENTION_TARGET, results)(
        values, mask, key_kernel, query, scorer
    )
    return context, weights


def _call(layer: Layer, arguments: Arguments, operands, results, **settings: int):
    _register()
    inputs, mask, input_scale, kernel, recurrent_kernel, *_ = arguments
    if mask is None:
        mask = jnp.ones(inputs.shape[:2], bool)
    if input_scale is None:
        input_scale = jnp.zeros((0, 0, 0))
    input_scale = input_scale.astype(jnp.float32)
    settings = dict(int16=False, kind=FORWARD, lookup=False) | settings
    attributes = {name: np.int64(value) for name, value in settings.items()}
    return tuple(
        jax.ffi.ffi_call(TARGET, results)(
            inputs, mask, input_scale, kernel, recurrent_kernel, *operands,
            bfloat16=np.int64(layer.dtype == jnp.bfloat16), reverse=np.int64(layer.reverse), **attributes,
        )
    )  # fmt: skip


def _results(layer: Layer, arguments: Arguments) -> list[jax.ShapeDtypeStruct]:
    batch, time, *_ = arguments.inputs.shape
    directions, hidden, _ = arguments.recurrent_kernel.shape
    state = _float32(directions, batch, hidden)
    outputs = jax.ShapeDtypeStruct((batch, time, directions * hidden), layer.dtype)
    return [outputs, state, state]


def _float32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)
