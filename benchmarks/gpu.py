"""A training step and a bidirectional layer on an NVIDIA GPU: ours against PyTorch, flax.nnx and Keras.

    python -m benchmarks.gpu [--only=ours,torch] [--batch_size=256] [--length=500] [--out=runs/gpu.json]

--only     First words of the names in `ROWS`, comma-separated. Default: all.
--hidden   Units of the layer. Other than 64: the layer alone.
--repeats  How often each thing is timed. Default: 30.
--profile  Also list the GPU kernels in which our step spends its time.

layer    One bidirectional LSTM over 128 features, forward and backward.
step     A training step of the notebook's network, from ids on the host to updated weights.
of ten   The same where the process waits only after every tenth step, as training does.
errors   ||out - ref|| / ||ref|| of a masked layer's results and gradients; ref is the scan in float64.

Every review has the full length, so no contender can skip anything. Times are medians in milliseconds, after
warming up, least and most in brackets. Each library has a process of its own. "tf32": the factors of products
are rounded to 10 bits, as cuDNN in PyTorch and products in JAX are unless told otherwise.

Exit codes: 0 done, 2 wrong flags.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bahdanau_jax.atomic_write import write_bytes
from benchmarks.network import Sizes
from experiments.command import command, parse_flags

ROWS = {  # the module in contenders/ and its settings
    "ours fused tf32": ("ours", dict(implementation="fused", precision="tensorfloat32")),
    "ours fused float32": ("ours", dict(implementation="fused", precision="highest")),
    "ours fused bfloat16": ("ours", dict(implementation="fused", dtype="bfloat16")),
    "ours cudnn tf32": ("ours", dict(implementation="cudnn", precision="tensorfloat32")),
    "ours cudnn float32": ("ours", dict(implementation="cudnn", precision="highest")),
    "ours scan tf32": ("ours", dict(implementation="scan", precision="tensorfloat32")),
    "torch tf32": ("torch", dict(precision="high")),
    "torch float32": ("torch", dict(precision="highest")),
    "torch bfloat16": ("torch", dict(precision="high", bfloat16=True)),
    "nnx tf32": ("nnx", {}),
    "keras tf32": ("keras", {}),
}
STEPS = 10  # of "of ten"
AT_MOST_SECONDS = 6


def measure(run: Callable[[], Any], repeats: int, *, calls: int = 1) -> dict[str, float]:
    """Milliseconds of one of the `calls` that `run` makes: median, least and most; and of the first `run`."""
    begun = time.perf_counter()
    run()
    warm = time.perf_counter()
    for _ in range(3):
        run()
    seconds = []
    while not seconds or (len(seconds) < repeats and time.perf_counter() - warm < AT_MOST_SECONDS):
        started = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - started) / calls)
    found = dict(median=median(seconds), least=min(seconds), most=max(seconds), first=warm - begun)
    return {name: value * 1e3 for name, value in found.items()}


def set_precision(module: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Sets the library's precision of products; returns the other settings."""
    others = {name: value for name, value in settings.items() if name != "precision"}
    precision = settings.get("precision")
    if module == "torch":
        torch: Any = importlib.import_module("torch")
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"
    else:
        import jax

        jax.config.update("jax_default_matmul_precision", precision)
    return others


