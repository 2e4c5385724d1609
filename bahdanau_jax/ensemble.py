"""Several classifiers in one model: each is trained by its own loss, their logits are averaged."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.ngrams import NgramClassifier


class Ensemble(nnx.Module):
    """AttentionClassifiers that differ in their first weights and dropout, and a linear model of n-grams.

    Networks that start elsewhere err elsewhere (Lakshminarayanan et al. 2017, 1612.01474), and so do a
    network and NB-SVM (Mesnil et al. 2015, 1412.5335).

    Args:
      vocab_size, num_classes, **sizes: of each AttentionClassifier.
      members: how many of them.
      ngrams: the longest n-gram of the linear model; 0: no linear model.
      ngram_rows: of the table that its n-grams are hashed to.
      ngram_share: the linear model's share of the logits, 0 to 1; the members share the rest evenly.
      rngs: streams `params` and `dropout`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> sizes = dict(embedding_features=4, hidden_features=4)
      >>> model = Ensemble(10, members=2, ngrams=2, ngram_rows=64, ngram_share=0.5, rngs=nnx.Rngs(0), **sizes)
      >>> model.eval()
      >>> logits, weights = model(jnp.array([[1, 5, 7, 0]]))
      >>> separate, _ = model.separate(jnp.array([[1, 5, 7, 0]]))
      >>> logits.shape, weights.shape, separate.shape
      ((1, 1), (1, 4), (2, 1, 1))
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int = 2,
        *,
        members: int = 1,
        ngrams: int = 0,
        ngram_rows: int = 2**20,
        ngram_share: float = 0.5,
        rngs: nnx.Rngs,
        **sizes,
    ):
        self.members = nnx.List(
            AttentionClassifier(vocab_size, num_classes, rngs=rngs, **sizes) for _ in range(members)
        )
        self.ngrams = (
            NgramClassifier(n=ngrams, rows=ngram_rows, num_classes=num_classes) if ngrams else None
        )
        self.ngram_share = ngram_share

    def embed(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"]
    ) -> tuple[Float[Array, "batch time embedding_features"], ...]:
        """What each network's encoder reads; n-grams of the linear model are no part of it."""
        return tuple(member.embed(ids, mask) for member in self.members)

    def separate(
        self,
        ids: Int[Array, "batch time"],
        mask: Bool[Array, "batch time"] | None = None,
        *,
        embedded: Sequence[Float[Array, "batch time embedding_features"]] | None = None,
    ) -> tuple[Float[Array, "members batch outputs"], Float[Array, "batch time"]]:
        """Each network's own logits, by which it is trained, and their mean attention weights."""
        inputs = [None] * len(self.members) if embedded is None else embedded
        found = (
            member(ids, mask, embedded=x) for member, x in zip(self.members, inputs, strict=True)
        )
        logits, weights = zip(*found, strict=True)
        return jnp.stack(logits), jnp.mean(jnp.stack(weights), axis=0)

    def __call__(
        self,
        ids: Int[Array, "batch time"],
        mask: Bool[Array, "batch time"] | None = None,
        *,
        embedded: Sequence[Float[Array, "batch time embedding_features"]] | None = None,
    ) -> tuple[Float[Array, "batch outputs"], Float[Array, "batch time"]]:
        """As AttentionClassifier's: float32 logits, of all models together, and attention weights."""
        separate, weights = self.separate(ids, mask, embedded=embedded)
        logits = jnp.mean(separate, axis=0)
        if self.ngrams is not None:
            logits += self.ngram_share * (self.ngrams(ids, mask) - logits)
        return logits, weights


def make_classifier(
    vocab_size: int,
    num_classes: int = 2,
    *,
    members: int = 1,
    ngrams: int = 0,
    ngram_rows: int = 2**20,
    ngram_share: float = 0.5,
    rngs: nnx.Rngs,
    **sizes,
) -> AttentionClassifier | Ensemble:
    """The model that a config's `model` section describes: an AttentionClassifier, or an Ensemble.

    Example:
      >>> from flax import nnx
      >>> type(make_classifier(10, members=2, rngs=nnx.Rngs(0))).__name__
      'Ensemble'
    """
    if members == 1 and not ngrams:
        return AttentionClassifier(vocab_size, num_classes, rngs=rngs, **sizes)
    several = dict(ngrams=ngrams, ngram_rows=ngram_rows, ngram_share=ngram_share)
    return Ensemble(vocab_size, num_classes, members=members, rngs=rngs, **several, **sizes)
