"""Additive attention (Bahdanau, Cho and Bengio 2015, arXiv 1409.0473, section 3.1 and A.1.2), masked exactly.

`additive_attention()` is the pure function; `BahdanauAttention` holds its weights.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


def masked_softmax(
    scores: Float[Array, "... time"], mask: Bool[Array, "... time"] | None = None
) -> Float[Array, "... time"]:
    """Softmax over the last axis, in float32 or wider, exactly 0 where `mask` is False.

    A row without a True gives zeros: finite, and with a zero gradient. (A mask of -inf gives NaN there.)

    Example:
      >>> import jax.numpy as jnp
      >>> masked_softmax(jnp.zeros(4), jnp.array([True, True, False, False])).tolist()
      [0.5, 0.5, 0.0, 0.0]
    """
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    lowest = jnp.finfo(scores.dtype).min
    top = jnp.max(scores, axis=-1, keepdims=True, where=mask, initial=lowest)
    # The inner `where` keeps a NaN or infinite score under the mask out of the gradient as well.
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
    mask: Bool[Array, "batch time"] | None = None,
) -> tuple[Float[Array, "batch queries value_features"], Float[Array, "batch queries time"]]:
    """Weighs `values` by score(query, key) = score_kernel . tanh(projected_key + projected_query).

    Query and keys come projected (W2 query, W1 key), so that a decoder projects its keys only once
    (the paper's A.1.2 makes the same remark).

    Args:
      projected_query: W2 query, plus the bias if there is one.
      projected_keys: W1 key.
      values: what is averaged.
      score_kernel: v.
      mask: True where a position is real; None: all are.

    Returns:
      context [batch, queries, value_features] in the values' dtype, and weights
      [batch, queries, time], float32 or wider: rows sum to 1, exactly 0 where masked, all zeros
      for a row with no real position.

    Example:
      >>> import jax.numpy as jnp
      >>> context, weights = additive_attention(
      ...     jnp.zeros((1, 1, 2)), jnp.zeros((1, 4, 2)), jnp.ones((1, 4, 3)), jnp.ones(2))
      >>> weights[0, 0].tolist(), context.shape
      ([0.25, 0.25, 0.25, 0.25], (1, 1, 3))
    """
    if mask is not None:
        real = mask[:, :, None]
        projected_keys, values = jnp.where(real, projected_keys, 0), jnp.where(real, values, 0)
    return _attend(projected_query, projected_keys, values, score_kernel, mask)


def _attend(projected_query, projected_keys, values, score_kernel, mask):
    """`additive_attention`, where what stands at masked positions is finite."""
    # [batch, queries, time, units]
    hidden = jnp.tanh(projected_keys[:, None, :, :] + projected_query[:, :, None, :])
    accumulate = jnp.promote_types(hidden.dtype, jnp.float32)
    scores = jnp.einsum("bqtu,u->bqt", hidden, score_kernel, preferred_element_type=accumulate)
    weights = masked_softmax(scores, None if mask is None else mask[:, None, :])
    context = jnp.einsum(
        "bqt,btv->bqv", weights.astype(values.dtype), values, preferred_element_type=accumulate
    )
    return context.astype(values.dtype), weights


class BahdanauAttention(nnx.Module):
    """Additive attention with its weights: W2 `query_kernel`, W1 `key_kernel`, v `score_kernel`, one bias.

    score(query, key) = v . tanh(W1 key + W2 query + bias). The paper has no bias; the usual Keras layer
    has one in each of W1 and W2, which is the same as their sum, and one behind v, which the softmax
    cancels.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> attention = BahdanauAttention(query_features=6, key_features=4, units=8, rngs=nnx.Rngs(0))
      >>> context, weights = attention(jnp.ones((2, 6)), jnp.ones((2, 5, 4)))
      >>> context.shape, weights.shape
      ((2, 4), (2, 5))
    """

    def __init__(
        self,
        query_features: int,
        key_features: int,
        units: int,
        *,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.glorot_uniform()
        self.dtype = dtype
        self.query_kernel = nnx.Param(init(rngs.params(), (query_features, units)))
        self.key_kernel = nnx.Param(init(rngs.params(), (key_features, units)))
        self.bias = nnx.Param(jnp.zeros(units))
        # Glorot over [units, 1], as a Dense(1) would start.
        self.score_kernel = nnx.Param(init(rngs.params(), (units, 1))[:, 0])

    def __call__(
        self,
        query: Float[Array, "batch query_features"] | Float[Array, "batch queries query_features"],
        keys: Float[Array, "batch time key_features"],
        values: Float[Array, "batch time value_features"] | None = None,
        mask: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Array, Array]:
        """Attends.

        Args:
          query: [batch, query_features], or [batch, queries, query_features] for several.
          keys: [batch, time, key_features].
          values: [batch, time, value_features]; None: the keys.
          mask: [batch, time] bool, True where a position is real; None: all are.

        Returns:
          context [batch, (queries,) value_features] and weights [batch, (queries,) time].

        Raises:
          ValueError: where shapes disagree, naming what was expected and what came.
        """
        self._check_shapes(query, keys, keys if values is None else values, mask)
        dtype = self.dtype or jnp.result_type(query, keys)
        query_kernel, key_kernel, bias, score_kernel = (
            parameter[...].astype(dtype)
            for parameter in (self.query_kernel, self.key_kernel, self.bias, self.score_kernel)
        )

        def clean(x):
            # Before the projection, whose weights' gradient would make 0 * NaN of what is masked.
            return (x if mask is None else jnp.where(mask[:, :, None], x, 0)).astype(dtype)

        keys = clean(keys)
        values = keys if values is None else clean(values)
        # As one product over batch and time: XLA's gradient of the other form is slower on CPUs.
        projected_keys = keys.reshape(-1, keys.shape[-1]) @ key_kernel
        queries = query[:, None, :] if query.ndim == 2 else query
        context, weights = _attend(
            queries.astype(dtype) @ query_kernel + bias,
            projected_keys.reshape(*keys.shape[:2], -1),
            values,
            score_kernel,
            mask,
        )
        return (context[:, 0], weights[:, 0]) if query.ndim == 2 else (context, weights)

    def _check_shapes(self, query, keys, values, mask) -> None:
        query_features, key_features = self.query_kernel.shape[0], self.key_kernel.shape[0]
        if query.ndim not in (2, 3) or query.shape[-1] != query_features:
            expected = f"[batch, (queries,) {query_features}]"
            raise ValueError(f"query: expected {expected}, got shape {query.shape}")
        batch_time = (query.shape[0], keys.shape[1] if keys.ndim > 1 else "time")
        if keys.shape != (*batch_time, key_features):
            raise ValueError(f"keys: expected {(*batch_time, key_features)}, got {keys.shape}")
        if values.ndim != 3 or values.shape[:2] != batch_time:
            raise ValueError(f"values: expected {batch_time} + (features,), got {values.shape}")
        if mask is not None and (mask.shape != batch_time or mask.dtype != jnp.bool_):
            found = f"{mask.dtype} {mask.shape}"
            raise ValueError(f"mask: expected bool {batch_time}, True = real, got {found}")
