"""N-grams of a text, hashed to the rows of a table inside the model, whatever the padding.

`ngram_rows()` is the pure function, `NgramClassifier` a linear model of the n-grams that occur.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.models.fixed import Fixed
from bahdanau_jax.token_ids import PAD

ENDING_SHARE, ENDING_WORDS = 4, 40  # a text's ending: its last quarter, and at least so many words


class Kind(NamedTuple):
    """A kind of n-grams. N-grams of different kinds do not share a row on purpose.

    Attributes:
      n: words in it.
      gap: the place, counted back from the last word, of one more word that it leaves out; 0: none.
      ending: whether only those count that begin in the text's ending.
    """

    n: int
    gap: int = 0
    ending: bool = False

    @property
    def span(self) -> int:
        """Words from the first to the last."""
        return self.n + (self.gap > 0)

    @property
    def salt(self) -> int:
        """What tells the kind in the hash; 0 for plain n-grams."""
        return (self.gap + 8 * self.ending) * 0xC2B2AE35 % 2**32


def ngram_kinds(n: int, *, gaps: bool = False, ending: bool = False) -> list[Kind]:
    """N-grams of 1 to n words, and on request two more sorts, of at most three words.

    Args:
      n: the most words in an n-gram.
      gaps: also pairs and triples that leave out one word (skip-grams, Guthrie et al. 2006, LREC), such as
        "not ... good" in "not very good".
      ending: also the words, pairs and triples of the text's last quarter, at least its last 40 words. They
        count there a second time: reviews end with a verdict.

    Example:
      >>> ngram_kinds(2, gaps=True)
      [Kind(n=1, gap=0, ending=False), Kind(n=2, gap=0, ending=False), Kind(n=2, gap=1, ending=False)]
    """
    kinds = [Kind(k) for k in range(1, n + 1)]
    few = range(1, min(n, 3) + 1)
    if gaps:
        kinds += [Kind(k, gap) for k in few for gap in range(1, k)]
    if ending:
        kinds += [Kind(k, ending=True) for k in few]
    return kinds


@partial(jax.jit, static_argnames=("kind", "rows"))
def ngram_rows(
    ids: Int[Array, "batch time"],
    mask: Bool[Array, "batch time"] | None = None,
    *,
    kind: Kind,
    rows: int,
) -> Int[Array, "batch time"]:
    """The row of the n-gram of real words that ends at each position, 0 to rows - 1; -1 where none ends.

    Two n-grams may share a row (feature hashing, Weinberger et al. 2009, arXiv 0902.2206). Masked positions
    are skipped.

    Args:
      ids: word ids.
      mask: True where a word is real. None: where `ids` is not 0, the padding.
      kind: of the n-grams.
      rows: rows of the table, at most 2**31.

    Example:
      >>> import jax.numpy as jnp
      >>> a = ngram_rows(jnp.array([[5, 7, 5, 7]]), kind=Kind(2), rows=100)
      >>> b = ngram_rows(jnp.array([[0, 5, 0, 7]]), kind=Kind(2), rows=100)
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
    hashed = _mix(words + jnp.uint32(kind.n)) ^ jnp.uint32(kind.salt)
    at, real = before, mask
    for back in range(1, kind.span):
        real &= at >= 0
        if back != kind.gap:
            word = jnp.take_along_axis(words, jnp.maximum(at, 0), axis=1)
            hashed = _mix(hashed ^ (word * jnp.uint32(0x9E3779B1)))
        at = jnp.take_along_axis(before, jnp.maximum(at, 0), axis=1)
    if kind.ending:
        length = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.int32)
        begin = length - jnp.maximum(length // ENDING_SHARE, ENDING_WORDS)
        real &= jnp.cumsum(mask, axis=1, dtype=jnp.int32) - kind.span >= begin
    return jnp.where(real, (hashed % jnp.uint32(rows)).astype(jnp.int32), -1)


def _mix(x: Array) -> Array:
    """The finaliser of MurmurHash3 (Appleby): every bit of uint32 `x` reaches every bit of the result."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


@partial(jax.jit, static_argnames=("n", "rows", "gaps", "ending"))
def distinct_rows(
    ids: Int[Array, "batch time"],
    mask: Bool[Array, "batch time"] | None = None,
    *,
    n: int,
    rows: int,
    gaps: bool = False,
    ending: bool = False,
) -> Int[Array, "batch kinds*time"]:
    """The distinct rows of all n-grams of each text, in any order; -1 elsewhere. See `ngram_kinds`.

    Example:
      >>> import jax.numpy as jnp
      >>> found = distinct_rows(jnp.array([[5, 7, 5, 7, 0]]), n=2, rows=1000)
      >>> int((found >= 0).sum())  # 5, 7, (5, 7), (7, 5)
      4
    """
    kinds = ngram_kinds(n, gaps=gaps, ending=ending)
    each = [ngram_rows(ids, mask, kind=kind, rows=rows) for kind in kinds]
    found = jnp.sort(jnp.concatenate(each, axis=1), axis=1)
    again = found[:, 1:] == found[:, :-1]
    return jnp.where(jnp.pad(again, ((0, 0), (1, 0))), -1, found)


HASHES = 2**31  # so many that n-grams hardly share one
NO_KEY = HASHES - 1  # behind the keys in use


class NgramClassifier(nnx.Module):
    """A linear model of the n-grams that occur in a text. Texts of any length have norm 1.

    logits = bias + sum of the n-grams' weights / root of the sum of their squared scales. An unknown n-gram has
    scale and weight 0. `fit_ngrams` fits weights, scales and bias before the first training step.

    Args:
      n: longest n-gram, in words.
      rows: rows of the table.
      num_classes: 2 gives one logit, more give one per class.
      gaps, ending: see `ngram_kinds`.
      keyed: whether each row belongs to one n-gram, whose 31-bit hash is its key; `fit_ngrams` keeps the most
        frequent ones. Otherwise all n-grams are hashed to the rows, and share them.

    Example:
      >>> import jax.numpy as jnp
      >>> model = NgramClassifier(n=2, rows=1000)
      >>> model(jnp.array([[5, 7, 0]]))
      Array([[0.]], dtype=float32)
    """

    def __init__(
        self,
        *,
        n: int,
        rows: int,
        num_classes: int = 2,
        gaps: bool = False,
        ending: bool = False,
        keyed: bool = False,
    ):
        outputs = 1 if num_classes == 2 else num_classes
        self.n, self.rows, self.gaps, self.ending = n, rows, gaps, ending
        self.weights = Fixed(jnp.zeros((rows, outputs)))
        self.squared_scales = Fixed(jnp.zeros(rows))
        self.bias = Fixed(jnp.zeros(outputs))
        # Increasing; in a checkpoint only if there are any.
        self.keys: Any = Fixed(jnp.full(rows, NO_KEY, jnp.int32)) if keyed else None

    def __call__(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"] | None = None
    ) -> Float[Array, "batch outputs"]:
        """Float32 logits [batch, 1 or num_classes]."""
        found = self.rows_of(ids, mask)
        occurs, found = found >= 0, jnp.maximum(found, 0)
        weights = jnp.where(occurs[:, :, None], self.weights[...][found], 0)
        squared = jnp.sum(jnp.where(occurs, self.squared_scales[...][found], 0), axis=1)
        norm = jnp.sqrt(jnp.where(squared > 0, squared, 1))  # [batch]
        return jnp.sum(weights, axis=1) / norm[:, None] + self.bias[...][None]

    def rows_of(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"] | None = None
    ) -> Int[Array, "batch kinds*time"]:
        """The rows that the logits of each text add up, each once; -1 elsewhere."""
        options = dict(n=self.n, gaps=self.gaps, ending=self.ending)
        if self.keys is None:
            return distinct_rows(ids, mask, rows=self.rows, **options)
        found, keys = distinct_rows(ids, mask, rows=HASHES, **options), self.keys[...]
        row = jnp.minimum(jnp.searchsorted(keys, found), self.rows - 1)
        return jnp.where((found >= 0) & (keys[row] == found), row, -1)
