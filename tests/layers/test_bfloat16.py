"""Products of bfloat16 in the CPU kernel, against a loop in float64 whose factors are rounded.

A CPU without AVX512_BF16 runs the same kernel here with other instructions for the dot product.
"""

import jax
import jax.numpy as jnp
import ml_dtypes
import numba
import numpy as np
import pytest
from flax import nnx
from llvmlite import binding, ir

from bahdanau_jax import BiLSTM, bilstm, lstm_implementation
from bahdanau_jax.layers import cpu_kernel
from bahdanau_jax.layers.prediction import obstacle

pytestmark = pytest.mark.skipif(
    cpu_kernel.obstacle() is not None, reason="the CPU kernel does not run here"
)
BFLOAT16 = jnp.bfloat16
NAMES = "outputs", "h", "c", "d_x", "d_kernel", "d_recurrent_kernel", "d_bias", "d_h0", "d_c0"
ROUNDED = NAMES[0], *NAMES[3:6]


@pytest.fixture
def any_cpu(monkeypatch):
    """Lets the kernel compute in bfloat16 on this CPU, if slowly."""
    monkeypatch.setattr(cpu_kernel, "dtype_obstacle", lambda dtype: None)


def rounded(x):
    return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)


def draw(batch, time, features, hidden):
    """Arguments of a BiLSTM, a mask and a scale of the inputs, and gradients of its results."""
    random = np.random.default_rng(batch)
    shapes = dict(
        x=(batch, time, features), kernel=(2, features, 4 * hidden),
        recurrent_kernel=(2, hidden, 4 * hidden), bias=(2, 4 * hidden),
        h0=(2, batch, hidden), c0=(2, batch, hidden),
        d_out=(batch, time, 2 * hidden), d_h=(2, batch, hidden), d_c=(2, batch, hidden),
    )  # fmt: skip
    a = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    a["kernel"] /= np.sqrt(features)
    a["recurrent_kernel"] /= np.sqrt(hidden)
    a["d_out"] = rounded(a["d_out"]).astype(np.float32)
    mask = random.random((batch, time)) < 0.7
    mask[0] = False
    a["x"][~mask] = np.nan
    return a, mask, random.integers(0, 2, (2, batch, features)) * 1.25


def one_direction(d, a, mask, scale):
    """Results and gradients, in the order of NAMES. Only the factors of products are rounded."""
    W, U = rounded(a["kernel"][d]), rounded(a["recurrent_kernel"][d])
    (batch, time), hidden = mask.shape, len(U)
    out, d_x = np.zeros((batch, time, hidden)), np.zeros((batch, time, len(W)))
    d_W, d_U, d_bias = np.zeros_like(W), np.zeros_like(U), np.zeros(4 * hidden)
    h, c, d_h, d_c = (a[name][d].astype(np.float64) for name in ("h0", "c0", "d_h", "d_c"))
    d_out = a["d_out"][..., d * hidden : (d + 1) * hidden]
    for b in range(batch):
        tape = []
        for t in np.flatnonzero(mask[b])[:: 1 - 2 * d]:
            x, before, old = (
                rounded(rounded(a["x"][b, t]) * scale[d, b]),
                rounded(h[b]),
                c[b].copy(),
            )
            i, f, g, o = np.split(x @ W + before @ U + a["bias"][d], 4)
            i, f, o, g = *(1 / (1 + np.exp(-z)) for z in (i, f, o)), np.tanh(g)
            c[b] = f * old + i * g
            h[b] = out[b, t] = o * np.tanh(c[b])
            tape.append((t, x, before, old, i, f, g, o, np.tanh(c[b])))
        for t, x, before, old, i, f, g, o, tanh_c in reversed(tape):
            dh = d_h[b] + d_out[b, t]
            dc = d_c[b] + dh * o * (1 - tanh_c**2)
            of_gates = dc * g * i * (1 - i), dc * old * f * (1 - f), dc * i * (1 - g**2)
            z = np.concatenate([*of_gates, dh * tanh_c * o * (1 - o)])
            d_bias += z
            z = rounded(z)
            d_x[b, t] = z @ W.T * scale[d, b]
            d_W, d_U = d_W + np.outer(x, z), d_U + np.outer(before, z)
            d_h[b], d_c[b] = z @ U.T, dc * f
    return out, h, c, rounded(d_x), rounded(d_W), rounded(d_U), d_bias, d_h, d_c


def expected(a, mask, scale):
    both = [one_direction(d, a, mask, scale) for d in range(2)]
    out, h, c, d_x, *rest = zip(*both, strict=True)
    first = rounded(np.concatenate(out, axis=-1)), np.stack(h), np.stack(c), rounded(sum(d_x))
    return *first, *map(np.stack, rest)


def found(a, mask, scale, implementation):
    def run(x, kernel, recurrent_kernel, bias, h, c):
        outputs, state = bilstm(
            x, kernel, recurrent_kernel, bias, mask=jnp.asarray(mask), initial_state=(h, c),
            input_scale=jnp.asarray(scale), dtype=BFLOAT16, implementation=implementation,
        )  # fmt: skip
        return outputs, *state

    @jax.jit
    def results(arguments, cotangents):
        results, pull = jax.vjp(run, *arguments)
        return *results, *pull(cotangents)

    names = list(a)
    of_results = jnp.asarray(a["d_out"], BFLOAT16), a["d_h"], a["d_c"]
    return results([a[name] for name in names[:6]], of_results)


