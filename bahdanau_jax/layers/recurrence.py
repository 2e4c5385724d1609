"""Runs an LSTM layer: chooses the implementations, splits it over devices and, if asked, over time.

The implementations are equal up to rounding. `scan` (scan.py) is plain JAX, runs on any device and is the
reference. The others compute a whole layer at once and skip padding: `native` (cpu_kernel/) on a CPU, `fused`
(gpu_kernel/) and `cudnn` (cudnn.py) on NVIDIA GPUs. Which of them computes a layer is decided when a program
is lowered (primitives.py).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array

from bahdanau_jax.layers import cpu_kernel, gpu_kernel, implementations, primitives
from bahdanau_jax.layers.devices import in_auto_mode, over_devices, splits_the_batch, vary_alike
from bahdanau_jax.layers.layer import Arguments, Layer
from bahdanau_jax.layers.masks import resets_of

IMPLEMENTATIONS = ("auto", "scan", "native", "fused", "cudnn")
_PLATFORMS = {
    "native": "cpu",
    "fused": "cuda",
    "cudnn": "cuda",
}  # the first that can run a layer is taken


def lstm_implementation(
    implementation: str = "auto",
    *,
    dtype: DTypeLike = jnp.float32,
    hidden_features: int = 1,
    length: int = 1,
) -> tuple[str, str]:
    """Returns the implementation that `lstm()` uses on the default devices, and the reason.

    Args:
      implementation: "auto", "scan", "native" (the CPU kernel), "fused" or "cudnn" (NVIDIA GPUs).
      dtype: the dtype of the matrix products.
      hidden_features: the number of hidden units. "fused" has a limit.
      length: the number of steps. "fused" keeps their mask on the chip.

    Returns:
      "scan", "native", "fused" or "cudnn", and why.

    Raises:
      ValueError: the name is unknown, or the implementation that is asked for cannot run here. It never
        falls back silently.

    Example:
      >>> lstm_implementation("scan")
      ('scan', 'asked for')
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation is {implementation!r}; expected one of {IMPLEMENTATIONS}")
    if implementation == "scan":
        return "scan", "asked for"
    platform = _default_platform()
    if implementation == "auto":
        names = [name for name, runs_on in _PLATFORMS.items() if runs_on == platform]
        if not names:
            return "scan", f"the platform is {platform}"
    elif _PLATFORMS[implementation] == platform:
        names = [implementation]
    else:
        runs_on = _PLATFORMS[implementation]
        raise _cannot_run(
            implementation, f"the platform is {platform}, and {implementation} is for {runs_on}"
        )
    obstacles = []
    for name in names:
        obstacle = _devices_obstacle() or _obstacle(
            name, implementation, dtype, hidden_features, length
        )
        if obstacle is None:
            where = "a CPU" if platform == "cpu" else "an NVIDIA GPU"
            dtype = jax.dtypes.canonicalize_dtype(dtype)
            return name, "asked for" if implementation == name else f"{where}, {dtype}"
        obstacles.append(obstacle)
    if implementation != "auto":
        raise _cannot_run(implementation, obstacles[0])
    return "scan", "; ".join(dict.fromkeys(obstacles))


def _cannot_run(implementation: str, why: str) -> ValueError:
    return ValueError(f"implementation is {implementation!r}, which cannot run here: {why}")


def kernel_obstacle(implementation: str, dtype: DTypeLike) -> str | None:
    """Returns why a CPU would not use `native`, or None if it would. Does not initialize JAX's devices."""
    if implementation not in ("auto", "native"):
        return f"{implementation} is asked for"
    return _obstacle("native", implementation, dtype)


def _default_platform() -> str:
    """The platform of the default devices, as JAX names it in lowering: "cpu", "cuda", "rocm" or "tpu"."""
    platform = jax.default_backend()
    if platform != "gpu":
        return platform
    version = jax.devices()[0].client.platform_version
    return "rocm" if "rocm" in version.lower() else "cuda"


def _devices_obstacle() -> str | None:
    if jax.device_count() > 1 and not splits_the_batch():
        return (
            f"there are {jax.device_count()} devices, and no mesh (jax.set_mesh) with an axis 'data'"
            " along which to split the batch"
        )
    return None


