"""cuDNN's layer on a CPU: jax.experimental.rnn's own reference stands in for the library."""

import inspect
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn
from layer_arguments import make_arguments

from bahdanau_jax import lstm, lstm_implementation
from bahdanau_jax.layers import cudnn, gpu_kernel, implementations, recurrence, scan, self_check
from bahdanau_jax.layers.layer import Arguments, Layer

RESERVE = 11
FORWARD, BACKWARD = cudnn._forward, cudnn._backward  # as they call JAX


@pytest.fixture(autouse=True)
def reference(monkeypatch):
    """Replaces the library by `lstm_ref`, which reads the packed weights by `unpack_lstm_weights`."""

    def forward(call, lengths, sizes):
        x, h, c, weights = call
        dropout = sizes["dropout"]
        shape = {name: size for name, size in sizes.items() if name != "dropout"}
        unpacked = rnn.unpack_lstm_weights(weights, **shape)
        positional = [*(sizes[n] for n in ("input_size", "hidden_size", "num_layers")), dropout]
        results = rnn.lstm_ref(x, h, c, *unpacked, lengths, *positional, sizes["bidirectional"])
        return results, jnp.arange(RESERVE, dtype=jnp.float32)

    def backward(call, lengths, y, reserve, of_results, sizes):
        (want, *_), pull = jax.vjp(lambda call: forward(call, lengths, sizes)[0], call)
        same = jnp.allclose(y, want, atol=1e-6) & (reserve == jnp.arange(RESERVE)).all()
        # NaN unless the records hold what forward returned.
        return jax.tree.map(lambda x: jnp.where(same, x, jnp.nan), pull(of_results)[0])

    monkeypatch.setattr(cudnn, "_forward", forward)
    monkeypatch.setattr(cudnn, "_backward", backward)
    monkeypatch.setattr(cudnn, "_reserve_bytes", lambda *_: 4 * RESERVE)


@pytest.mark.slow
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked, scaled", [(True, True), (True, False), (False, True)])
def test_results_and_gradients_are_those_of_the_plain_scan(directions, reverse, masked, scaled):
    rng = np.random.default_rng(0)
    layer = Layer(reverse=reverse, dtype=np.dtype(np.float32))
    arguments = make_arguments(rng, directions=directions, masked=masked, scaled=scaled, hidden=2)
    outputs = jnp.asarray(rng.normal(size=(6, 5, 2 * directions)), jnp.float32)
    of_results = outputs, arguments.c * 2, arguments.h * 3

    @jax.jit
    def ours(arguments, of_results):
        size = cudnn.record_size(layer, arguments) + 3  # another implementation may need more
        results, records = cudnn.run_saving(layer, arguments, size)
        assert records.shape == (size,) and records.dtype == jnp.int32
        same = cudnn.run(layer, arguments)
        return results, same, cudnn.gradients(layer, arguments, records, of_results)

    @jax.jit
    def plain(arguments, of_results):
        mask, scale = arguments.mask, arguments.input_scale

        def run(inputs, *others):
            return scan.run(layer, Arguments(inputs, mask, scale, *others))

        results, pull = jax.vjp(run, *arguments.differentiable)
        return results, pull(of_results)

    results, same, gradients = ours(arguments, of_results)
    want, want_gradients = plain(arguments, of_results)
    for got, x in zip((*results, *gradients), (*want, *want_gradients), strict=True):
        np.testing.assert_allclose(got, x, atol=2e-5)
    for got, x in zip(same, results, strict=True):
        np.testing.assert_array_equal(got, x)
    if masked:
        assert (np.asarray(results[0])[~np.asarray(arguments.mask)] == 0).all()
        np.testing.assert_array_equal(results[1][:, 0], arguments.h[:, 0])  # the empty row


def differs():
    return self_check.differs_from_scan(cudnn, "cuDNN")


@pytest.mark.slow
def test_a_fault_is_noticed_and_named(monkeypatch):
    assert differs() is None
    forward, precisions = cudnn._forward, []

    def faulty(call, lengths, sizes):  # as a library that ignores the lengths
        precisions.append(jax.config.jax_default_matmul_precision)  # pyright: ignore[reportAttributeAccessIssue]
        return forward(call, jnp.full_like(lengths, call.x.shape[1]), sizes)

    monkeypatch.setattr(cudnn, "_forward", faulty)
    with jax.default_matmul_precision("tensorfloat32"):
        assert "differs from the scan by" in str(differs())
    assert set(precisions) == {"highest"}  # on a GPU, TF32 in either would look like a fault

    def failing(call, lengths, sizes):
        raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED\nin line 3")

    monkeypatch.setattr(cudnn, "_forward", failing)
    assert "CUDNN_STATUS_NOT_SUPPORTED in line 3" in str(differs())


