"""How an LSTM layer is run: by a scan or by the CPU kernel, whole or in chunks that are computed again.

Both implementations give the same results to the rounding of their dtype. `scan` (`scan.py`) is plain JAX, runs
anywhere and is the reference; `native` (`bahdanau_jax/native/`) is a kernel for CPUs that runs the whole
layer and does no work on padding. `lstm_implementation()` says which one is taken and why.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array

from bahdanau_jax import native
from bahdanau_jax.scan import scan_layer

IMPLEMENTATIONS = ("auto", "scan", "native")


def lstm_implementation(
    implementation: str = "auto", *, dtype: DTypeLike = jnp.float32
) -> tuple[str, str]:
    """Which implementation `lstm()` takes, and why.

    Args:
      implementation: "auto", "scan" or "native".
      dtype: of the computation.

    Raises:
      ValueError: for an unknown name, or "native" where it cannot run: nothing falls back silently.

    Example:
      >>> lstm_implementation("scan")
      ('scan', 'asked for')
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation is {implementation!r}; expected one of {IMPLEMENTATIONS}")
    if implementation == "scan":
        return "scan", "asked for"
    if jax.default_backend() != "cpu":
        obstacle = f"the platform is {jax.default_backend()}, and native is for CPUs"
    elif jax.device_count() > 1 and "data" not in jax.sharding.get_abstract_mesh().axis_names:
        obstacle = (
            f"there are {jax.device_count()} devices and no mesh with an axis 'data' around"
            " (jax.set_mesh), along which to split a batch"
        )
    else:
        obstacle = kernel_obstacle(implementation, dtype)
    if obstacle is None:
        return "native", "asked for" if implementation == "native" else "a CPU, float32"
    if implementation == "native":
        raise ValueError(f"implementation is 'native', which cannot run here: {obstacle}")
    return "scan", obstacle


def kernel_obstacle(implementation: str, dtype: DTypeLike) -> str | None:
    """Why `native` would not be taken on a CPU; None where it would. It asks JAX for no devices."""
    if implementation == "scan":
        return "scan is asked for"
    if jnp.dtype(dtype) != jnp.float32:
        return f"the dtype is {jnp.dtype(dtype)}, and native computes in float32"
    return native.obstacle()


def run_layer(
    inputs,  # [batch, time, features]
    kernel,  # [directions, features, 4*hidden]
    recurrent_kernel,  # [directions, hidden, 4*hidden]
    bias,  # [directions, 4*hidden]
    mask,  # [batch, time] bool, or None
    initial_state,  # (h, c), each [directions, batch, hidden], or None
    input_scale,  # [directions, batch, features], or None
    *,
    reverse: bool,
    dtype: DTypeLike | None,
    implementation: str,
    chunk_size: int,
) -> tuple[Array, tuple[Array, Array]]:
    """One direction, or two over the same inputs, the second one against the first; see `lstm`.

    Returns outputs [batch, time, directions*hidden] and (h, c), each [directions, batch, hidden].
    """
    directions, hidden = recurrent_kernel.shape[:2]
    dtype = jnp.dtype(dtype or inputs.dtype)
    carry_dtype = jnp.promote_types(inputs.dtype, jnp.float32)
    if initial_state is None:
        zeros = jnp.zeros((directions, inputs.shape[0], hidden), carry_dtype)
        initial_state = zeros, zeros
    h, c = (x.astype(carry_dtype) for x in initial_state)
    if input_scale is not None:
        input_scale = jax.lax.stop_gradient(input_scale)
    use_native = lstm_implementation(implementation, dtype=dtype)[0] == "native"
    if mask is not None and not use_native:
        # Also keeps a NaN or infinity at a masked step out of the weights' gradient (0 * inf is NaN).
        inputs = jnp.where(mask[:, :, None], inputs, 0)

    def run(inputs, mask, h, c, only=slice(None)):
        """The directions `only` over all of these inputs."""
        weights = kernel[only], recurrent_kernel[only], bias[only]
        scale = None if input_scale is None else input_scale[only]
        backwards = [reverse, not reverse][:directions][only]
        if use_native:
            layer = partial(native.layer, reverse=backwards[0])
            return _over_devices(layer)(inputs, mask, scale, *weights, h, c)
        layer = partial(_scan_directions, backwards=backwards, dtype=dtype)
        if inputs.shape[0] % _data_devices():
            return layer(inputs, mask, scale, *weights, h, c)
        return _over_devices(layer)(inputs, mask, scale, *weights, h, c)

    if not 0 < chunk_size < inputs.shape[1]:
        return run(inputs, mask, h, c)
    results = []
    for d in range(directions):  # each walks the chunks from its own end

        def run_one(inputs, mask, h, c, only=slice(d, d + 1)):
            return run(inputs, mask, h, c, only)

        one = slice(d, d + 1)
        results.append(
            _in_chunks(run_one, inputs, mask, h[one], c[one], chunk_size, reverse != (d == 1))
        )
    outputs, states = zip(*results, strict=True)
    h, c = (jnp.concatenate(x) for x in zip(*states, strict=True))
    return jnp.concatenate(outputs, axis=-1), (h, c)