def _obstacle(
    name: str, implementation: str, dtype: DTypeLike, hidden_features: int = 1, length: int = 1
) -> str | None:
    """Returns why `name` would not run on its platform, asked for as `implementation`."""
    module = implementations.MODULES[name]
    return _layer_obstacle(name, dtype, hidden_features, length) or (
        module.declined() if implementation == "auto" else module.obstacle()
    )


def _layer_obstacle(name: str, dtype: DTypeLike, hidden_features: int, length: int) -> str | None:
    """Returns why `name` does not compute a layer of this dtype and size, or None."""
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if name == "native":
        return cpu_kernel.dtype_obstacle(dtype)
    takes = gpu_kernel.DTYPES if name == "fused" else (jnp.dtype(jnp.float32),)
    if dtype not in takes:
        return f"the dtype is {dtype}, and {name} computes in {' and '.join(map(str, takes))}"
    return gpu_kernel.size_obstacle(dtype, hidden_features, length) if name == "fused" else None


def _make_layer(implementation: str, size: dict[str, Any], *, reverse: bool) -> Layer:
    """Decides which implementations may compute a layer, each on its platform.

    What holds of the default devices is checked now. The rest is checked if the program is lowered for
    another platform.

    Args:
      implementation, reverse: those of `run_layer`.
      size: dtype, hidden_features and length.
    """
    layer = Layer(reverse, size["dtype"])
    if implementation == "scan":
        return layer
    if implementation != "auto" and implementation in IMPLEMENTATIONS:
        platform = _PLATFORMS[implementation]
        if platform == _default_platform() or _layer_obstacle(implementation, **size):
            lstm_implementation(implementation, **size)  # raises if it cannot run
        return layer._replace(platforms=((platform, implementation),), others=None)
    chosen, _ = lstm_implementation(implementation, **size)
    platforms = tuple(
        (platform, name)
        for name, platform in _PLATFORMS.items()
        if _layer_obstacle(name, **size) is None
        and (name == chosen or platform != _default_platform())
    )
    return layer._replace(platforms=platforms)


def _make_scan(implementation: str, dtype, options: list[str], *, reverse: bool) -> Layer:
    """A layer with options that only the scan computes, and that every other implementation refuses."""
    if implementation not in ("auto", "scan"):
        if implementation in IMPLEMENTATIONS:
            lacks = f"it takes no {' and no '.join(options)}, which only 'scan' does"
            raise ValueError(
                f"implementation is {implementation!r}, which cannot run here: {lacks}"
            )
        lstm_implementation(implementation)  # raises
    return Layer(reverse, dtype)