@pytest.mark.slow
def test_jax_gets_its_arguments_in_its_order(monkeypatch):
    """The two calls themselves, with JAX's functions replaced by others of the same parameters."""
    forward, backward = cudnn._forward, cudnn._backward

    def lstm_fwd(
        x, h_0, c_0, w, seq_lengths,
        input_size, hidden_size, num_layers, dropout, bidirectional, precision,
    ):  # fmt: skip
        assert (num_layers, dropout, precision) == (1, 0, cudnn._precision())
        sizes = cudnn.rnn_sizes(input_size, hidden_size, 1 + bidirectional)
        results, reserve = forward(cudnn.Call(x, h_0, c_0, w), seq_lengths, sizes)
        reserve = jnp.pad(reserve, (0, 3 * RESERVE))  # a float32 for each byte
        return results, (x, h_0, c_0, w, seq_lengths, results[0], reserve)

    def lstm_bwd(
        input_size, hidden_size, num_layers, dropout, bidirectional, precision,
        residuals, gradients,
    ):  # fmt: skip
        *call, lengths, y, reserve = residuals
        assert reserve.shape == (4 * RESERVE,)
        reserve = reserve[:RESERVE]
        sizes = cudnn.rnn_sizes(input_size, hidden_size, 1 + bidirectional)
        return *backward(cudnn.Call(*call), lengths, y, reserve, gradients, sizes), None

    for ours in (lstm_fwd, lstm_bwd):
        theirs = getattr(rnn, ours.__name__)
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        )
        monkeypatch.setattr(rnn, ours.__name__, ours)
    monkeypatch.setattr(cudnn, "_forward", FORWARD)
    monkeypatch.setattr(cudnn, "_backward", BACKWARD)
    assert differs() is None


@pytest.fixture
def fresh(monkeypatch):
    """Forgets what was found out about the library, before and after. The fused kernel cannot run."""
    monkeypatch.setattr(gpu_kernel, "declined", lambda: "no fused kernel")
    cached = cudnn.obstacle, cudnn.declined, implementations._say_once
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def lowered_for_cuda(implementation="auto", shape=(4, 5, 3)):
    weights = jnp.ones((3, 8)), jnp.ones((2, 8)), jnp.ones(8)

    def loss(x, mask):
        return lstm(x, *weights, mask=mask, implementation=implementation)[0].sum()

    traced = jax.jit(jax.grad(loss)).trace(jnp.ones(shape), jnp.ones(shape[:2], bool))
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def test_a_fault_of_the_library_makes_auto_take_the_scan_and_say_so(monkeypatch, caplog, fresh):
    monkeypatch.setattr(cudnn, "declined", lambda: "cuDNN differs from the scan by 1.0")
    with caplog.at_level(logging.WARNING):
        assert "while" in lowered_for_cuda()
        lowered_for_cuda()
    assert caplog.messages == [
        "no fused kernel; cuDNN differs from the scan by 1.0; the scan computes LSTM layers on GPUs"
    ]
    monkeypatch.setattr(recurrence, "_default_platform", lambda: "cuda")
    reasons = "no fused kernel; cuDNN differs from the scan by 1.0"
    assert lstm_implementation() == ("scan", reasons)


def test_auto_lowers_cudnn_for_cuda(monkeypatch, fresh):
    monkeypatch.setattr(self_check, "on_a_gpu", lambda *_: None)
    forward = cudnn._forward
    calls = []
    monkeypatch.setattr(cudnn, "_forward", lambda *x: (calls.append(1), forward(*x))[1])
    lowered_for_cuda()
    assert calls
    monkeypatch.setattr(recurrence, "_default_platform", lambda: "cuda")
    assert lstm_implementation() == ("cudnn", "an NVIDIA GPU, float32")
    assert lstm_implementation("cudnn") == ("cudnn", "asked for")


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3)], ids=str)
def test_empty_arrays_never_reach_cudnn(monkeypatch, fresh, shape):
    monkeypatch.setattr(self_check, "on_a_gpu", lambda *_: None)
    monkeypatch.setattr(cudnn, "_forward", lambda *_: pytest.fail("cuDNN is called"))
    lowered_for_cuda(shape=shape)


def test_asked_for_where_it_cannot_run_it_is_refused(monkeypatch, fresh):
    def refuse(*_):
        raise RuntimeError("gpudnnCreate(&handle) failed")

    monkeypatch.setattr(cudnn, "_reserve_bytes", refuse)
    with pytest.raises(ValueError, match="'cudnn', which cannot run here: cuDNN cannot be loaded"):
        lowered_for_cuda("cudnn")
    with pytest.raises(ValueError, match="the platform is cpu, and cudnn is for cuda"):
        lstm_implementation("cudnn")
    with pytest.raises(ValueError, match="the dtype is bfloat16, and cudnn computes in float32"):
        monkeypatch.setattr(recurrence, "_default_platform", lambda: "cuda")
        lstm_implementation("cudnn", dtype=jnp.bfloat16)


def test_without_the_library_the_reason_says_so(monkeypatch, fresh):
    def refuse(*_):
        raise RuntimeError("gpudnnCreate(&handle) failed")

    monkeypatch.setattr(cudnn, "_reserve_bytes", refuse)
    assert cudnn.obstacle() == "cuDNN cannot be loaded (gpudnnCreate(&handle) failed)"


def test_tf32_unless_full_precision_is_asked_for():
    assert cudnn._precision() == jax.lax.Precision.HIGH
    for asked in ("highest", "float32"):
        with jax.default_matmul_precision(asked):
            assert cudnn._precision() == jax.lax.Precision.HIGHEST
