"""An LSTM layer as one kernel for each pass, for NVIDIA GPUs, in float32 and bfloat16: `fused`.

The kernel runs the recurrence. XLA computes what can be computed for all steps at once: before it the
projections of the inputs, after it the gradients of the weights and inputs. All products have the precision
that JAX gives products of the dtype on a GPU: in float32 they are TF32, on tensor cores (tensor_cores.cu),
unless `jax.default_matmul_precision("highest")` asks for more (multiply_add.cu).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bahdanau_jax.layers import scan, self_check
from bahdanau_jax.layers.dtypes import takes_tf32
from bahdanau_jax.layers.gpu_kernel import compile
from bahdanau_jax.layers.layer import Arguments, Layer

LARGEST = 128  # hidden units
LARGEST_TF32 = 96  # of more, the weights would not fit in the registers
STATIC = 24 * 1024  # at most so many bytes of a block's shared memory are declared in the kernels
AHEAD = 4  # as in common.cuh
BLOCKS = 128  # that run at the same time on a large GPU
PRODUCTS = (self_check.FLOAT32, self_check.TF32, self_check.BFLOAT16)
DTYPES = (np.dtype(np.float32), np.dtype(jnp.bfloat16))


class Call(NamedTuple):
    """What the kernel takes that gets a gradient. `hidden` is padded to a multiple of 16, with zeros."""

    projected: tuple[Float[Array, "batch time 4*hidden"], ...]  # of each direction
    recurrent_kernel: Float[Array, "directions hidden 4*hidden"]
    h: Float[Array, "directions batch hidden"]
    c: Float[Array, "directions batch hidden"]


@functools.cache
def obstacle() -> str | None:
    """Returns why the kernel cannot run in this process, or None."""
    try:
        compile.library()
    except OSError as error:
        return f"the kernel cannot be compiled ({error})"
    return None


@functools.cache
def declined() -> str | None:
    """Returns why "auto" does not take the kernel, or None: it cannot run, or it differs from the scan."""
    import bahdanau_jax.layers.gpu_kernel as module

    return obstacle() or self_check.on_a_gpu(module, "the fused kernel")


def record_size(layer: Layer, arguments: Arguments) -> int:
    """The number of int32 in the records."""
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = arguments.recurrent_kernel.shape
    return directions * 6 * batch * time * _padded(hidden) * layer.dtype.itemsize // 4


def run(layer: Layer, arguments: Arguments) -> scan.Results:
    """Runs a layer of at most `LARGEST` hidden units, of one of `DTYPES`. See `scan.run`."""
    results, _ = _forward(layer, arguments, 0)
    return results


def run_saving(
    layer: Layer, arguments: Arguments, size: int
) -> tuple[scan.Results, Int[Array, "size"]]:
    """Runs a layer and returns its records too, `size` int32."""
    results, records = _forward(layer, arguments, size)
    assert records is not None
    return results, records


def _forward(layer: Layer, arguments: Arguments, size: int):
    call = _prepare(arguments, *arguments.differentiable)
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = call.recurrent_kernel.shape
    state = jax.ShapeDtypeStruct((directions, batch, hidden), jnp.float32)
    results = [jax.ShapeDtypeStruct((batch, time, directions * hidden), layer.dtype), state, state]
    if size:
        results.append(jax.ShapeDtypeStruct((size,), jnp.int32))
    operands = (
        *_rows_and_steps(layer, arguments),
        *call.projected,
        _float32(call.recurrent_kernel),
        call.h,
        call.c,
    )
    y, h, c, *records = _run_kernel("lstm_forward", layer, call, bool(size), results, operands)
    real = arguments.h.shape[-1]
    if hidden != real:
        y = y.reshape(batch, time, directions, hidden)[..., :real].reshape(batch, time, -1)
    return (y, h[..., :real], c[..., :real]), records[0] if size else None


def gradients(
    layer: Layer, arguments: Arguments, records: Int[Array, "size"], of_results: scan.Results
) -> tuple[Array, ...]:
    """Returns the gradients of inputs, kernel, recurrent_kernel, bias, h and c. See `scan.gradients`."""
    prepare = functools.partial(_prepare, arguments)
    call, pull = jax.vjp(prepare, *arguments.differentiable)
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = call.recurrent_kernel.shape
    real = arguments.h.shape[-1]
    of_y, *of_states = of_results
    if hidden != real:
        pad = ((0, 0), (0, 0), (0, 0), (0, hidden - real))
        of_y = jnp.pad(of_y.reshape(batch, time, directions, real), pad)
        of_y = of_y.reshape(batch, time, -1)
        of_states = [jnp.pad(x, pad[1:]) for x in of_states]
    projected = jax.ShapeDtypeStruct((batch, time, 4 * hidden), layer.dtype)
    state = jax.ShapeDtypeStruct((directions, batch, hidden), jnp.float32)
    operands = (
        *_rows_and_steps(layer, arguments),
        _float32(call.recurrent_kernel),
        records,
        of_y.astype(layer.dtype),
        *of_states,
    )
    results = [*[projected] * directions, state, state]
    found = _run_kernel("lstm_backward", layer, call, True, results, operands)
    *of_projected, of_h, of_c = found
    h = records[: record_size(layer, arguments)].reshape(directions, 6, -1)[:, 0]
    h = jax.lax.bitcast_convert_type(h, layer.dtype).reshape(directions, batch * time, hidden)
    of_recurrent = [
        jnp.matmul(h[d].T, gates.reshape(-1, 4 * hidden)) for d, gates in enumerate(of_projected)
    ]
    of_recurrent = jnp.stack(of_recurrent)
    return pull(Call(tuple(of_projected), of_recurrent, of_h, of_c))


def _padded(hidden: int) -> int:
    return -(-hidden // 16) * 16


def _float32(x: Array) -> Array:
    return x.astype(jnp.float32)


def _prepare(arguments: Arguments, inputs, kernel, recurrent_kernel, bias, h, c) -> Call:
    """Projects the inputs of all steps, and pads the hidden units."""
    directions, hidden = recurrent_kernel.shape[:2]
    missing = _padded(hidden) - hidden
    if missing:  # a unit without weights stays 0

        def pad_gates(x):
            gates = x.reshape(*x.shape[:-1], 4, hidden)
            gates = jnp.pad(gates, [(0, 0)] * (gates.ndim - 1) + [(0, missing)])
            return gates.reshape(*x.shape[:-1], -1)

        kernel, recurrent_kernel, bias = map(pad_gates, (kernel, recurrent_kernel, bias))
        recurrent_kernel = jnp.pad(recurrent_kernel, ((0, 0), (0, missing), (0, 0)))
        h, c = (jnp.pad(x, ((0, 0), (0, 0), (0, missing))) for x in (h, c))
    if arguments.mask is not None:
        # Otherwise a NaN or infinity at a masked step gets into the weights' gradient: 0 * inf is NaN.
        inputs = jnp.where(arguments.mask[:, :, None], inputs, 0)
    projected = []
    for d in range(directions):
        scale = arguments.input_scale
        scaled = inputs if scale is None else inputs * scale[d][:, None, :]
        product = jnp.matmul(scaled, kernel[d], preferred_element_type=bias.dtype)
        projected.append((product + bias[d][None, None]).astype(inputs.dtype))
    return Call(tuple(projected), recurrent_kernel, h, c)


def _rows_and_steps(layer: Layer, arguments: Arguments) -> tuple[Array, Array, Array]:
    """The kernel's first operands: sizes, the order of the rows, and the mask."""
    (batch, time, _), mask = arguments.inputs.shape, arguments.mask
    bits = sum(layer.backwards(d) << d for d in range(arguments.h.shape[0]))
    sizes = jnp.array([batch, time, bits], jnp.int32)
    if mask is None:
        return sizes, jnp.arange(batch, dtype=jnp.int32), jnp.ones((batch, time), bool)
    return sizes, jnp.argsort(-mask.sum(axis=1, dtype=jnp.int32)).astype(jnp.int32), mask


