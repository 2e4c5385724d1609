"""An LSTM layer by cuDNN, through `jax.experimental.rnn`. For NVIDIA GPUs, in float32.

cuDNN knows no mask, only the length of each row. So the real steps of a row move to the front before the call,
and back to their places after it. cuDNN takes no empty row either: such a row runs one step, which is undone.

As elsewhere in JAX, products on a GPU are TF32 unless `jax.default_matmul_precision("highest")` asks for more.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import rnn
from jaxtyping import Array, Float, Int

from bahdanau_jax.layers import scan, self_check
from bahdanau_jax.layers.dtypes import takes_tf32
from bahdanau_jax.layers.layer import Arguments, Layer

PRODUCTS = (self_check.FLOAT32, self_check.TF32)


class Call(NamedTuple):
    """The arrays that cuDNN takes.

    `weights` are packed as cuDNN wants them: for each direction the input and the recurrent weights, each
    [4*hidden, ...] with the gates in our order, then for each direction two biases.
    """

    x: Float[Array, "batch time features"]  # real steps in front
    h: Float[Array, "directions batch hidden"]
    c: Float[Array, "directions batch hidden"]
    weights: Float[Array, "weights"]


@functools.cache
def obstacle() -> str | None:
    """Returns why cuDNN cannot run in this process, or None. Asks the library itself."""
    try:
        _reserve_size(rnn_sizes(1, 1, 1), 1, 1)
    except Exception as error:  # jaxlib raises what its plugin and the library raise
        why = " ".join(str(error).split())[:150] or type(error).__name__
        return f"cuDNN cannot be loaded ({why})"
    return None


@functools.cache
def declined() -> str | None:
    """Returns why "auto" does not take cuDNN, or None: it cannot run, or its results differ from the scan's."""
    import bahdanau_jax.layers.cudnn as module

    return obstacle() or self_check.on_a_gpu(module, "cuDNN")


def rnn_sizes(features: int, hidden: int, directions: int) -> dict[str, Any]:
    """The sizes that `jax.experimental.rnn` takes."""
    return dict(
        input_size=features,
        hidden_size=hidden,
        num_layers=1,
        dropout=0.0,
        bidirectional=directions == 2,
    )


def record_size(layer: Layer, arguments: Arguments) -> int:
    """The number of int32 in the records: cuDNN's outputs and its reserve space."""
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = arguments.recurrent_kernel.shape
    reserve = _reserve_size(_sizes_of(arguments), batch, time)
    return batch * time * directions * hidden + reserve


def run(layer: Layer, arguments: Arguments) -> scan.Results:
    """Runs a float32 layer. See `scan.run`."""
    call = _prepare(layer, arguments)
    results, _ = _forward(call, _lengths(arguments), _sizes_of(arguments))
    return _finish(layer, arguments, *results)


def run_saving(
    layer: Layer, arguments: Arguments, size: int
) -> tuple[scan.Results, Int[Array, "size"]]:
    """Runs a layer and returns its records too, `size` int32."""
    call = _prepare(layer, arguments)
    results, reserve = _forward(call, _lengths(arguments), _sizes_of(arguments))
    records = jnp.concatenate([results[0].reshape(-1), reserve.reshape(-1)])
    records = jax.lax.bitcast_convert_type(records, jnp.int32)
    records = jnp.pad(records, (0, size - records.size))
    return _finish(layer, arguments, *results), records


def gradients(
    layer: Layer, arguments: Arguments, records: Int[Array, "size"], of_results: scan.Results
) -> tuple[Array, ...]:
    """Returns the gradients of inputs, kernel, recurrent_kernel, bias, h and c. See `scan.gradients`."""
    batch, time, _ = arguments.inputs.shape
    directions, hidden, _ = arguments.recurrent_kernel.shape
    sizes, lengths = _sizes_of(arguments), _lengths(arguments)
    # cuDNN writes into the reserve space, which XLA takes for an input that stays. A second gradient of the
    # same results needs a copy of its own. So the copy depends on the gradient: on a 0 that XLA cannot foresee.
    zero = jnp.isnan(of_results[0].reshape(-1)[0]).astype(jnp.int32)
    records = jax.lax.bitcast_convert_type(records ^ zero, jnp.float32)
    y = records[: batch * time * directions * hidden].reshape(batch, time, directions * hidden)
    reserve = records[y.size : y.size + _reserve_size(sizes, batch, time)]

    def prepare(inputs, kernel, recurrent_kernel, bias, h, c):
        scale = arguments.input_scale
        given = Arguments(inputs, arguments.mask, scale, kernel, recurrent_kernel, bias, h, c)
        return _prepare(layer, given)

    def finish(y, last_h, last_c, h, c):
        return _finish(layer, arguments._replace(h=h, c=c), y, last_h, last_c)

    call, pull_call = jax.vjp(prepare, *arguments.differentiable)
    # `finish` only moves and selects: the values of the last states do not matter to its gradient.
    _, pull_results = jax.vjp(finish, y, arguments.h, arguments.c, arguments.h, arguments.c)
    *of_call_results, d_h, d_c = pull_results(of_results)
    of_call = _backward(call, lengths, y, reserve, tuple(of_call_results), sizes)
    *of_others, of_h, of_c = pull_call(of_call)
    return *of_others, of_h + d_h, of_c + d_c


# --- the calls of cuDNN, which tests replace by jax.experimental.rnn.lstm_ref -------------------------------


