"""Additive attention as pure functions: `masked_softmax()` and `additive_attention()`."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.masks import check_mask, mask_of

AttentionMask = Bool[Array, "batch time"] | Bool[Array, "#batch #queries time"]


def masked_softmax(
    scores: Float[Array, "... time"], mask: Bool[Array, "..."] | None = None
) -> Float[Array, "... time"]:
    """Softmax over the last axis, in float32 or wider, exactly 0 where `mask` is False.

    A fully masked row gives zeros and a zero gradient. (Adding -inf to the scores would give NaN.)

    Raises:
      ValueError: `mask` is not boolean, or its shape does not broadcast to that of `scores`.

    Example:
      >>> import jax.numpy as jnp
      >>> masked_softmax(jnp.zeros(4), jnp.array([True, True, False, False])).tolist()
      [0.5, 0.5, 0.0, 0.0]
    """
    scores = floating(scores)
    if mask is not None:
        mask = jnp.asarray(mask)
        try:
            fits = jnp.broadcast_shapes(mask.shape, scores.shape) == scores.shape
        except ValueError:
            fits = False
        if not fits or mask.dtype != jnp.bool_:
            expected, found = f"bool, as the scores {scores.shape}", f"{mask.dtype} {mask.shape}"
            raise ValueError(f"mask: expected {expected}, True = real, got {found}")
    return _softmax(scores, mask)


@partial(jax.jit, inline=True)
def _softmax(scores, mask):
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    lowest = jnp.finfo(scores.dtype).min
    top = jnp.max(scores, axis=-1, keepdims=True, where=mask, initial=lowest)
    # The inner `where` also keeps NaN and infinite scores under the mask out of the gradient.
    shifted = jnp.where(mask, scores - jax.lax.stop_gradient(top), 0)
    exponentials = jnp.where(mask, jnp.exp(shifted), 0)
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    return exponentials / jnp.where(total > 0, total, 1)


def additive_attention(
    projected_query: Float[Array, "batch queries units"],
    projected_keys: Float[Array, "batch time units"],
    values: Float[Array, "batch time value_features"],
    score_kernel: Float[Array, "units"],
    *,
    mask: AttentionMask | None = None,
    lengths: Int[Array, "batch"] | None = None,
    query_mask: Bool[Array, "batch queries"] | None = None,
    bias: Float[Array, "#batch #queries #time"] | None = None,
    weight_scale: Float[Array, "#batch #queries #time"] | None = None,
    return_scores: bool = False,
) -> tuple[Array, ...]:
    """Averages `values`, weighted by score(query, key) = score_kernel . tanh(projected_key + projected_query).

    Query and keys are already projected (W2 query, W1 key), so a decoder projects its keys only once, as
    the paper's A.1.2 recommends.

    Args:
      projected_query: W2 query, plus the bias if there is one.
      projected_keys: W1 key.
      values: the vectors to average.
      score_kernel: v.
      mask: True where a position is real: [batch, time], or [batch, queries, time] for one mask per query
        (batch or queries may be 1). None: all are real. Keys and values that no query may see are ignored,
        even NaN.
      lengths: instead of `mask`, the number of real positions in each row, which come first.
      query_mask: True where a query is real. The others get zeros and no gradient. None: all are.
      bias: finite values added to the scores, for example for the distance of two positions. None: no bias.
      weight_scale: multiplies the weights, as a dropout mask. It gets no gradient. None: ones.
      return_scores: return the scores too.

    Returns:
      context [batch, queries, value_features] in the dtype of `values`, and weights
      [batch, queries, time] in float32 or wider. Weights are exactly 0 where masked and sum to 1 in each
      row (before `weight_scale`); a row without real positions gives zeros. With `return_scores`, also the
      scores [batch, queries, time], 0 where masked: the softmax's input, `bias` included.

    Raises:
      ValueError: a shape or a mask's dtype is wrong; the message names what was expected and found.

    Example:
      >>> import jax.numpy as jnp
      >>> context, weights = additive_attention(
      ...     jnp.zeros((1, 1, 2)), jnp.zeros((1, 4, 2)), jnp.ones((1, 4, 3)), jnp.ones(2))
      >>> weights[0, 0].tolist(), context.shape
      ([0.25, 0.25, 0.25, 0.25], (1, 1, 3))

      A causal mask, as of a decoder that reads its own outputs:

      >>> causal = jnp.tril(jnp.ones((1, 3, 3), bool))
      >>> same = jnp.zeros((1, 3, 2))
      >>> _, weights = additive_attention(same, same, same, jnp.ones(2), mask=causal)
      >>> weights[0, 1].tolist()
      [0.5, 0.5, 0.0]
    """
    projected_query, projected_keys, values, score_kernel = (
        floating(x) for x in (projected_query, projected_keys, values, score_kernel)
    )
    if projected_keys.ndim != 3 or projected_query.ndim != 3:
        found = f"{projected_query.shape} and {projected_keys.shape}"
        raise ValueError(f"projected_query and projected_keys: expected three axes, got {found}")
    (batch, queries, _), (_, time, units) = projected_query.shape, projected_keys.shape
    for name, array, expected in (
        ("projected_query", projected_query, (batch, queries, units)),
        ("projected_keys", projected_keys, (batch, time, units)),
        ("values", values, (batch, time, *values.shape[2:3])),
        ("score_kernel", score_kernel, (units,)),
    ):
        if array.shape != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")
    mask = attention_mask(mask, lengths, batch, time)
    if mask is not None and mask.ndim == 3:
        check_queries(mask, queries)
    if query_mask is not None:
        query_mask = jnp.asarray(query_mask)
        check_mask("query_mask", query_mask, (batch, queries))
    return attend(
        clean(projected_query, query_mask),
        clean(projected_keys, mask),
        clean(values, mask),
        score_kernel,
        for_queries(mask, query_mask),
        bias,
        weight_scale,
        return_scores=return_scores,
    )


def attention_mask(mask, lengths, batch: int, time: int) -> AttentionMask | None:
    """`masks.mask_of`, for masks that may have an axis of queries."""
    if mask is None or lengths is not None or jnp.ndim(mask) == 2:
        return mask_of(mask, lengths, batch, time)
    mask = jnp.asarray(mask)
    shape = mask.shape if mask.ndim == 3 else (0, 0, 0)
    if shape[0] not in (1, batch) or shape[2] != time or mask.dtype != jnp.bool_:
        expected = f"{(batch, time)} or ({batch}, queries, {time})"
        found = f"{mask.dtype} {mask.shape}"
        raise ValueError(f"mask: expected bool {expected}, True = real, got {found}")
    return mask


def check_queries(mask, queries: int = 1) -> None:
    """Raises a ValueError unless a mask [batch, queries, time] fits the number of queries."""
    if mask.shape[1] not in (1, queries):
        raise ValueError(f"mask: expected (batch, {queries}, time), got shape {mask.shape}")


def for_queries(mask, query_mask) -> Bool[Array, "#batch #queries #time"] | None:
    """Joins the masks of positions and queries into one that broadcasts to the weights."""
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, :]
    if query_mask is None:
        return mask
    return query_mask[:, :, None] if mask is None else mask & query_mask[:, :, None]


@partial(jax.jit, inline=True)
def clean(x: Float[Array, "batch time features"], mask) -> Float[Array, "batch time features"]:
    """Zeros where `mask` is False for every query. A NaN there would get into gradients: 0 * NaN is NaN."""
    if mask is None:
        return x
    real = mask if mask.ndim == 2 else mask.any(axis=1)
    return jnp.where(real[:, :, None], x, 0)


@partial(jax.jit, static_argnames="return_scores", inline=True)
def attend(
    projected_query,
    projected_keys,
    values,
    score_kernel,
    mask,
    bias,
    weight_scale,
    *,
    return_scores,
) -> tuple[Array, ...]:
    """`additive_attention` of arrays that are finite at masked positions and queries."""
    # [batch, queries, time, units]
    hidden = jnp.tanh(projected_keys[:, None, :, :] + projected_query[:, :, None, :])
    accumulate = jnp.promote_types(hidden.dtype, jnp.float32)
    scores = jnp.einsum("bqtu,u->bqt", hidden, score_kernel, preferred_element_type=accumulate)
    if bias is not None:
        scores += jnp.broadcast_to(bias, scores.shape)
    weights = _softmax(scores, mask)
    if weight_scale is not None:
        scale = jax.lax.stop_gradient(floating(weight_scale)).astype(weights.dtype)
        weights *= jnp.broadcast_to(scale, weights.shape)
    context = jnp.einsum(
        "bqt,btv->bqv", weights.astype(values.dtype), values, preferred_element_type=accumulate
    ).astype(values.dtype)
    if not return_scores:
        return context, weights
    return context, weights, scores if mask is None else jnp.where(mask, scores, 0)
