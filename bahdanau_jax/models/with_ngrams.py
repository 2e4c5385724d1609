"""A classifier and a linear model of n-grams, whose logits are added."""

from collections.abc import Iterable
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.models.classifier import for_prediction
from bahdanau_jax.models.fixed import Fixed
from bahdanau_jax.models.ngrams import NgramClassifier


class WithNgrams(nnx.Module):
    """A network and NB-SVM make different mistakes (Mesnil et al. 2015, arXiv 1412.5335).

    In training mode the logits are the network's alone, so that it learns from its own loss.
    `fit_before_training` fits the linear model; gradient descent leaves it as it is.

    Args:
      network: a classifier, called as `AttentionClassifier` is.
      ngrams: the linear model.
      ngram_share: its share of the logits, 0 to 1; the network has the rest.
      fit_blend: whether training replaces these two shares by `scales`, which it fits on validation after each
        epoch (`blend.fit_scales`).
      ngram_vectors: size of vectors of n-grams that the linear model is fitted with, see `fit_ngrams`. 0: none.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from bahdanau_jax.models.classifier import AttentionClassifier
      >>> network = AttentionClassifier(10, embedding_features=4, hidden_features=4, rngs=nnx.Rngs(0))
      >>> model = WithNgrams(network, NgramClassifier(n=2, rows=64), ngram_share=0.5)
      >>> model.eval()
      >>> logits, weights = model(jnp.array([[1, 5, 7, 0]]))
      >>> logits.shape, weights.shape
      ((1, 1), (1, 4))
    """

    def __init__(
        self,
        network: nnx.Module,
        ngrams: NgramClassifier,
        *,
        ngram_share: float = 0.5,
        fit_blend: bool = False,
        ngram_vectors: int = 0,
    ):
        self.network: Any = network
        self.ngrams = ngrams
        self.ngram_share, self.ngram_vectors = ngram_share, ngram_vectors
        # Of the network and of the n-grams; in a checkpoint only if they are fitted.
        first = jnp.array([1 - ngram_share, ngram_share])
        self.scales: Any = Fixed(first) if fit_blend else None
        self.deterministic = False

    def __call__(
        self,
        ids: Int[Array, "batch time"],
        mask: Bool[Array, "batch time"] | None = None,
        **inputs: Any,
    ) -> tuple[Float[Array, "batch outputs"], Float[Array, "batch time"]]:
        """Float32 logits and the network's attention weights; `inputs` go to the network."""
        logits, weights = self.network(ids, mask, **inputs)
        if self.deterministic:
            ours = self.ngrams(ids, mask)
            if self.scales is None:
                logits += self.ngram_share * (ours - logits)
            else:
                logits = self.scales[0] * logits + self.scales[1] * ours
        return logits, weights

    def for_prediction(self, *, products: str = "float32") -> Self:
        """The same with a network for prediction; see `AttentionClassifier.for_prediction`."""
        model = nnx.clone(self)
        model.network = for_prediction(self.network, products)
        return model

    def embed(self, ids: Int[Array, "batch time"]) -> Float[Array, "batch time embedding_features"]:
        """What the network's encoder reads; the n-grams have no part in it."""
        return self.network.embed(ids)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Called by `nnx.view`; switches between training and evaluation."""
        if deterministic is not None:
            self.deterministic = deterministic

    def fit_before_training(self, texts: Iterable[Any], unlabelled: Iterable[Any]) -> str:
        """Fits the linear model, once, before the first step.

        Args:
          texts: batches of the training texts, each text once, with `ids`, `labels`, `real` and `rows`.
          unlabelled: batches of texts without labels; may be empty.

        Returns:
          one line for the log.
        """
        # Imported here: scikit-learn takes a second, which other models need not wait for.
        from bahdanau_jax.models.fit_ngrams import fit_ngrams

        fitted, choice = fit_ngrams(
            texts,
            n=self.ngrams.n,
            rows=self.ngrams.rows,
            gaps=self.ngrams.gaps,
            ending=self.ngrams.ending,
            keyed=self.ngrams.keys is not None,
            outputs=self.ngrams.bias.shape[0],
            features=self.ngram_vectors,
            unlabelled=unlabelled,
        )
        for name, values in fitted._asdict().items():
            if values is not None:
                getattr(self.ngrams, name)[...] = values
        return (
            f"linear model: {np.count_nonzero(fitted.squared_scales):,} rows of n-grams in at least "
            f"{choice.min_texts} texts, C {choice.c:g}"
        )