def errors(got, want):
    """By name, the norm of the difference relative to that of the array."""
    return {
        name: np.linalg.norm(np.float64(x) - y) / np.linalg.norm(np.float64(y))
        for name, x, y in zip(NAMES, got, want, strict=True)
    }


SIZES = {
    "odd": (3, 5, 3, 5),
    "wider than a panel": (5, 6, 67, 19),
    "many pairs": (33, 9, 4, 3),  # several times as many as a product gathers
    "both directions in a part": (140, 2, 2, 2),
}


@pytest.mark.parametrize("name", SIZES)
def test_results_and_gradients_equal_a_loop_with_rounded_factors(any_cpu, name):
    """Sums in float32 err by up to steps * factors * 2**-24, less than 1e-4. Factors that are not rounded err
    by 1e-3. A number near the middle between two bfloat16 may be rounded to the other one."""
    a, mask, scale = draw(*SIZES[name])
    got = found(a, mask, scale, "native")
    for name, error in errors(got, expected(a, mask, scale)).items():
        assert error < (3e-4 if name in ROUNDED else 1e-4), name
    assert not any(np.any(np.asarray(x)[~mask]) for x in (got[0], got[3]))
    np.testing.assert_array_equal(got[1][:, 0], a["h0"][:, 0])  # a row without steps


@pytest.mark.slow
def test_near_the_scan_in_bfloat16(any_cpu):
    arguments = draw(*SIZES["wider than a panel"])
    got, want = (found(*arguments, implementation) for implementation in ("native", "scan"))
    assert [x.dtype for x in got] == [x.dtype for x in want]
    assert max(errors(got, want).values()) < 1e-2


def test_rounding_is_to_nearest_even_and_keeps_nan_and_what_lies_behind():
    from bahdanau_jax.layers.cpu_kernel import bfloat16

    @numba.njit
    def run(to, back, source, n):
        bfloat16.narrow(to, source, n)
        bfloat16.widen(back, to, n)

    random = np.random.default_rng(0)
    bits = random.integers(0, 1 << 32, 1008, np.uint32)  # whole vectors, which `narrow` reads
    bits[:500] = bits[:500] & 0xFFFF0000 | 0x8000  # halfway between two
    bits[:4] = 0x7F800000, 0xFFFFFFFF, 0x7F800001, 0x7F7FFFFF  # infinity, two NaN, the largest
    source, n = bits.view(np.float32), 997
    to, back = np.full(1008, 7, ml_dtypes.bfloat16), np.ones(1008, np.float32)
    run(to.ctypes.data, back.ctypes.data, source.ctypes.data, n)
    with np.errstate(invalid="ignore"):
        want = source[:n].astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.float32(to[:n]), np.float32(want))
    np.testing.assert_array_equal(back[:n], np.float32(want))
    assert (to[n:] == 7).all() and (back[n:] == 0).all()


def test_memory_is_no_more_than_in_float32(any_cpu):
    """What XLA allocates for the gradient of a layer on word vectors."""
    ids = jnp.zeros((16, 100), jnp.int32)

    def size(dtype):
        def loss(vectors, *weights):
            outputs, _ = bilstm(vectors[ids], *weights, dtype=dtype, implementation="native")
            return jnp.sum(outputs.astype(jnp.float32) ** 2)

        shapes = [(9, 128), (2, 128, 256), (2, 64, 256), (2, 256)]
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        compiled = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(*arguments).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert size(BFLOAT16) < size(jnp.float32)


@pytest.mark.parametrize("cpu", ["cooperlake", "sapphirerapids", "znver4", "znver5"])
def test_llvm_makes_vdpbf16ps_of_the_dot_product(monkeypatch, cpu):
    from bahdanau_jax.layers.cpu_kernel import bfloat16

    sums, pairs = ir.VectorType(ir.FloatType(), 16), ir.VectorType(ir.IntType(32), 16)
    for name, value in dict(HAS_INSTRUCTION=True, vec_ir=sums, ivec_ir=pairs).items():
        monkeypatch.setattr(bfloat16, name, value)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(sums, [pairs, pairs, sums]), "dot")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(bfloat16.emit_dot(builder, *function.args))
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(cpu=cpu)
    assembly = target.emit_assembly(binding.parse_assembly(str(module)))
    assert "vdpbf16ps\t%zmm1, %zmm0, %zmm2" in assembly


def test_only_a_cpu_with_avx512_takes_the_kernel(monkeypatch):
    from bahdanau_jax.layers.cpu_kernel import build

    assert lstm_implementation()[0] == "native"
    layer = BiLSTM(2, 2, dtype=BFLOAT16, rngs=nnx.Rngs(0))
    monkeypatch.setattr(build, "cpu_features", lambda: {"avx2", "fma"})
    why = "the dtype is bfloat16, in which native computes on CPUs with AVX-512; this one has none"
    assert lstm_implementation(dtype=BFLOAT16) == ("scan", why)
    with pytest.raises(ValueError, match=f"'native', which cannot run here: {why}"):
        lstm_implementation("native", dtype=BFLOAT16)
    monkeypatch.setattr(build, "cpu_features", lambda: {"avx2", "fma", "avx512f"})
    assert lstm_implementation(dtype=BFLOAT16) == ("native", "a CPU, bfloat16")
    assert obstacle(layer) == "the dtype is bfloat16; expected float32"  # for int16 and ids