def run_layer(
    inputs,  # [batch, time, features]
    kernel,  # [directions, features, 4*hidden]
    recurrent_kernel,  # [directions, hidden, 4*hidden]
    bias,  # [directions, 4*hidden]
    mask,  # [batch, time] bool, or None
    initial_state,  # (h, c), each [directions, batch, hidden], or None
    input_scale,  # [directions, batch, features], or None
    recurrent_scale,  # [directions, batch, hidden], or None
    resets,  # [batch, time] bool, or None
    *,
    reverse: bool,
    dtype: DTypeLike | None,
    implementation: str,
    chunk_size: int,
) -> tuple[Array, tuple[Array, Array]]:
    """Runs one direction, or two over the same inputs in opposite directions. See `lstm`.

    Returns:
      outputs [batch, time, directions*hidden] and (h, c), each [directions, batch, hidden].
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype or inputs.dtype)
    only_of_the_scan = {"recurrent dropout (recurrent_scale)": recurrent_scale, "resets": resets}
    options = [name for name, array in only_of_the_scan.items() if array is not None]
    if options:
        layer = _make_scan(implementation, dtype, options, reverse=reverse)
    else:
        length = inputs.shape[1] if isinstance(inputs.shape[1], int) else 1  # symbolic: an export
        if chunk_size > 0:
            length = min(length, chunk_size)
        size = dict(dtype=dtype, hidden_features=recurrent_kernel.shape[1], length=length)
        layer = _make_layer(implementation, size, reverse=reverse)
    run = partial(_run_layer, layer=layer, chunk_size=chunk_size)

    def out_specs(rows):
        state = PartitionSpec(None, rows, None)
        return PartitionSpec(rows, None, None), (state, state)

    run = in_auto_mode(run, inputs, out_specs)
    return run(
        inputs,
        kernel,
        recurrent_kernel,
        bias,
        mask,
        initial_state,
        input_scale,
        recurrent_scale,
        resets,
    )


def _run_layer(
    inputs,
    kernel,
    recurrent_kernel,
    bias,
    mask,
    initial_state,
    input_scale,
    recurrent_scale,
    resets,
    *,
    layer: Layer,
    chunk_size: int,
):
    directions, hidden = recurrent_kernel.shape[:2]
    if 0 in inputs.shape:  # nothing to compute, and cuDNN takes no empty arrays
        layer = Layer(layer.reverse, layer.dtype)
    if initial_state is None:
        zeros = jnp.zeros((directions, inputs.shape[0], hidden), layer.carry_dtype)
        initial_state = zeros, zeros
    if input_scale is not None:
        input_scale = jax.lax.stop_gradient(input_scale).astype(layer.dtype)
    if recurrent_scale is not None:
        recurrent_scale = jax.lax.stop_gradient(recurrent_scale).astype(layer.carry_dtype)
    if resets is not None:
        each = [resets_of(resets, mask, layer.backwards(d)) for d in range(directions)]
        resets = jnp.stack(each)
    h, c = (x.astype(layer.carry_dtype) for x in initial_state)
    bias = bias.astype(layer.carry_dtype)
    inputs, kernel, recurrent_kernel = (
        x.astype(layer.dtype) for x in (inputs, kernel, recurrent_kernel)
    )

    def run(inputs, mask, resets, h, c, only=slice(None)):
        """Runs the directions `only` over these inputs."""
        compute = over_devices(
            partial(primitives.run, layer._replace(reverse=layer.backwards(only.start or 0)))
        )
        scale, of_state = (None if x is None else x[only] for x in (input_scale, recurrent_scale))
        weights = kernel[only], recurrent_kernel[only], bias[only]
        resets = None if resets is None else resets[only]
        arguments = Arguments(inputs, mask, scale, *weights, h, c, of_state, resets)
        return compute(vary_alike(arguments))

    if not 0 < chunk_size < inputs.shape[1]:
        outputs, h, c = run(inputs, mask, resets, h, c)
        return outputs, (h, c)
    results = []
    for d in range(directions):  # each direction walks the chunks from its own end
        one = slice(d, d + 1)
        run_one = partial(run, only=one)
        backward = layer.backwards(d)
        results.append(
            _in_chunks(run_one, inputs, mask, resets, h[one], c[one], chunk_size, backward)
        )
    outputs, h, c = zip(*results, strict=True)
    return jnp.concatenate(outputs, axis=-1), (jnp.concatenate(h), jnp.concatenate(c))


def _in_chunks(run, inputs, mask, resets, h, c, chunk_size: int, reverse: bool):
    """Runs `run` chunk by chunk. The gradient keeps each chunk's inputs and first state, nothing else."""
    batch, time, features = inputs.shape
    chunks = -(-time // chunk_size)
    if mask is None:
        mask = jnp.ones((batch, time), bool)
    missing = chunks * chunk_size - time  # masked steps fill up the last chunk, and change nothing
    inputs = jnp.pad(inputs, ((0, 0), (0, missing), (0, 0)))
    mask = jnp.pad(mask, ((0, 0), (0, missing)))
    if resets is not None:  # [chunks, directions, batch, chunk_size]
        resets = jnp.pad(resets, ((0, 0), (0, 0), (0, missing)))
        resets = jnp.moveaxis(resets.reshape(len(resets), batch, chunks, chunk_size), 2, 0)
    xs = (
        jnp.moveaxis(inputs.reshape(batch, chunks, chunk_size, features), 1, 0),
        jnp.moveaxis(mask.reshape(batch, chunks, chunk_size), 1, 0),
        resets,
    )

    @jax.checkpoint
    def body(state, x):
        outputs, *state = run(*x, *state)
        return tuple(state), outputs

    (h, c), outputs = jax.lax.scan(body, (h, c), xs, reverse=reverse)
    # [chunks, batch, chunk_size, hidden] -> [batch, chunks * chunk_size, hidden]
    outputs = jnp.moveaxis(outputs, 0, 1).reshape(batch, chunks * chunk_size, h.shape[-1])
    return outputs[:, :time], h, c
