"""Masks of each query and masks of queries against loops in float64 NumPy, Keras and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bahdanau_jax.layers import BahdanauAttention, additive_attention

BATCH, QUERIES, TIME, QUERY, KEY, UNITS = 3, 4, 5, 3, 2, 4
CAUSAL = np.tril(np.ones((1, TIME, TIME), bool))


def make(**options):
    """An attention, queries, keys, masks [batch, queries, time] and [batch, queries]."""
    rng = np.random.default_rng(0)
    attention = BahdanauAttention(QUERY, KEY, UNITS, rngs=nnx.Rngs(0), **options)
    attention.bias[...] = jnp.asarray(rng.normal(size=attention.bias.shape), jnp.float32)
    query = rng.normal(size=(BATCH, QUERIES, QUERY)).astype(np.float32)
    keys = rng.normal(size=(BATCH, TIME, KEY)).astype(np.float32)
    mask = rng.random((BATCH, QUERIES, TIME)) < 0.6
    mask[:, :, 2] = False  # a position that no query sees
    mask[0, 1] = False  # a query that sees nothing
    query_mask = rng.random((BATCH, QUERIES)) < 0.7
    query_mask[1, 2] = False
    return attention, query, keys, mask, query_mask


def formula(attention, query, keys, mask, query_mask):
    """Contexts, weights and scores of one head, query by query in float64; 0 where masked."""
    w1, w2, bias, v = (
        np.asarray(getattr(attention, name)[...], np.float64)
        for name in ("key_kernel", "query_kernel", "bias", "score_kernel")
    )
    scores, weights = np.zeros(mask.shape), np.zeros(mask.shape)
    contexts = np.zeros((*mask.shape[:2], keys.shape[-1]))
    for b, q in np.argwhere(query_mask & mask.any(2)):
        real = np.flatnonzero(mask[b, q])
        scores[b, q, real] = [v @ np.tanh(keys[b, t] @ w1 + query[b, q] @ w2 + bias) for t in real]
        e = np.exp(scores[b, q, real])
        weights[b, q, real] = e / e.sum()
        contexts[b, q] = weights[b, q] @ keys[b]
    return contexts, weights, scores


def close(got, want, atol=1e-6):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def test_equals_the_formula_query_by_query():
    attention, query, keys, mask, query_mask = make()
    got = attention(query, keys, mask=mask, query_mask=query_mask, return_scores=True)
    close(got, formula(attention, query, keys, mask, query_mask))
    memory = attention.project(keys, mask=mask)
    close(attention.attend(query, memory, query_mask=query_mask), got[:2], atol=0)
    # A bias changes the scores that are returned, and leaves those under the mask at 0.
    bias = np.linspace(-1, 1, TIME, dtype=np.float32)
    biased = attention(query, keys, mask=mask, query_mask=query_mask, bias=bias, return_scores=True)
    np.testing.assert_allclose(biased[2], np.where(got[1] > 0, got[2] + bias, 0), atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2])
def test_masked_positions_and_queries_change_nothing_and_get_no_gradient(heads):
    attention, query, keys, mask, query_mask = make(num_heads=heads)

    @jax.jit
    def gradients(query, keys):
        def loss(query, keys):
            context, weights, scores = attention(
                query, keys, mask=mask, query_mask=query_mask, return_scores=True
            )
            total = jnp.sum(jnp.sin(context)) + jnp.sum(weights**2) + jnp.sum(scores**2)
            return total, (context, weights, scores)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(query, keys)

    clean = gradients(query, keys)
    (_, (context, weights, scores)), (of_query, of_keys) = clean
    query[~query_mask] = np.nan
    keys[:, 2] = np.nan
    for got, want in zip(
        jax.tree.leaves(gradients(query, keys)), jax.tree.leaves(clean), strict=True
    ):
        np.testing.assert_array_equal(got, want)
    seen = mask & query_mask[:, :, None]
    for x in (weights, scores):
        by_head = np.asarray(x).reshape(BATCH, QUERIES, heads, TIME).swapaxes(1, 2)
        assert all((x[~seen] == 0).all() and (x[seen] != 0).all() for x in by_head.swapaxes(0, 1))
    assert (np.asarray(context)[~seen.any(2)] == 0).all()
    assert (np.asarray(of_query)[~seen.any(2)] == 0).all()
    assert (np.asarray(of_keys)[~seen.any(1)] == 0).all()
    assert np.asarray(of_keys)[seen.any(1)].all()


@pytest.mark.slow
def test_masks_may_broadcast_over_the_batch_or_the_queries():
    attention, query, keys, mask, query_mask = make()
    for small in (mask[:1], mask[:, :1], mask[:1, :1]):
        wide = np.broadcast_to(small, mask.shape)
        close(attention(query, keys, mask=small), attention(query, keys, mask=wide), atol=0)
    close(attention(query, keys, mask=mask[:, 3]), attention(query, keys, mask=mask[:, 3:]))
    # One query a row: masks of [batch, time] and [batch, 1, time], and a query mask of [batch].
    single, single_mask = query[:, 1], query_mask[:, 1]
    want = attention(query[:, 1:2], keys, mask=mask[:, 1:2], query_mask=query_mask[:, 1:2])
    for one in (mask[:, 1], mask[:, 1:2]):
        got = attention(single, keys, mask=one, query_mask=single_mask)
        close(got, [x[:, 0] for x in want])


@pytest.mark.slow
def test_equals_keras_with_a_causal_mask_a_padding_mask_and_a_query_mask():
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    rng = np.random.default_rng(1)
    query, keys, values = rng.normal(size=(3, 2, TIME, UNITS)).astype(np.float32)
    query_mask = np.arange(TIME) < np.array([[5], [3]])
    value_mask = np.array([[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]], bool)
    layer = keras.layers.AdditiveAttention()
    layer.build([query.shape, values.shape, keys.shape])
    scale = rng.normal(size=UNITS).astype(np.float32)

    def theirs(query, keys, values, scale):
        (context, weights), _ = layer.stateless_call(
            [scale], [], [query, values, keys], mask=[query_mask, value_mask],
            use_causal_mask=True, return_attention_scores=True,
        )  # fmt: skip
        return context, jnp.where(query_mask[:, :, None], weights, 0)

    def ours(query, keys, values, scale):
        mask = CAUSAL & value_mask[:, None]
        return additive_attention(query, keys, values, scale, mask=mask, query_mask=query_mask)

    def gradient(function):
        def loss(*arguments):
            return sum(jnp.sum(jnp.sin(3 * x)) for x in function(*arguments))

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(query, keys, values, scale)

    arguments = query, keys, values, scale
    close(ours(*arguments), theirs(*arguments))
    close(gradient(ours), gradient(theirs), atol=1e-5)


@pytest.mark.slow
def test_gradients_equal_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(2)
    shapes = [(BATCH, TIME, UNITS)] * 2 + [(BATCH, TIME, KEY), (UNITS,)]
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    mask = CAUSAL & (rng.random((BATCH, TIME, TIME)) < 0.7) | np.eye(TIME, dtype=bool)
    of_weights = rng.normal(size=mask.shape).astype(np.float32)
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    query, keys, values, v = tensors
    scores = torch.tanh(query[:, :, None] + keys[:, None]) @ v
    weights = torch.softmax(scores.masked_fill(~torch.tensor(mask), -torch.inf), dim=-1)
    total = ((weights @ values) ** 2).sum() + (weights * torch.tensor(of_weights)).sum()
    total.backward()

    @jax.jit
    def loss(arrays):
        context, weights = additive_attention(*arrays, mask=mask)
        return jnp.sum(context**2) + jnp.sum(weights * of_weights)

    value, gradients = jax.value_and_grad(loss)(arrays)
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    close(gradients, [x.grad.numpy() for x in tensors], atol=1e-5)


@pytest.mark.slow
def test_every_transformation_applies_to_calls_outside_jit():
    rng = np.random.default_rng(3)
    shapes = [(2, TIME, 2), (2, TIME, 2), (2, TIME, 2), (2,)]
    arguments = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]

    def ours(*arguments):
        return jnp.sum(jnp.sin(additive_attention(*arguments, mask=CAUSAL)[0]))

    def plain(query, keys, values, v):
        scores = jnp.tanh(query[:, :, None] + keys[:, None]) @ v
        weights = jax.nn.softmax(jnp.where(CAUSAL, scores, -1e9), axis=-1)
        return jnp.sum(jnp.sin(weights @ values))

    def derivatives(f):
        gradient = jax.grad(f, argnums=(0, 3))
        stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), arguments)
        return jax.tree.leaves(
            (
                jax.jvp(gradient, arguments, arguments)[1],
                jax.vmap(gradient)(*stacked),
                jax.jacfwd(f, argnums=1)(*arguments),
            )
        )

    close(derivatives(ours), jax.jit(lambda: derivatives(plain))(), atol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(ours(*arguments), plain(*arguments), atol=1e-5)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (dict(mask=np.ones((3, 4))), r"mask: expected bool \(3, 5\), True = real, got float"),
        (dict(mask=np.ones((3, 4), bool)), r"mask: expected bool \(3, 5\), True = real, got bool"),
        (dict(mask=np.ones((2, 4, 5), bool)), r"mask: expected bool .* got bool \(2, 4, 5\)"),
        (dict(mask=np.ones((3, 2, 5), bool)), r"mask: expected \(batch, 4, time\), got .*\(3, 2, 5\)"),
        (dict(query_mask=np.ones((3, 5), bool)), r"query_mask: expected bool \(3, 4\), .*\(3, 5\)"),
        (dict(query_mask=np.ones((3, 4), int)), r"query_mask: expected bool \(3, 4\), .*got int"),
    ],
)  # fmt: skip
def test_a_wrong_mask_is_named(masks, message):
    attention, query, keys, *_ = make()
    with pytest.raises(ValueError, match=message):
        attention(query, keys, **masks)
    with pytest.raises(ValueError, match=message):
        additive_attention(np.ones((3, 4, 2)), np.ones((3, 5, 2)), keys, np.ones(2), **masks)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3, 2), (3, 5, 2), (3, 5, 2), (2,)), "projected_query and projected_keys: expected three"),
        (((3, 4, 1), (3, 5, 2), (3, 5, 2), (2,)), r"projected_query: expected shape \(3, 4, 2\)"),
        (((3, 4, 2), (2, 5, 2), (3, 5, 2), (2,)), r"projected_keys: expected shape \(3, 5, 2\)"),
        (((3, 4, 2), (3, 5, 2), (3, 4, 2), (2,)), r"values: expected shape \(3, 5, 2\)"),
        (((3, 4, 2), (3, 5, 2), (3, 5, 2), (3,)), r"score_kernel: expected shape \(2,\), got \(3,\)"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named_by_the_function(shapes, message):
    with pytest.raises(ValueError, match=message):
        additive_attention(*(np.ones(shape) for shape in shapes))