def _forward(call: Call, lengths, sizes) -> tuple[tuple[Array, Array, Array], Array]:
    """cuDNN's outputs, last h and last c, and its reserve space."""
    results, residuals = rnn.lstm_fwd(*call, lengths, **sizes, precision=_precision())
    batch, time, _ = call.x.shape
    return results, residuals[-1][: _reserve_size(sizes, batch, time)]


def _backward(call: Call, lengths, y, reserve, of_results, sizes) -> Call:
    """The gradients of `call`."""
    batch, time, _ = call.x.shape
    # JAX allocates a float32 for each byte, and tells cuDNN the length of the array as the number of bytes.
    reserve = jnp.pad(reserve, (0, _reserve_bytes(sizes, batch, time) - reserve.size))
    residuals = (*call, lengths, y, reserve)
    found = rnn.lstm_bwd(**sizes, precision=_precision(), residuals=residuals, gradients=of_results)
    return Call(*found[:4])


def _reserve_size(sizes: dict[str, Any], batch: int, time: int) -> int:
    """The number of float32 that hold the reserve space."""
    return -(-_reserve_bytes(sizes, batch, time) // 4)


def _reserve_bytes(sizes: dict[str, Any], batch: int, time: int) -> int:
    """The size of the reserve space. Asks cuDNN, and fails where there is none.

    Raises:
      ValueError: it has 2 GiB or more, which JAX's interface to cuDNN cannot count.
    """
    ask: Any = rnn.gpu_rnn.compute_rnn_workspace_reserve_space_sizes  # pyright: ignore
    features, hidden, layers, dropout, bidirectional = sizes.values()
    tf32 = _precision() == jax.lax.Precision.HIGH
    size = ask(features, hidden, layers, batch, time, dropout, bidirectional, tf32)[1]
    if size < 0:
        raise ValueError(
            f"cuDNN's records of an LSTM of {hidden} units over {batch} x {time} steps take 2 GiB or more, "
            "which jax.experimental.rnn cannot pass; expected a smaller batch"
        )
    return size


def _precision() -> jax.lax.Precision:
    return jax.lax.Precision.HIGH if takes_tf32() else jax.lax.Precision.HIGHEST


# --- what surrounds them --------------------------------------------------------------------------------


def _sizes_of(arguments: Arguments) -> dict[str, Any]:
    directions, hidden, _ = arguments.recurrent_kernel.shape
    copies = 1 if arguments.input_scale is None else directions
    return rnn_sizes(copies * arguments.inputs.shape[2], hidden, directions)


def _lengths(arguments: Arguments) -> Int[Array, "batch"]:
    batch, time, _ = arguments.inputs.shape
    if arguments.mask is None:
        return jnp.full(batch, time, jnp.int32)
    return jnp.maximum(arguments.mask.sum(axis=1, dtype=jnp.int32), 1)


def _order(layer: Layer, arguments: Arguments) -> Int[Array, "batch time"]:
    """Where each step of the call comes from: real steps first, last one first if the layer is reversed."""
    batch, time, _ = arguments.inputs.shape
    steps = jnp.arange(time, dtype=jnp.int32)
    steps = jnp.broadcast_to(-steps if layer.reverse else steps, (batch, time))
    if arguments.mask is not None:
        steps = jnp.where(arguments.mask, steps, time)
    return jnp.argsort(steps, axis=1)


def _move(x: Array, order: Int[Array, "batch time"]) -> Array:
    return jnp.take_along_axis(x, order[:, :, None], axis=1)


def _prepare(layer: Layer, arguments: Arguments) -> Call:
    """The arrays of the call."""
    inputs, mask, scale, kernel, recurrent_kernel, bias, h, c, *_ = arguments
    directions, features, _ = kernel.shape
    if mask is not None:
        # Otherwise a NaN or infinity at a masked step gets into the weights' gradient: 0 * inf is NaN.
        inputs = jnp.where(mask[:, :, None], inputs, 0)
    if mask is not None or layer.reverse:
        inputs = _move(inputs, _order(layer, arguments))
    if scale is not None:
        # Each direction reads a copy of the inputs with its own scale; its weights for the other copies are 0.
        inputs = jnp.concatenate([inputs * one[:, None, :] for one in scale], axis=-1)
        kernel = jnp.stack(
            [
                jnp.pad(one, ((d * features, (directions - 1 - d) * features), (0, 0)))
                for d, one in enumerate(kernel)
            ]
        )
    parts = []
    for of_input, recurrent in zip(kernel, recurrent_kernel, strict=True):
        parts += [of_input.T.reshape(-1), recurrent.T.reshape(-1)]
    for one in bias:
        parts += [one, jnp.zeros_like(one)]
    return Call(inputs, h, c, jnp.concatenate(parts))


def _finish(layer: Layer, arguments: Arguments, y, last_h, last_c) -> scan.Results:
    """The results of the layer: steps in their places, 0 at masked ones, empty rows with their first state."""
    mask = arguments.mask
    if mask is not None or layer.reverse:
        y = _move(y, jnp.argsort(_order(layer, arguments), axis=1))
    if mask is None:
        return y, last_h, last_c
    some = mask.any(axis=1)[None, :, None]
    y = jnp.where(mask[:, :, None], y, 0)
    return y, jnp.where(some, last_h, arguments.h), jnp.where(some, last_c, arguments.c)