def measure_row(row: str, asked: Any) -> dict[str, Any]:
    """The figures of a row, in this process."""
    name, settings = ROWS[row]
    settings = set_precision(name, settings)
    module = importlib.import_module(f"benchmarks.contenders.{name}")
    sizes, rng = Sizes(), np.random.default_rng(0)
    shape = asked.batch_size, asked.length
    inputs = rng.standard_normal((*shape, sizes.embedding_features), np.float32)
    run = module.make_layer(asked.hidden, inputs, **settings)
    figures: dict[str, Any] = {"layer": measure(run, asked.repeats)}
    if asked.hidden != sizes.hidden_features:
        return figures
    ids = rng.integers(1, sizes.vocab_size, shape, np.int32)
    labels = rng.integers(0, 2, asked.batch_size).astype(np.int32)
    network = module.Network(
        sizes, batch_size=asked.batch_size, buckets=(asked.length,), **settings
    )

    def step() -> None:
        network.train(ids, labels)

    def steps() -> None:
        for _ in range(STEPS - 1):
            network.start(ids, labels)
        network.train(ids, labels)

    figures["step"] = measure(step, asked.repeats)
    if hasattr(network, "start"):
        figures["of ten"] = measure(steps, asked.repeats // 2, calls=STEPS)
    if name == "ours":
        figures["errors"] = errors(**settings)
        if asked.profile:
            figures["kernels"] = kernels(step)
    return figures


def errors(implementation: str, dtype: str = "float32") -> dict[str, float]:
    """How far results and gradients of a masked layer are from those of the scan in float64."""
    import jax
    import jax.numpy as jnp

    from bahdanau_jax import lstm

    rng = np.random.default_rng()  # other inputs each time
    batch, length, features, hidden = 37, 61, 128, 64
    mask = rng.random((batch, length)) < 0.7
    arrays = [
        rng.standard_normal((batch, length, features)),
        rng.standard_normal((features, 4 * hidden)) / features**0.5,
        rng.standard_normal((hidden, 4 * hidden)) / hidden**0.5,
        rng.standard_normal(4 * hidden),
    ]
    of_outputs = rng.standard_normal((batch, length, hidden))
    of_state = rng.standard_normal((batch, hidden))

    def run(dtype: str, implementation: str, platform: str) -> Any:
        def layer(*arrays):
            outputs, (h, c) = lstm(
                *arrays, mask=jnp.asarray(mask), reverse=True, implementation=implementation
            )
            return outputs, h, c

        def both(arrays):
            results, pull = jax.vjp(layer, *(x.astype(dtype) for x in arrays))
            given = (of_outputs, of_state, of_state)
            return *results, *pull(
                tuple(jnp.asarray(x, r.dtype) for x, r in zip(given, results, strict=True))
            )

        with jax.default_device(jax.devices(platform)[0]):
            return jax.device_get(jax.jit(both)(arrays))

    got = run(dtype, implementation, jax.default_backend())
    with jax.enable_x64(True):
        want = run("float64", "scan", "cpu")
    names = ("outputs", "h", "c", "of_inputs", "of_kernel", "of_recurrent_kernel", "of_bias")
    return {
        name: float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))
        for name, a, b in zip(names, got, want, strict=True)
    }


def kernels(run: Callable[[], Any], runs: int = 5) -> dict[str, float]:
    """Milliseconds of a run in all GPU kernels, and in each of those that take longest."""
    import jax

    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(runs):
                run()
        (file,) = Path(folder).glob("**/*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines if "GPU" in plane.name else ():
                for event in line.events if "Stream" in line.name else ():
                    spent[event.name] += event.duration_ns / 1e6 / runs
    return {"all": sum(spent.values()), **dict(spent.most_common(20))}


def show(row: str, figures: dict[str, Any]) -> None:
    """Prints the figures of a row."""
    if "failed" in figures:
        print(f"{row:<20} {figures['failed']}", flush=True)
        return
    times = [
        f"{what} {ms['median']:.2f} ({ms['least']:.2f} to {ms['most']:.2f})"
        for what, ms in figures.items()
        if what in ("layer", "step", "of ten")
    ]
    print(f"{row:<20} {'   '.join(times)} ms", flush=True)
    for what, error in figures.get("errors", {}).items():
        print(f"  {error:.1e}  {what}")
    for what, ms in figures.get("kernels", {}).items():
        print(f"  {ms:.4f} ms  {what[:90]}")


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    defaults: dict[str, Any] = dict(batch_size=256, length=500, hidden=64, repeats=30)
    asked, _ = parse_flags(
        argv, **defaults, only="", profile=False, out="runs/gpu.json", rows_here=""
    )
    if asked.rows_here:  # in a process of a library
        for row in asked.rows_here.split(","):
            try:
                figures = measure_row(row, asked)
            except Exception as error:  # whatever a library raises is a failure of its row
                traceback.print_exc()
                figures = {
                    "failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                }
            print(json.dumps([row, figures]), flush=True)
        return
    found = {}
    for module in dict.fromkeys(module for module, _ in ROWS.values()):
        rows = [
            row
            for row, (of, _) in ROWS.items()
            if of == module and row.startswith(tuple(asked.only.split(",")))
        ]
        if not rows:
            continue
        child = [sys.executable, "-m", "benchmarks.gpu", *argv[1:], f"--rows_here={','.join(rows)}"]
        env = dict(os.environ, KERAS_BACKEND="jax")
        with subprocess.Popen(child, stdout=subprocess.PIPE, text=True, env=env) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith('["'):
                    row, found[row] = json.loads(line)
                    show(row, found[row])
    Path(asked.out).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(asked.out, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    sys.exit(main())
