"""Additive attention against the paper's formula in float64 NumPy, Keras and PyTorch, under masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.layers import BahdanauAttention, additive_attention, masked_softmax

BATCH, TIME, QUERY, KEY, UNITS = 3, 7, 6, 5, 4


def make(seed=0):
    rng = np.random.default_rng(seed)
    attention = BahdanauAttention(QUERY, KEY, UNITS, rngs=nnx.Rngs(seed))
    attention.bias[...] = jnp.asarray(rng.normal(size=UNITS), jnp.float32)
    query, keys = rng.normal(size=(BATCH, QUERY)), rng.normal(size=(BATCH, TIME, KEY))
    mask = np.arange(TIME) < np.array([[TIME], [3], [1]])
    return attention, query.astype(np.float32), keys.astype(np.float32), mask


def formula(attention, query, keys, mask):
    """score = v . tanh(W1 key + W2 query + bias), softmax over real positions. float64, row by row."""
    w1, w2, bias, v = (
        np.asarray(p[...], np.float64)
        for p in (
            attention.key_kernel,
            attention.query_kernel,
            attention.bias,
            attention.score_kernel,
        )
    )
    contexts, weights = np.zeros((len(keys), keys.shape[-1])), np.zeros(keys.shape[:2])
    for b in range(len(keys)):
        real = np.flatnonzero(mask[b])
        if not len(real):
            continue
        scores = np.array([v @ np.tanh(keys[b, t] @ w1 + query[b] @ w2 + bias) for t in real])
        e = np.exp(scores - scores.max())
        weights[b, real] = e / e.sum()
        contexts[b] = weights[b] @ keys[b]
    return contexts, weights


def test_equals_the_formula():
    attention, query, keys, mask = make()
    context, weights = attention(query, keys, mask=jnp.array(mask))
    for got, want in zip((context, weights), formula(attention, query, keys, mask), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_by_hand():
    # Scores 0 and log 3 with v = 1 would need tanh; so: v = log(3) / tanh(1), keys project to 0 and 1.
    context, weights = additive_attention(
        jnp.zeros((1, 1, 1)),
        jnp.array([[[0.0], [1.0]]]),
        jnp.array([[[8.0], [4.0]]]),
        jnp.array([np.log(3) / np.tanh(1)]),
    )
    np.testing.assert_allclose(weights[0, 0], [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(context[0, 0], [5.0], rtol=1e-6)


def test_weights_sum_to_one_and_are_exactly_zero_under_the_mask():
    attention, query, keys, mask = make(1)
    _, weights = attention(query, keys, mask=jnp.array(mask))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert (np.asarray(weights)[~mask] == 0).all()
    assert (np.asarray(weights)[mask] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("filler", [1e30, np.inf, np.nan])
def test_values_at_masked_positions_change_nothing(filler):
    attention, query, keys, mask = make(2)

    def loss(attention, query, keys):
        context, weights = attention(query, keys, mask=jnp.array(mask))
        return jnp.sum(context**2) + jnp.sum(weights**3)

    grad = nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1, 2)))
    clean = grad(attention, query, keys)
    dirty = grad(attention, query, np.where(mask[:, :, None], keys, np.float32(filler)))
    for got, want in zip(jax.tree.leaves(dirty), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(got, want)
    assert (np.asarray(clean[1][2])[~mask] == 0).all()


def test_a_fully_masked_row_gives_zeros_and_finite_gradients():
    attention, query, keys, mask = make(3)
    mask[1] = False

    def loss(attention, query, keys):
        context, weights = attention(query, keys, mask=jnp.array(mask))
        return jnp.sum(context) + jnp.sum(weights**2), (context, weights)

    gradients = nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (_, (context, weights)), grads = gradients(attention, query, keys)
    assert (context[1] == 0).all() and (weights[1] == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert (grads[2][1] == 0).all()


def test_gradients_equal_finite_differences_in_float64():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        shapes = [(2, 1, 3), (2, 4, 3), (2, 4, 2), (3,)]
        arguments = [rng.normal(size=s) for s in shapes]
        mask = jnp.array([[True, False, True, True], [True, True, False, False]])
        context_weights, weights_weights = rng.normal(size=(2, 1, 2)), rng.normal(size=(2, 1, 4))

        @jax.jit
        def loss(*arguments):
            context, weights = additive_attention(*arguments, mask=mask)
            return jnp.sum(context * context_weights) + jnp.sum(weights * weights_weights)

        grads = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*arguments)
        for n, argument in enumerate(arguments):
            for index in np.ndindex(*argument.shape):
                ends = []
                for delta in (1e-6, -1e-6):
                    moved = [a.copy() for a in arguments]
                    moved[n][index] += delta
                    ends.append(float(loss(*moved)))
                assert abs(grads[n][index] - (ends[0] - ends[1]) / 2e-6) < 1e-8


def test_several_queries_equal_single_queries():
    attention, query, keys, mask = make(4)
    queries = np.stack([query, 2 * query], axis=1)
    contexts, weights = attention(queries, keys, mask=jnp.array(mask))
    assert contexts.shape == (BATCH, 2, KEY) and weights.shape == (BATCH, 2, TIME)
    for n in range(2):
        context, weight = attention(queries[:, n], keys, mask=jnp.array(mask))
        np.testing.assert_allclose(contexts[:, n], context, atol=1e-6)
        np.testing.assert_allclose(weights[:, n], weight, atol=1e-6)


def test_values_may_differ_from_keys():
    attention, query, keys, mask = make(5)
    values = np.random.default_rng(9).normal(size=(BATCH, TIME, 2)).astype(np.float32)
    context, weights = attention(query, keys, values, jnp.array(mask))
    np.testing.assert_allclose(context, np.einsum("bt,btv->bv", weights, values), atol=1e-6)


def test_softmax_is_float32_under_bfloat16():
    attention, query, keys, mask = make(6)
    half = BahdanauAttention(QUERY, KEY, UNITS, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    nnx.update(half, nnx.state(attention))
    context, weights = half(query, keys, mask=jnp.array(mask))
    assert context.dtype == jnp.bfloat16 and weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, attention(query, keys, mask=jnp.array(mask))[1], atol=2e-2)


def test_large_scores_do_not_overflow():
    scores = jnp.array([[1e38, -1e38, 0.0, 3e38]])
    np.testing.assert_array_equal(masked_softmax(scores, jnp.ones((1, 4), bool)), [[0, 0, 0, 1]])
    masked = masked_softmax(scores, jnp.array([[False, True, True, False]]))
    np.testing.assert_array_equal(masked, [[0, 0, 1, 0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 9)), np.zeros((3, 7, 5))), r"query: expected \[batch, \(queries,\) 6\]"),
        ((np.zeros((3, 6)), np.zeros((3, 7, 6))), r"keys: expected \(3, 7, 5\), got \(3, 7, 6\)"),
        ((np.zeros((3, 6)), np.zeros((3, 7, 5)), np.zeros((3, 6, 5))), "values: expected"),
        ((np.zeros((3, 6)), np.zeros((3, 7, 5)), None, np.ones((3, 7))), "mask: expected bool"),
    ],
)
def test_a_wrong_shape_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make()[0](*arguments)


@pytest.mark.slow
def test_equals_the_usual_keras_layer():
    """W1, W2 and V as Dense layers with biases, as in the notebook."""
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    attention, query, keys, _ = make(7)
    rng = np.random.default_rng(7)
    w1, w2, v = keras.layers.Dense(UNITS), keras.layers.Dense(UNITS), keras.layers.Dense(1)
    w1.build((None, KEY))
    w2.build((None, QUERY))
    v.build((None, UNITS))
    split = rng.normal(size=UNITS).astype(np.float32)
    w1.set_weights([np.asarray(attention.key_kernel[...]), split])
    w2.set_weights(
        [np.asarray(attention.query_kernel[...]), np.asarray(attention.bias[...]) - split]
    )
    v.set_weights([np.asarray(attention.score_kernel[...])[:, None], np.array([3.0])])

    def theirs(keys):
        score = v(jnp.tanh(w1(keys) + w2(query[:, None, :])))
        weights = jax.nn.softmax(score, axis=1)
        return jnp.sum(weights * keys, axis=1), weights[..., 0]

    for got, want in zip(attention(query, keys), theirs(keys), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    ours_grad = jax.grad(lambda k: jnp.sum(attention(query, k)[0] ** 2))(jnp.asarray(keys))
    theirs_grad = jax.grad(lambda k: jnp.sum(theirs(k)[0] ** 2))(jnp.asarray(keys))
    np.testing.assert_allclose(ours_grad, theirs_grad, atol=1e-4)


@pytest.mark.slow
def test_equals_pytorch_under_a_mask():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    attention, query, keys, mask = make(8)
    w1, w2, bias, v = (
        torch.tensor(np.asarray(p[...]), requires_grad=True)
        for p in (
            attention.key_kernel,
            attention.query_kernel,
            attention.bias,
            attention.score_kernel,
        )
    )
    tensor = torch.tensor(keys, requires_grad=True)
    scores = torch.tanh(tensor @ w1 + (torch.tensor(query) @ w2 + bias)[:, None, :]) @ v
    weights = torch.softmax(scores.masked_fill(~torch.tensor(mask), -torch.inf), dim=1)
    context = (weights[:, :, None] * tensor).sum(1)
    (context**2).sum().backward()

    def loss(attention, keys):
        context, weights = attention(query, keys, mask=jnp.array(mask))
        return jnp.sum(context**2), (context, weights)

    (_, ours), grads = nnx.jit(nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
        attention, jnp.asarray(keys)
    )
    for got, want in zip(ours, (context, weights), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)
    for got, want in (
        (grads[1], tensor),
        (grads[0]["key_kernel"][...], w1),
        (grads[0]["query_kernel"][...], w2),
        (grads[0]["score_kernel"][...], v),
    ):
        assert want.grad is not None
        np.testing.assert_allclose(got, want.grad.numpy(), atol=1e-4)


# --- heads, normalized scores, a bias on scores, keys projected once -----------------------------


def more(seed=0, **options):
    rng = np.random.default_rng(seed)
    attention = BahdanauAttention(QUERY, KEY, UNITS, rngs=nnx.Rngs(seed), **options)
    attention.bias[...] = jnp.asarray(rng.normal(size=attention.bias.shape), jnp.float32)
    return attention


def head_of(attention, i):
    """One head as an attention with a single head."""
    alone = more()
    part = slice(i * UNITS, (i + 1) * UNITS)
    for name in ("query_kernel", "key_kernel"):
        getattr(alone, name)[...] = getattr(attention, name)[...][:, part]
    for name in ("bias", "score_kernel"):
        getattr(alone, name)[...] = getattr(attention, name)[...][part]
    return alone


@pytest.mark.slow
def test_heads_equal_single_attentions():
    attention, (_, query, keys, mask) = more(num_heads=3), make()
    mask = jnp.array(mask)
    context, weights = attention(query, keys, mask=mask)
    assert context.shape == (BATCH, 3 * KEY) and weights.shape == (BATCH, 3, TIME)
    several = attention(np.stack([query, -query], axis=1), keys, mask=mask)
    assert several[0].shape == (BATCH, 2, 3 * KEY) and several[1].shape == (BATCH, 2, 3, TIME)
    np.testing.assert_allclose(several[0][:, 0], context, atol=1e-6)
    for i in range(3):
        want_context, want_weights = head_of(attention, i)(query, keys, mask=mask)
        np.testing.assert_allclose(context[:, i * KEY : (i + 1) * KEY], want_context, atol=1e-6)
        np.testing.assert_allclose(weights[:, i], want_weights, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 3])
def test_normalized_scores_use_g_times_v_over_its_norm(heads):
    attention, (_, query, keys, mask) = more(num_heads=heads, normalized=True), make()
    assert attention.score_scale is not None
    np.testing.assert_allclose(attention.score_scale[...], np.full(heads, UNITS**-0.5))
    attention.score_scale[...] = jnp.arange(1.0, heads + 1)
    plain = more(num_heads=heads)
    for name in ("query_kernel", "key_kernel", "bias"):
        getattr(plain, name)[...] = getattr(attention, name)[...]
    v = np.asarray(attention.score_kernel[...], np.float64).reshape(heads, UNITS)
    scaled = np.arange(1, heads + 1)[:, None] * v / np.sqrt((v**2).sum(1, keepdims=True))
    plain.score_kernel[...] = jnp.asarray(scaled.reshape(-1), jnp.float32)
    got, want = (x(query, keys, mask=jnp.array(mask)) for x in (attention, plain))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    attention.score_kernel[...] *= 7.0  # only the direction of v matters
    np.testing.assert_allclose(attention(query, keys, mask=jnp.array(mask))[1], got[1], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 2])
def test_a_bias_is_added_to_the_scores(heads):
    attention, (_, query, keys, mask) = more(num_heads=heads), make()
    rng, mask = np.random.default_rng(3), jnp.array(mask)
    weights = np.asarray(attention(query, keys, mask=mask)[1], np.float64)
    bias = rng.normal(size=weights.shape).astype(np.float32)
    want = weights * np.exp(bias)  # softmax(s + b) is softmax(s) * exp(b), scaled to sum to 1
    want /= want.sum(-1, keepdims=True)
    np.testing.assert_allclose(attention(query, keys, mask=mask, bias=bias)[1], want, atol=1e-6)
    for narrow in (bias[:1], bias[..., :1], bias.reshape(-1, TIME)[0]):
        wide = np.broadcast_to(narrow, weights.shape)
        got, full = (attention(query, keys, mask=mask, bias=x)[1] for x in (narrow, wide))
        np.testing.assert_allclose(got, full, atol=1e-6)
    queries = np.stack([query, query], axis=1)
    twice = np.stack([bias, 0 * bias], axis=1)
    several = attention(queries, keys, mask=mask, bias=twice)[1]
    np.testing.assert_allclose(several[:, 0], want, atol=1e-6)
    np.testing.assert_allclose(several[:, 1], weights, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_heads": 2, "normalized": True}])
def test_keys_projected_once_give_the_same_at_every_step(options):
    attention, (_, query, keys, mask) = more(**options), make()
    queries = np.random.default_rng(1).normal(size=(BATCH, 4, QUERY)).astype(np.float32)
    mask = jnp.array(mask)
    want_contexts, want_weights = attention(queries, keys, mask=mask)
    memory = attention.project(keys, mask=mask)

    def step(_, query):  # as in a decoder's lax.scan
        return None, attention.attend(query, memory)

    contexts, weights = jax.lax.scan(step, None, jnp.asarray(queries).swapaxes(0, 1))[1]
    np.testing.assert_allclose(contexts.swapaxes(0, 1), want_contexts, atol=1e-6)
    np.testing.assert_allclose(weights.swapaxes(0, 1), want_weights, atol=1e-6)
    with pytest.raises(ValueError, match="query: expected a batch of 3"):
        attention.attend(query[:2], memory)


@pytest.mark.slow
def test_masks_stay_exact_with_heads_bias_and_scale():
    attention, (_, query, keys, mask) = more(num_heads=2, normalized=True), make()
    mask[1] = False
    dirty = np.where(mask[:, :, None], keys, np.float32(np.nan))
    bias = np.random.default_rng(0).normal(size=(BATCH, 1, TIME)).astype(np.float32)

    def loss(attention, keys):
        context, weights = attention(query, keys, mask=jnp.array(mask), bias=bias)
        return jnp.sum(context**2), (context, weights)

    (_, (context, weights)), grads = nnx.jit(
        nnx.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    )(attention, jnp.asarray(dirty))
    assert (np.asarray(weights).swapaxes(1, 2)[~mask] == 0).all() and (context[1] == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert (np.asarray(grads[1])[~mask] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("sizes", [(0, 2, 7), (3, 0, 7), (3, 2, 0)], ids=str)
def test_no_rows_no_queries_or_no_positions_give_empty_or_zero_results(sizes, heads):
    batch, queries, time = sizes
    attention = more(num_heads=heads)

    def loss(query, keys, mask):
        context, weights = attention(query, keys, mask=mask)
        return jnp.sum(context) + jnp.sum(weights), (context, weights)

    query, keys = jnp.ones((batch, queries, QUERY)), jnp.ones((batch, time, KEY))
    for mask in (None, jnp.ones((batch, time), bool)):
        gradient, (context, weights) = jax.jit(jax.grad(loss, has_aux=True))(query, keys, mask)
        assert context.shape == (batch, queries, heads * KEY) and gradient.shape == query.shape
        assert weights.size == batch * queries * heads * time
        assert np.isfinite(gradient).all()
        if time == 0:
            assert (context == 0).all()


@pytest.mark.parametrize("heads", [1, 2])
def test_numpy_float64_and_integers_compute_in_float32(heads, recwarn):
    attention, rng = more(num_heads=heads), np.random.default_rng(0)
    for draw in (rng.normal, lambda size: rng.integers(-2, 3, size)):
        arrays = draw(size=(2, QUERY)), draw(size=(2, 4, KEY)), draw(size=(2, 4, 3))
        want = attention(*(np.float32(x) for x in arrays))
        memory = attention.project(*arrays[1:])
        for results in (attention(*arrays), attention.attend(arrays[0], memory)):
            for got, expected in zip(results, want, strict=True):
                assert got.dtype == jnp.float32
                np.testing.assert_array_equal(got, expected)
    scores = rng.normal(size=(2, 4))
    np.testing.assert_array_equal(
        masked_softmax(scores, scores > 0), masked_softmax(jnp.asarray(scores), scores > 0)
    )
    assert not recwarn.list


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_heads": 2, "normalized": True}])
def test_attention_passes_where_jax_refuses_to_promote_ranks(options):
    attention, (_, query, keys, mask) = more(**options), make()
    bias = np.linspace(-1, 1, TIME, dtype=np.float32)
    for queries in (query, np.stack([query, -query], axis=1)):
        want = attention(queries, keys, mask=jnp.array(mask), bias=bias)
        with jax.numpy_rank_promotion("raise"):
            got = attention(queries, keys, mask=jnp.array(mask), bias=bias)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)
