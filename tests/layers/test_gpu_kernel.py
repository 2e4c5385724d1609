"""The fused GPU kernel. Its source runs on the CPU here: cuda_on_cpu.h stands in for CUDA."""

import ctypes
import functools
import math
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_arguments import make_arguments

from bahdanau_jax import lstm, lstm_implementation
from bahdanau_jax.layers import cudnn, gpu_kernel, recurrence, scan, self_check
from bahdanau_jax.layers.gpu_kernel import compile
from bahdanau_jax.layers.layer import Layer

# Of a kind of products: the dtype, the precision asked for, and the relative error that may be.
PRODUCTS = {
    "float32": (np.dtype(np.float32), "highest", 2e-6),
    "tf32": (np.dtype(np.float32), None, 1e-3),
    "bfloat16": (np.dtype(jnp.bfloat16), None, 2e-2),
}

SHARED_BYTES = 227 * 1024  # of a block on a Hopper GPU


@functools.cache
def build(folder: Path, file: str, macros: tuple[tuple[str, int], ...]) -> ctypes.CDLL:
    """Compiles a file of kernels by g++, with a C function that launches each."""
    # One launcher serves both: it casts each array to the type of the parameter.
    size = SHARED_BYTES // 16
    source = compile.source_of(file)
    for name in ("more_weights", "dynamic"):
        source = source.replace(
            f"extern __shared__ float4 {name}[];", f"static float4 {name}[{size}];"
        )
    source += """
    #include <utility>
    template <class... P, std::size_t... N>
    static void run(void (*kernel)(P...), void** arrays, int x, int y, std::index_sequence<N...>) {
      launch(x, y, GATES, [=] { kernel(static_cast<P>(arrays[N])...); });
    }
    template <class... P> static void run(void (*kernel)(P...), void** arrays, int x, int y) {
      run(kernel, arrays, x, y, std::index_sequence_for<P...>());
    }
    extern "C" void run_forward(void** arrays, int x, int y) { run(lstm_forward, arrays, x, y); }
    extern "C" void run_backward(void** arrays, int x, int y) { run(lstm_backward, arrays, x, y); }
    """
    name = "-".join([file, *(str(value) for _, value in macros)])
    code, library = folder / f"{name}.cpp", folder / f"{name}.so"
    code.write_text(source)
    shim = Path(__file__).with_name("cuda_on_cpu.h")
    options = [f"-D{key}={value}" for key, value in macros]
    command = ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-include", str(shim)]
    done = subprocess.run(
        [*command, *options, str(code), "-o", str(library)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; it compiles the kernel's source for the CPU")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def on_cpu(folder, monkeypatch):
    """Replaces the call of the GPU's kernel by one of the same source on the CPU."""

    def call(file, name, macros, results, operands, *, grid, threads, shared_bytes):
        assert threads == 4 * macros["HIDDEN"] <= 1024
        assert shared_bytes + 20_000 < SHARED_BYTES
        library = build(folder, file, tuple(macros.items()))

        def on_host(*operands):
            given = [np.ascontiguousarray(x) for x in operands]
            # What no thread writes stays NaN, in float32 and bfloat16.
            written = [np.empty(math.prod(r.shape), r.dtype) for r in results]
            for array in written:
                array.view(np.uint8)[:] = 0xFF
            arrays = [x.ctypes.data for x in (*given, *written)]
            getattr(library, "run_" + name.removeprefix("lstm_"))(
                (ctypes.c_void_p * len(arrays))(*arrays), *grid
            )
            return tuple(x.reshape(r.shape) for x, r in zip(written, results, strict=True))

        return list(jax.pure_callback(on_host, tuple(results), *operands))

    monkeypatch.setattr(compile, "call", call)


def both(layer, arguments, of_results):
    """Results and gradients by the kernel, and by the scan."""

    def ours(arguments, of_results):
        size = gpu_kernel.record_size(layer, arguments) + 3  # another implementation may need more
        results, records = gpu_kernel.run_saving(layer, arguments, size)
        assert records.shape == (size,) and records.dtype == jnp.int32
        same = gpu_kernel.run(layer, arguments)
        return results, same, gpu_kernel.gradients(layer, arguments, records, of_results)

    def plain(arguments, of_results):
        results, records = scan.run_saving(layer, arguments)
        return results, scan.gradients(layer, arguments, records, of_results)

    return jax.jit(ours)(arguments, of_results), jax.jit(plain)(arguments, of_results)


CASES = [
    dict(directions=2, reverse=False, masked=True, scaled=True, hidden=8),
    dict(directions=1, reverse=True, masked=True, scaled=False, hidden=21),
    dict(directions=2, reverse=True, masked=False, scaled=False, hidden=64),
    dict(directions=1, reverse=False, masked=True, scaled=False, hidden=128),
]


@pytest.mark.slow
@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"hidden-{case['hidden']}")
def test_results_and_gradients_are_those_of_the_plain_scan(on_cpu, case, products):
    rng = np.random.default_rng(0)
    case = dict(case)
    dtype, precision, tolerance = PRODUCTS[products]
    layer = Layer(reverse=case.pop("reverse"), dtype=dtype)
    arguments = make_arguments(rng, **case, dtype=layer.dtype)
    of_results = (
        jnp.asarray(rng.normal(size=(6, 5, case["hidden"] * case["directions"])), layer.dtype),
        arguments.c * 2,
        arguments.h * 3,
    )
    with jax.default_matmul_precision(precision):
        (results, same, gradients), (want, want_gradients) = both(layer, arguments, of_results)
    for got, x in zip((*results, *gradients), (*want, *want_gradients), strict=True):
        got, x = np.asarray(got, np.float64), np.asarray(x, np.float64)
        assert np.linalg.norm(got - x) <= tolerance * np.linalg.norm(x)
    for got, x in zip(same, results, strict=True):
        np.testing.assert_array_equal(got, x)
    if case["masked"]:
        assert (np.asarray(results[0])[~np.asarray(arguments.mask)] == 0).all()
        np.testing.assert_array_equal(results[1][:, 0], arguments.h[:, 0])  # the empty row


@pytest.mark.slow
def test_the_self_check_passes_and_notices_a_fault(on_cpu, monkeypatch):
    assert self_check.differs_from_scan(gpu_kernel, "the kernel") is None
    rows_and_steps = gpu_kernel._rows_and_steps

    def without_mask(layer, arguments):
        return rows_and_steps(layer, arguments._replace(mask=None))

    monkeypatch.setattr(gpu_kernel, "_rows_and_steps", without_mask)
    assert "the kernel differs from the scan by" in str(
        self_check.differs_from_scan(gpu_kernel, "the kernel")
    )


@pytest.fixture
def on_cuda(monkeypatch):
    """Decides as on a machine with an NVIDIA GPU, whose kernels passed the self-check."""
    monkeypatch.setattr(recurrence, "_default_platform", lambda: "cuda")
    for module in (gpu_kernel, cudnn):
        monkeypatch.setattr(module, "declined", lambda: None)


def test_auto_takes_it_on_nvidia_gpus_where_the_layer_fits(on_cuda, monkeypatch):
    assert lstm_implementation() == ("fused", "an NVIDIA GPU, float32")
    assert lstm_implementation(dtype=jnp.bfloat16) == ("fused", "an NVIDIA GPU, bfloat16")
    assert lstm_implementation(hidden_features=129) == ("cudnn", "an NVIDIA GPU, float32")
    name, why = lstm_implementation(hidden_features=129, dtype=jnp.bfloat16)
    assert name == "scan"
    assert why.startswith("hidden_features is 129, and fused takes at most 128; the dtype is bfl")
    monkeypatch.setattr(gpu_kernel, "_shared_limit", lambda: 99 * 1024)  # as of an RTX 4090
    assert lstm_implementation(hidden_features=64, length=500)[0] == "fused"
    with jax.default_matmul_precision("highest"):
        assert lstm_implementation(hidden_features=128, length=500)[0] == "cudnn"
    assert lstm_implementation(hidden_features=64, length=100_000)[0] == "cudnn"


def test_asked_for_where_it_cannot_run_it_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="the platform is cpu, and fused is for cuda"):
        lstm_implementation("fused")
    monkeypatch.setattr(recurrence, "_default_platform", lambda: "cuda")
    with pytest.raises(ValueError, match="hidden_features is 200, and fused takes at most 128"):
        lstm_implementation("fused", hidden_features=200)
    with pytest.raises(ValueError, match="the dtype is float64, and fused computes in float32 and"):
        with jax.enable_x64(True):
            lstm_implementation("fused", dtype=np.float64)