def _run_kernel(name: str, layer: Layer, call: Call, saving: bool, results, operands) -> list[Any]:
    directions, batch, hidden = call.h.shape
    on_tensor_cores = _on_tensor_cores(layer.dtype, hidden)
    # Few rows in a block finish sooner, as long as all blocks run at once.
    rows = 8 if on_tensor_cores and -(-batch // 4) * directions > BLOCKS else 4
    macros = dict(
        HIDDEN=hidden,
        ROWS=rows,
        DIRECTIONS=directions,
        BFLOAT16=int(layer.dtype != np.float32),
        SAVING=int(saving),
        IN_REGISTERS=_in_registers(layer.dtype, hidden),
    )
    return compile.call(
        "tensor_cores.cu" if on_tensor_cores else "multiply_add.cu",
        name,
        macros,
        results,
        operands,
        grid=(-(-batch // rows), directions),
        threads=4 * hidden,
        shared_bytes=_shared_bytes(name, layer.dtype, hidden, rows, call.projected[0].shape[1]),
    )


def _on_tensor_cores(dtype: np.dtype, hidden: int) -> bool:
    return dtype != np.float32 or (hidden <= LARGEST_TF32 and takes_tf32())


def _in_registers(dtype: np.dtype, hidden: int) -> int:
    """How many of its hidden/4 vectors of weights a thread keeps in registers."""
    return hidden // 4 if hidden <= 96 or _on_tensor_cores(dtype, hidden) else 16


def _shared_bytes(name: str, dtype: np.dtype, hidden: int, rows: int, time: int) -> int:
    """The dynamic shared memory: weights, what the next steps read, and the bits of the mask."""
    gap = 16 if _on_tensor_cores(dtype, hidden) else 32
    of_a_step = (4 if name == "lstm_forward" else 6) * hidden * dtype.itemsize + gap
    weights = (hidden // 4 - _in_registers(dtype, hidden)) * 4 * hidden * 16
    return weights + rows * (AHEAD * of_a_step + -(-time // 32) * 4)


def size_obstacle(dtype: np.dtype, hidden: int, time: int) -> str | None:
    """Returns why the kernel does not take a layer of this size on the GPU at hand, or None."""
    if hidden > LARGEST:
        return f"hidden_features is {hidden}, and fused takes at most {LARGEST}"
    hidden = _padded(hidden)
    rows = 8 if _on_tensor_cores(dtype, hidden) else 4
    needed = _shared_bytes("lstm_backward", dtype, hidden, rows, time) + STATIC
    if needed > (limit := _shared_limit()):
        return (
            f"fused needs {needed // 1024} KB of shared memory for {time} steps of {hidden} units, and a block"
            f" may have {limit // 1024} KB on this GPU"
        )
    return None


@functools.cache
def _shared_limit() -> int:
    """Bytes of shared memory that a block may have (CUDA C++ Programming Guide, "Compute Capabilities")."""
    if jax.default_backend() != "gpu":  # lowering for another machine
        return 227 * 1024
    capability = jax.local_devices()[0].compute_capability
    large = {"8.0": 163, "8.7": 163, "9.0": 227, "10.0": 227, "10.3": 227}
    return large.get(capability, 99) * 1024
