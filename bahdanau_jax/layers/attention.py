"""Additive attention with exact masks (Bahdanau, Cho and Bengio 2015, arXiv 1409.0473, 3.1 and A.1.2).

`additive_attention()` is the pure function, and `BahdanauAttention` holds the weights.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from bahdanau_jax.layers.dtypes import floating


def masked_softmax(
    scores: Float[Array, "... time"], mask: Bool[Array, "... time"] | None = None
) -> Float[Array, "... time"]:
    """Softmax over the last axis, in float32 or wider, exactly 0 where `mask` is False.

    A fully masked row gives zeros and a zero gradient. (Adding -inf to the scores would give NaN.)

    Example:
      >>> import jax.numpy as jnp
      >>> masked_softmax(jnp.zeros(4), jnp.array([True, True, False, False])).tolist()
      [0.5, 0.5, 0.0, 0.0]
    """
    scores = floating(scores)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    mask, lowest = jnp.asarray(mask), jnp.finfo(scores.dtype).min
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
    mask: Bool[Array, "batch time"] | None = None,
    bias: Float[Array, "#batch #queries #time"] | None = None,
) -> tuple[Float[Array, "batch queries value_features"], Float[Array, "batch queries time"]]:
    """Averages `values`, weighted by score(query, key) = score_kernel . tanh(projected_key + projected_query).

    Query and keys are already projected (W2 query, W1 key), so a decoder projects its keys only once, as
    the paper's A.1.2 recommends.

    Args:
      projected_query: W2 query, plus the bias if there is one.
      projected_keys: W1 key.
      values: the vectors to average.
      score_kernel: v.
      mask: True where a position is real. None: all are.
      bias: finite values added to the scores, for example for the distance of two positions. None: no bias.

    Returns:
      context [batch, queries, value_features] in the dtype of `values`, and weights
      [batch, queries, time] in float32 or wider. Weights are exactly 0 where masked and sum to 1 in each
      row; a row without real positions gives zeros.

    Example:
      >>> import jax.numpy as jnp
      >>> context, weights = additive_attention(
      ...     jnp.zeros((1, 1, 2)), jnp.zeros((1, 4, 2)), jnp.ones((1, 4, 3)), jnp.ones(2))
      >>> weights[0, 0].tolist(), context.shape
      ([0.25, 0.25, 0.25, 0.25], (1, 1, 3))
    """
    projected_query, projected_keys, values, score_kernel = (
        floating(x) for x in (projected_query, projected_keys, values, score_kernel)
    )
    if mask is not None:
        mask = jnp.asarray(mask)
        real = mask[:, :, None]
        projected_keys, values = jnp.where(real, projected_keys, 0), jnp.where(real, values, 0)
    return _attend(projected_query, projected_keys, values, score_kernel, bias, mask)


def _attend(projected_query, projected_keys, values, score_kernel, bias, mask):
    """`additive_attention` for keys and values that are finite at masked positions."""
    # [batch, queries, time, units]
    hidden = jnp.tanh(projected_keys[:, None, :, :] + projected_query[:, :, None, :])
    accumulate = jnp.promote_types(hidden.dtype, jnp.float32)
    scores = jnp.einsum("bqtu,u->bqt", hidden, score_kernel, preferred_element_type=accumulate)
    if bias is not None:
        scores += jnp.broadcast_to(bias, scores.shape)
    weights = masked_softmax(scores, None if mask is None else mask[:, None, :])
    context = jnp.einsum(
        "bqt,btv->bqv", weights.astype(values.dtype), values, preferred_element_type=accumulate
    )
    return context.astype(values.dtype), weights


class Memory(NamedTuple):
    """Keys projected once, with values and mask, for a decoder that attends to them at every step."""

    projected_keys: Float[Array, "batch time heads*units"]
    values: Float[Array, "batch time value_features"]
    mask: Bool[Array, "batch time"] | None


class BahdanauAttention(nnx.Module):
    """Additive attention with its weights: W2 `query_kernel`, W1 `key_kernel`, v `score_kernel`, one bias.

    score(query, key) = v . tanh(W1 key + W2 query + bias). The paper has no bias. The usual Keras layer has
    one in W1 and one in W2, which act as their sum, and one after v, which the softmax cancels.

    Args:
      query_features, key_features: sizes of queries and keys.
      units: size of the hidden layer of each head.
      num_heads: number of heads. Each has its own v, W1, W2 and bias and weights all values; their contexts
        are concatenated.
      normalized: use g * v / |v| for v, with a trained scale g (`score_scale`) that starts at
        1 / sqrt(units). This is weight normalization (Salimans and Kingma 2016, arXiv 1602.07868), as in
        `normed_bahdanau` of TensorFlow's NMT (Luong et al. 2017).
      dtype: dtype of the matrix products. None: that of query and keys. The softmax stays float32.
      rngs: stream `params`.

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
        num_heads: int = 1,
        normalized: bool = False,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.glorot_uniform()
        self.dtype, self.num_heads = dtype, num_heads
        self.query_kernel = nnx.Param(_per_head(init, rngs, num_heads, (query_features, units)))
        self.key_kernel = nnx.Param(_per_head(init, rngs, num_heads, (key_features, units)))
        self.bias = nnx.Param(jnp.zeros(num_heads * units))
        # Glorot over [units, 1], as a Dense(1) would start; [heads * units].
        self.score_kernel = nnx.Param(_per_head(init, rngs, num_heads, (units, 1)).T.reshape(-1))
        scale = jnp.full(num_heads, units**-0.5)
        self.score_scale = nnx.Param(scale) if normalized else None

    def __call__(
        self,
        query: Float[Array, "batch query_features"] | Float[Array, "batch queries query_features"],
        keys: Float[Array, "batch time key_features"],
        values: Float[Array, "batch time value_features"] | None = None,
        mask: Bool[Array, "batch time"] | None = None,
        *,
        bias: Float[Array, "..."] | None = None,
    ) -> tuple[Array, Array]:
        """Attends to `keys` and returns the weighted average of `values`.

        Args:
          query: [batch, query_features], or [batch, queries, query_features] for several queries.
          keys: [batch, time, key_features].
          values: [batch, time, value_features]. None: the keys.
          mask: [batch, time] bool, True where a position is real. None: all are.
          bias: finite values added to the scores before the softmax. Its shape broadcasts to that of the
            weights. None: no bias.

        Returns:
          context [batch, (queries,) heads * value_features] and weights [batch, (queries,) (heads,) time].
          The weights have an axis of heads only if `num_heads` is above 1.

        Raises:
          ValueError: shapes or the mask's dtype are wrong; the message names what was expected and found.
        """
        query, keys = floating(query), floating(keys)
        self._check_query(query, keys.shape[0])
        dtype = self.dtype or jnp.result_type(query, keys)
        return self.attend(query, self._project(keys, values, mask, dtype), bias=bias)

    def project(
        self,
        keys: Float[Array, "batch time key_features"],
        values: Float[Array, "batch time value_features"] | None = None,
        mask: Bool[Array, "batch time"] | None = None,
    ) -> Memory:
        """Projects the keys once, for queries that follow one after another; see `attend`."""
        keys = floating(keys)
        return self._project(keys, values, mask, self.dtype or keys.dtype)

    def attend(
        self,
        query: Float[Array, "batch query_features"] | Float[Array, "batch queries query_features"],
        memory: Memory,
        *,
        bias: Float[Array, "..."] | None = None,
    ) -> tuple[Array, Array]:
        """Attends to projected keys: the second half of `__call__`, which calls `project` and `attend`.

        Example:
          >>> import jax.numpy as jnp
          >>> from flax import nnx
          >>> attention = BahdanauAttention(query_features=6, key_features=4, units=8, rngs=nnx.Rngs(0))
          >>> memory = attention.project(jnp.ones((2, 5, 4)))  # once
          >>> for query in jnp.ones((3, 2, 6)):  # three steps of a decoder
          ...     context, weights = attention.attend(query, memory)
          >>> context.shape, weights.shape
          ((2, 4), (2, 5))
        """
        query = floating(query)
        projected_keys, values, mask = memory
        self._check_query(query, values.shape[0])
        dtype = values.dtype
        kernel, added, scorer = (
            parameter[...].astype(dtype)
            for parameter in (self.query_kernel, self.bias, self.score_kernel)
        )
        queries = query[:, None, :] if query.ndim == 2 else query
        # [batch, queries, heads*units]
        projected = queries.astype(dtype) @ kernel + added[None, None]
        if bias is not None and query.ndim == 2 and bias.ndim > 1:
            bias = jnp.expand_dims(bias, 1)  # [batch, 1, (heads,) time]
        heads = self.num_heads
        units = scorer.size // heads
        scorer = scorer.reshape(heads, units)
        if self.score_scale is not None:
            length = jnp.linalg.norm(scorer.astype(jnp.float32), axis=1, keepdims=True)
            scorer = (self.score_scale[...][:, None] * scorer / length).astype(dtype)
        if heads == 1:
            context, weights = _attend(projected, projected_keys, values, scorer[0], bias, mask)
        else:
            split = [x.reshape(*x.shape[:2], heads, units) for x in (projected, projected_keys)]
            if bias is not None:  # [batch, queries, heads, time]
                bias = jnp.broadcast_to(bias, (*split[0].shape[:3], values.shape[1]))
            axes = (2, 2, None, 0, None if bias is None else 2, None)
            each: Any = jax.vmap(_attend, in_axes=axes, out_axes=2)
            context, weights = each(*split, values, scorer, bias, mask)
            context = context.reshape(*context.shape[:2], heads * values.shape[2])
        return (context[:, 0], weights[:, 0]) if query.ndim == 2 else (context, weights)

    def _project(self, keys, values, mask, dtype) -> Memory:
        values = None if values is None else floating(values)
        mask = None if mask is None else jnp.asarray(mask)
        self._check_keys(keys, keys if values is None else values, mask)

        def clean(x):
            # Otherwise a NaN at a masked position gets into the weights' gradient: 0 * NaN is NaN.
            return (x if mask is None else jnp.where(mask[:, :, None], x, 0)).astype(dtype)

        keys = clean(keys)
        values = keys if values is None else clean(values)
        # One product over batch and time: XLA's gradient of a batched product is slower on CPUs.
        batch, time, features = keys.shape
        kernel = self.key_kernel[...].astype(dtype)
        projected = keys.reshape(batch * time, features) @ kernel
        return Memory(projected.reshape(batch, time, kernel.shape[1]), values, mask)

    def _check_query(self, query, batch: int) -> None:
        query_features = self.query_kernel.shape[0]
        if query.ndim not in (2, 3) or query.shape[-1] != query_features:
            expected = f"[batch, (queries,) {query_features}]"
            raise ValueError(f"query: expected {expected}, got shape {query.shape}")
        if query.shape[0] != batch:
            raise ValueError(
                f"query: expected a batch of {batch}, as the keys have, got {query.shape}"
            )

    def _check_keys(self, keys, values, mask) -> None:
        key_features = self.key_kernel.shape[0]
        batch_time = (keys.shape[0], keys.shape[1] if keys.ndim > 1 else "time")
        if keys.shape != (*batch_time, key_features):
            raise ValueError(f"keys: expected {(*batch_time, key_features)}, got {keys.shape}")
        if values.ndim != 3 or values.shape[:2] != batch_time:
            raise ValueError(f"values: expected {batch_time} + (features,), got {values.shape}")
        if mask is not None and (mask.shape != batch_time or mask.dtype != jnp.bool_):
            found = f"{mask.dtype} {mask.shape}"
            raise ValueError(f"mask: expected bool {batch_time}, True = real, got {found}")


def _per_head(init, rngs: nnx.Rngs, num_heads: int, shape: tuple[int, int]) -> Array:
    """Initializes a matrix [in, heads * out], each head's part as that of a single head."""
    if num_heads == 1:
        return init(rngs.params(), shape)
    keys = jax.random.split(rngs.params(), num_heads)
    return jnp.concatenate([init(key, shape) for key in keys], axis=1)