def _scan_directions(
    inputs, mask, scale, kernel, recurrent_kernel, bias, h, c, *, backwards, dtype
):
    """`scan_layer` in each direction; shapes as `run_layer`'s."""
    results = [
        scan_layer(
            inputs if scale is None else inputs * scale[d][:, None, :],
            kernel[d],
            recurrent_kernel[d],
            bias[d],
            mask,
            (h[d], c[d]),
            reverse=backward,
            dtype=dtype,
        )
        for d, backward in enumerate(backwards)
    ]
    outputs, states = zip(*results, strict=True)
    h, c = (jnp.stack(x) for x in zip(*states, strict=True))
    return jnp.concatenate(outputs, axis=-1), (h, c)


def _data_devices() -> int:
    """Devices along the axis "data" of the mesh around."""
    return jax.sharding.get_abstract_mesh().shape.get("data", 1)


def _over_devices(layer):
    """A layer's call, a share of the batch on each device.

    XLA by itself cannot split the kernel, and would gather the whole batch on every device for the sums over
    all steps and rows that the scan's gradient takes.
    """
    if _data_devices() == 1:
        return layer
    rows, states, whole = PartitionSpec("data"), PartitionSpec(None, "data"), PartitionSpec()
    # inputs, mask, scale, kernel, recurrent_kernel, bias, h, c
    ins = (rows, rows, states, whole, whole, whole, states, states)
    return jax.shard_map(layer, in_specs=ins, out_specs=(rows, (states, states)), check_vma=False)


def _in_chunks(run, inputs, mask, h, c, chunk_size: int, reverse: bool):
    """Runs `run` over chunks of time, of which only inputs and first states are kept for the gradient."""
    batch, time, features = inputs.shape
    chunks = -(-time // chunk_size)
    if mask is None:
        mask = jnp.ones((batch, time), bool)
    behind = chunks * chunk_size - time  # steps added at the end are masked, so they do nothing
    inputs = jnp.pad(inputs, ((0, 0), (0, behind), (0, 0)))
    mask = jnp.pad(mask, ((0, 0), (0, behind)))
    xs = (
        jnp.moveaxis(inputs.reshape(batch, chunks, chunk_size, features), 1, 0),
        jnp.moveaxis(mask.reshape(batch, chunks, chunk_size), 1, 0),
    )

    @jax.checkpoint
    def body(state, x):
        outputs, state = run(*x, *state)
        return state, outputs

    state, outputs = jax.lax.scan(body, (h, c), xs, reverse=reverse)
    # [chunks, batch, chunk_size, hidden]
    outputs = jnp.moveaxis(outputs, 0, 1).reshape(batch, chunks * chunk_size, -1)
    return outputs[:, :time], state
