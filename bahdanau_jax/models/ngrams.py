"""N-grams of a text, hashed to the rows of a table inside the model, whatever the padding.

`ngram_rows()` is the pure function, `NgramClassifier` a linear model of the n-grams that occur.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.token_ids import PAD


@partial(jax.jit, static_argnames=("n", "rows"))
def ngram_rows(
    ids: Int[Array, "batch time"],
    mask: Bool[Array, "batch time"] | None = None,
    *,
    n: int,
    rows: int,
) -> Int[Array, "batch time"]:
    """The row of the n-gram of real words that ends at each position, 0 to rows - 1; -1 where none ends.

    Two n-grams may share a row (feature hashing, Weinberger et al. 2009, arXiv 0902.2206). Masked positions
    are skipped.

    Args:
      ids: word ids.
      mask: True where a word is real. None: where `ids` is not 0, the padding.
      n: words in an n-gram.
      rows: rows of the table, at most 2**31.

    Example:
      >>> import jax.numpy as jnp
      >>> a = ngram_rows(jnp.array([[5, 7, 5, 7]]), n=2, rows=100)
      >>> b = ngram_rows(jnp.array([[0, 5, 0, 7]]), n=2, rows=100)
      >>> int(a[0, 0]), int(a[0, 1]) == int(a[0, 3]) == int(b[0, 3]), int(a[0, 1]) == int(a[0, 2])
      (-1, True, False)
    """
    if mask is None:
        mask = ids != PAD
    positions = jnp.where(mask, jnp.arange(ids.shape[1]), -1)
    # The last real position before each one, -1 where there is none.
    before = jnp.pad(
        jax.lax.cummax(positions, axis=1)[:, :-1], ((0, 0), (1, 0)), constant_values=-1
    )
    words = ids.astype(jnp.uint32)
    hashed, at, real = _mix(words + jnp.uint32(n)), before, mask
    for _ in range(n - 1):
        real &= at >= 0
        word = jnp.take_along_axis(words, jnp.maximum(at, 0), axis=1)
        hashed = _mix(hashed ^ (word * jnp.uint32(0x9E3779B1)))
        at = jnp.take_along_axis(before, jnp.maximum(at, 0), axis=1)
    return jnp.where(real, (hashed % jnp.uint32(rows)).astype(jnp.int32), -1)


def _mix(x: Array) -> Array:
    """The finaliser of MurmurHash3 (Appleby): every bit of uint32 `x` reaches every bit of the result."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


class Fixed(nnx.Variable):
    """A variable that is saved with the model and not trained by gradient descent."""


@partial(jax.jit, static_argnames=("n", "rows"))
def distinct_rows(
    ids: Int[Array, "batch time"],
    mask: Bool[Array, "batch time"] | None = None,
    *,
    n: int,
    rows: int,
) -> Int[Array, "batch n*time"]:
    """The distinct rows of all n-grams of 1 to n words in each text, in any order; -1 elsewhere.

    Example:
      >>> import jax.numpy as jnp
      >>> found = distinct_rows(jnp.array([[5, 7, 5, 7, 0]]), n=2, rows=1000)
      >>> int((found >= 0).sum())  # 5, 7, (5, 7), (7, 5)
      4
    """
    orders = [ngram_rows(ids, mask, n=k, rows=rows) for k in range(1, n + 1)]
    found = jnp.sort(jnp.concatenate(orders, axis=1), axis=1)
    again = found[:, 1:] == found[:, :-1]
    return jnp.where(jnp.pad(again, ((0, 0), (1, 0))), -1, found)


class NgramClassifier(nnx.Module):
    """A linear model of the n-grams that occur in a text. Texts of any length have norm 1.

    logits = bias + sum of the n-grams' weights / root of the sum of their squared scales. An unknown n-gram has
    scale and weight 0. `fit_ngrams` fits weights, scales and bias before the first training step.

    Args:
      n: longest n-gram, in words.
      rows: rows of the table into which n-grams are hashed.
      num_classes: 2 gives one logit, more give one per class.

    Example:
      >>> import jax.numpy as jnp
      >>> model = NgramClassifier(n=2, rows=1000)
      >>> model(jnp.array([[5, 7, 0]]))
      Array([[0.]], dtype=float32)
    """

    def __init__(self, *, n: int, rows: int, num_classes: int = 2):
        outputs = 1 if num_classes == 2 else num_classes
        self.n, self.rows = n, rows
        self.weights = Fixed(jnp.zeros((rows, outputs)))
        self.squared_scales = Fixed(jnp.zeros(rows))
        self.bias = Fixed(jnp.zeros(outputs))

    def __call__(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"] | None = None
    ) -> Float[Array, "batch outputs"]:
        """Float32 logits [batch, 1 or num_classes]."""
        found = distinct_rows(ids, mask, n=self.n, rows=self.rows)
        occurs, found = found >= 0, jnp.maximum(found, 0)
        weights = jnp.where(occurs[:, :, None], self.weights[...][found], 0)
        squared = jnp.sum(jnp.where(occurs, self.squared_scales[...][found], 0), axis=1)
        norm = jnp.sqrt(jnp.where(squared > 0, squared, 1))  # [batch]
        return jnp.sum(weights, axis=1) / norm[:, None] + self.bias[...][None]