def test_without_nvrtc_the_reason_says_so(monkeypatch):
    def missing():
        raise OSError("libnvrtc is not installed")

    monkeypatch.setattr(compile, "library", missing)
    gpu_kernel.obstacle.cache_clear()
    assert gpu_kernel.obstacle() == "the kernel cannot be compiled (libnvrtc is not installed)"
    gpu_kernel.obstacle.cache_clear()


def test_a_program_for_cuda_holds_the_kernels(monkeypatch):
    monkeypatch.setattr(gpu_kernel, "declined", lambda: None)
    monkeypatch.setattr(compile, "compile_ptx", lambda source, macros: f"// {dict(macros)}")
    weights = jnp.ones((3, 64)), jnp.ones((16, 64)), jnp.ones(64)

    def loss(x):
        return lstm(x, *weights)[0].sum()

    traced = jax.jit(jax.grad(loss)).trace(jnp.ones((4, 5, 3)))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("__gpu$xla.gpu.ptx") == 2
    assert 'name = "lstm_forward"' in text and 'name = "lstm_backward"' in text
    assert "'HIDDEN': 16" in text and "'SAVING': 1" in text and "while" not in text


@pytest.mark.parametrize("file", ["tensor_cores.cu", "multiply_add.cu"])
def test_nvrtc_compiles_the_kernels(file):
    try:
        compile.library()
    except OSError as error:
        pytest.skip(str(error))
    macros = dict(HIDDEN=32, ROWS=4, DIRECTIONS=2, BFLOAT16=0, SAVING=1, IN_REGISTERS=8)
    ptx = compile.compile_ptx(compile.source_of(file), tuple(macros.items()))
    assert f".version {compile.PTX_VERSION}" in ptx
    assert ".entry lstm_forward(" in ptx and ".entry lstm_backward(" in ptx
    with pytest.raises(RuntimeError, match="NVRTC does not compile the kernel: .*identifier"):
        compile.compile_ptx("__global__ void f() { nothing; }", ())
