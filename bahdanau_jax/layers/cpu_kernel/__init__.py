"""An LSTM layer as a CPU kernel: XLA runs a whole layer, both directions, in one call.

`lax.scan` spends most of its time outside the products. This kernel keeps the state in the L1 and L2
caches, writes no gates before their nonlinearity, works only on the rows that are real at a step, and
shares the rows among the cores. It is written with numba, so it needs no compiler. XLA calls it through
its foreign function interface (FFI), without Python and without copies.

- simd.py has the vector instructions, product.py the register-blocked product.
- job.py describes a call, forward.py and backward.py compute it, packing.py reorders weights.
- ffi.py has the function that XLA calls, and the threads. build.py compiles everything.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

TARGET = "bahdanau_jax_lstm"


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
def slower_than_scan() -> str | None:
    """Returns why the kernel would be slower than the scan on this CPU, or None if it is faster."""
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


@functools.cache
def _register() -> int:
    """Compiles the kernel or loads it from the cache, and registers it with XLA. Returns its LANES."""
    from bahdanau_jax.layers.cpu_kernel import ffi

    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(ffi.handle.ctypes), platform="cpu")
    return int(ffi.LANES)


def layer(inputs, mask, input_scale, kernel, recurrent_kernel, bias, h, c, *, reverse: bool):
    """Runs one layer in float32, in one direction or in two opposite directions.

    Args:
      inputs: [batch, time, features].
      mask: [batch, time] bool, or None.
      input_scale: [directions, batch, features], or None.
      kernel, recurrent_kernel, bias: [directions, ...].
      h, c: [directions, batch, hidden].
      reverse: run the first direction from the last step to the first.

    Returns:
      outputs [batch, time, directions*hidden], (h, c).
    """
    _register()
    if mask is None:
        mask = jnp.ones(inputs.shape[:2], bool)
    if input_scale is None:
        input_scale = jnp.zeros((0, 0, inputs.shape[2]))
    parameters = (input_scale, kernel, recurrent_kernel, bias, h, c)
    results = _lstm(
        inputs.astype(jnp.float32), mask, *(x.astype(jnp.float32) for x in parameters), reverse
    )
    outputs, h, c = results  # pyright: ignore[reportGeneralTypeIssues]
    return outputs, (h, c)


def _float32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _forward(inputs, mask, scale, kernel, recurrent_kernel, bias, h, c, reverse, *, save: bool):
    batch, time, _ = inputs.shape
    directions, hidden, _ = recurrent_kernel.shape
    results = [
        _float32(batch, time, directions * hidden),
        _float32(directions, batch, hidden),
        _float32(directions, batch, hidden),
    ]
    if save:  # for each real step: the four gates, the old cell and the old output
        lanes = _register()
        padded = -(-hidden // lanes) * lanes
        results.append(_float32(directions * batch * time, 6 * padded))
    call = jax.ffi.ffi_call(TARGET, results, vmap_method="sequential")
    return call(
        inputs, mask, scale, kernel, recurrent_kernel, bias, h, c,
        backward=np.int64(0), reverse=np.int64(reverse),
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(8,))
def _lstm(inputs, mask, scale, kernel, recurrent_kernel, bias, h, c, reverse):
    return tuple(
        _forward(inputs, mask, scale, kernel, recurrent_kernel, bias, h, c, reverse, save=False)
    )


def _lstm_forward(inputs, mask, scale, kernel, recurrent_kernel, bias, h, c, reverse):
    *results, records = tuple(_forward(
        inputs, mask, scale, kernel, recurrent_kernel, bias, h, c, reverse, save=True
    ))  # fmt: skip
    return tuple(results), (inputs, mask, scale, kernel, recurrent_kernel, records)


def _lstm_backward(reverse, saved, gradients):
    inputs, mask, scale, kernel, recurrent_kernel, records = saved
    directions, hidden, gates = recurrent_kernel.shape
    state = _float32(directions, inputs.shape[0], hidden)
    results = [
        _float32(*inputs.shape),
        _float32(*kernel.shape),
        _float32(*recurrent_kernel.shape),
        _float32(directions, gates),
        state,
        state,
    ]
    call = jax.ffi.ffi_call(TARGET, results, vmap_method="sequential")
    gradients = tuple(call(
        inputs, mask, scale, kernel, recurrent_kernel, records, *gradients,
        backward=np.int64(1), reverse=np.int64(reverse),
    ))  # fmt: skip
    no_mask, no_scale = np.zeros(mask.shape, jax.dtypes.float0), jnp.zeros_like(scale)
    return gradients[0], no_mask, no_scale, *gradients[1:]


_lstm.defvjp(_lstm_forward, _lstm_backward)
