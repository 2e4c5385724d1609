"""The LSTM layer as a CPU kernel: a whole layer, both directions, in one call that XLA makes.

`lax.scan` spends most of its time outside the products. Here the state stays in the first caches, the
gates are never written out before the nonlinearity, a step works on the rows that are real at it and no
others, and both cores share the rows. It is written with numba, so it needs no compiler; XLA calls
it through its foreign-function interface, without Python and without a copy.

`simd.py` has the vector instructions and the register-blocked product, `kernel.py` the layer's forward
and backward pass, `ffi.py` the entry that XLA calls and the threads.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np

TARGET = "bahdanau_jax_lstm"


@functools.cache
def obstacle() -> str | None:
    """Why the kernel cannot run in this process; None where it can."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    try:
        _register()
    except Exception as error:  # whatever an unforeseen numba, LLVM or processor raises
        return f"numba cannot compile it here: {type(error).__name__}: {error}"
    return None


@functools.cache
def _register() -> int:
    """Compiles (or loads from the user's cache) and registers the kernel; returns its lanes."""
    from bahdanau_jax.native import ffi

    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(ffi.handle.ctypes), platform="cpu")
    return int(ffi.LANES)


def layer(inputs, mask, input_scale, kernel, recurrent_kernel, bias, h, c, *, reverse: bool):
    """One layer in float32, one direction or two (the second against the first).

    Args:
      inputs: [batch, time, features].
      mask: [batch, time] bool, or None.
      input_scale: [directions, batch, features], or None.
      kernel, recurrent_kernel, bias: [directions, ...].
      h, c: [directions, batch, hidden].
      reverse: the first direction runs from the last step to the first.

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
    if save:  # for each real step: the four gates, the cell and the output before it
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
