"""`BahdanauAttention`: additive attention with its weights (Bahdanau, Cho and Bengio 2015, arXiv 1409.0473).

attention_functions.py has the function without weights, `additive_attention()`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.attention_functions import (
    AttentionMask,
    attend,
    attention_mask,
    check_queries,
    clean,
    for_queries,
)
from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.masks import check_mask

_GLOROT = nnx.initializers.glorot_uniform()


class Memory(NamedTuple):
    """Keys projected once, with values and mask, for a decoder that attends to them at every step."""

    projected_keys: Float[Array, "batch time heads*units"]
    values: Float[Array, "batch time value_features"]
    mask: AttentionMask | None


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
      dropout: rate of dropout on the weights, after the softmax, as in Keras's `Attention(dropout=...)`. The
        returned weights then are those after dropout. `model.train()` switches it on, `model.eval()` off.
      dtype: dtype of the matrix products. None: that of query and keys. The softmax stays float32.
      kernel_init, score_kernel_init: initializers of W1 and W2, and of v. (The paper's B.1 draws W1 and W2
        from `normal(0.001)`, and v is zero.)
      bias_init: initializer of the bias. None: zeros.
      rngs: streams `params` and `dropout`.

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
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        kernel_init: Initializer = _GLOROT,
        score_kernel_init: Initializer = _GLOROT,
        bias_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        self.dtype, self.num_heads = dtype, num_heads
        self.query_kernel = nnx.Param(
            _per_head(kernel_init, rngs, num_heads, (query_features, units))
        )
        self.key_kernel = nnx.Param(_per_head(kernel_init, rngs, num_heads, (key_features, units)))
        shape = (num_heads * units,)
        bias = jnp.zeros(shape) if bias_init is None else bias_init(rngs.params(), shape)
        self.bias = nnx.Param(bias)
        # Initialized as [units, 1], as a Dense(1) would be; [heads * units].
        scorer = _per_head(score_kernel_init, rngs, num_heads, (units, 1))
        self.score_kernel = nnx.Param(scorer.T.reshape(-1))
        scale = jnp.full(num_heads, units**-0.5)
        self.score_scale = nnx.Param(scale) if normalized else None
        # Without dropout a layer holds no random state.
        self.dropout = nnx.Dropout(dropout, rngs=rngs if dropout else None)

    def __call__(
        self,
        query: Float[Array, "batch query_features"] | Float[Array, "batch queries query_features"],
        keys: Float[Array, "batch time key_features"],
        values: Float[Array, "batch time value_features"] | None = None,
        mask: AttentionMask | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
        query_mask: Bool[Array, "batch"] | Bool[Array, "batch queries"] | None = None,
        bias: Float[Array, "..."] | None = None,
        return_scores: bool = False,
    ) -> tuple[Array, ...]:
        """Attends to `keys` and returns the weighted average of `values`.

        Args:
          query: [batch, query_features], or [batch, queries, query_features] for several queries.
          keys: [batch, time, key_features].
          values: [batch, time, value_features]. None: the keys.
          mask: bool, True where a position is real: [batch, time], or [batch, queries, time] for one mask per
            query, such as a causal one (batch or queries may be 1). None: all are. Keys and values that no
            query may see are ignored, even NaN.
          lengths: [batch], instead of `mask`: the number of real positions in each row, which come first.
          query_mask: [batch(, queries)] bool, True where a query is real. The others get zeros and no
            gradient. None: all are.
          bias: finite values added to the scores before the softmax. Its shape broadcasts to that of the
            weights. None: no bias.
          return_scores: return the scores too, which the softmax takes; 0 where masked.

        Returns:
          context [batch, (queries,) heads * value_features], weights [batch, (queries,) (heads,) time] and,
          if asked for, the scores, shaped as the weights. Both have an axis of heads only if `num_heads` is
          above 1.

        Raises:
          ValueError: a shape or a mask's dtype is wrong; the message names what was expected and found.
        """
        query, keys = floating(query), floating(keys)
        self._check_query(query, keys.shape[0])
        memory = self._project(
            keys, values, mask, lengths, self.dtype or jnp.result_type(query, keys)
        )
        return self.attend(
            query, memory, query_mask=query_mask, bias=bias, return_scores=return_scores
        )

    def project(
        self,
        keys: Float[Array, "batch time key_features"],
        values: Float[Array, "batch time value_features"] | None = None,
        mask: AttentionMask | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
    ) -> Memory:
        """Projects the keys once, for queries that follow one after another; see `attend`."""
        keys = floating(keys)
        return self._project(keys, values, mask, lengths, self.dtype or keys.dtype)

    def attend(
        self,
        query: Float[Array, "batch query_features"] | Float[Array, "batch queries query_features"],
        memory: Memory,
        *,
        query_mask: Bool[Array, "batch"] | Bool[Array, "batch queries"] | None = None,
        bias: Float[Array, "..."] | None = None,
        return_scores: bool = False,
    ) -> tuple[Array, ...]:
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
        query, (batch, time, _) = floating(query), memory.values.shape
        self._check_query(query, batch)
        if query_mask is not None:
            query_mask = jnp.asarray(query_mask)
            check_mask("query_mask", query_mask, query.shape[:-1])
        queries, heads = query.shape[1:-1], self.num_heads
        if memory.mask is not None and memory.mask.ndim == 3:
            check_queries(memory.mask, *queries)
        scale = None
        if self.dropout.rate and not self.dropout.deterministic:
            shape = (batch, *queries, time) if heads == 1 else (batch, *queries, heads, time)
            scale = self.dropout(jnp.ones(shape))
        parameters = self.query_kernel, self.bias, self.score_kernel, self.score_scale
        return _attend_with_heads(
            tuple(None if p is None else p[...] for p in parameters),
            query,
            memory,
            query_mask,
            bias,
            scale,
            heads=heads,
            return_scores=return_scores,
        )

    def _project(self, keys, values, mask, lengths, dtype) -> Memory:
        values = keys if values is None else floating(values)
        self._check_keys(keys, values)
        mask = attention_mask(mask, lengths, *keys.shape[:2])
        values = None if values is keys else values
        return _project(self.key_kernel[...], keys, values, mask, dtype=jnp.dtype(dtype))

    def _check_query(self, query, batch: int) -> None:
        query_features = self.query_kernel.shape[0]
        if query.ndim not in (2, 3) or query.shape[-1] != query_features:
            expected = f"[batch, (queries,) {query_features}]"
            raise ValueError(f"query: expected {expected}, got shape {query.shape}")
        if query.shape[0] != batch:
            raise ValueError(
                f"query: expected a batch of {batch}, as the keys have, got {query.shape}"
            )

    def _check_keys(self, keys, values) -> None:
        key_features = self.key_kernel.shape[0]
        batch_time = (keys.shape[0], keys.shape[1] if keys.ndim > 1 else "time")
        if keys.shape != (*batch_time, key_features):
            raise ValueError(f"keys: expected {(*batch_time, key_features)}, got {keys.shape}")
        if values.ndim != 3 or values.shape[:2] != batch_time:
            raise ValueError(f"values: expected {batch_time} + (features,), got {values.shape}")


# Compiled as a whole where they are called outside `jax.jit`; operation by operation takes 5 times as long.


@partial(jax.jit, static_argnames="dtype", inline=True)
def _project(key_kernel, keys, values, mask, *, dtype) -> Memory:
    keys = clean(keys, mask).astype(dtype)
    values = keys if values is None else clean(values, mask).astype(dtype)
    # One product over batch and time: XLA's gradient of a batched product is slower on CPUs.
    batch, time, features = keys.shape
    kernel = key_kernel.astype(dtype)
    projected = keys.reshape(batch * time, features) @ kernel
    return Memory(projected.reshape(batch, time, kernel.shape[1]), values, mask)


@partial(jax.jit, static_argnames=("heads", "return_scores"), inline=True)
def _attend_with_heads(
    parameters, query, memory, query_mask, bias, weight_scale, *, heads, return_scores
):
    query_kernel, added, scorer, score_scale = parameters
    projected_keys, values, mask = memory
    dtype = values.dtype
    single = query.ndim == 2
    if single:
        query = query[:, None, :]
        query_mask = None if query_mask is None else query_mask[:, None]
        if bias is not None and bias.ndim > 1:
            bias = jnp.expand_dims(bias, 1)  # [batch, 1, (heads,) time]
        weight_scale = None if weight_scale is None else weight_scale[:, None]
    # [batch, queries, heads*units]
    projected = clean(query, query_mask).astype(dtype) @ query_kernel.astype(dtype)
    projected += added.astype(dtype)[None, None]
    scorer = scorer.astype(dtype).reshape(heads, -1)
    if score_scale is not None:
        length = jnp.linalg.norm(scorer.astype(jnp.float32), axis=1, keepdims=True)
        scorer = (score_scale[:, None] * scorer / length).astype(dtype)
    mask = for_queries(mask, query_mask)
    one_head = partial(attend, return_scores=return_scores)
    if heads == 1:
        results = one_head(projected, projected_keys, values, scorer[0], mask, bias, weight_scale)
    else:
        split = [x.reshape(*x.shape[:2], *scorer.shape) for x in (projected, projected_keys)]
        if bias is not None:  # [batch, queries, heads, time]
            bias = jnp.broadcast_to(bias, (*split[0].shape[:3], values.shape[1]))
        axes = [2, 2, None, 0, None, *(None if x is None else 2 for x in (bias, weight_scale))]
        each: Any = jax.vmap(one_head, in_axes=axes, out_axes=2)
        context, *others = each(*split, values, scorer, mask, bias, weight_scale)
        results = context.reshape(*context.shape[:2], heads * values.shape[2]), *others
    return tuple(x[:, 0] for x in results) if single else results


def _per_head(init, rngs: nnx.Rngs, num_heads: int, shape: tuple[int, int]) -> Array:
    """Initializes a matrix [in, heads * out], each head's part as that of a single head."""
    if num_heads == 1:
        return init(rngs.params(), shape)
    keys = jax.random.split(rngs.params(), num_heads)
    return jnp.concatenate([init(key, shape) for key in keys], axis=1)
