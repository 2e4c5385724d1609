"""What a language model knows of each word in its text, as inputs of another network."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.lstm import BiLSTM
from bahdanau_jax.layers.prediction import PredictionBiLSTM, fits_table
from bahdanau_jax.models.fixed import fix

# The states of IMDB's language model have a mean square of 0.17, its word vectors one of 1.
SCALE = 3.0


class LanguageModelStates(nnx.Module):
    """The states of a language model's BiLSTM at each word of a text (Peters et al. 2018, arXiv 1802.05365).

    The same word has other states in another text. They do not learn: weights are `Fixed`, and no gradient
    passes. Fresh weights are random; `recipes.warm_start.read_language_model` reads those of a run.

    Args:
      vocab_size: number of ids.
      embedding_features, hidden_features: sizes of the language model; `hidden_features` per direction.
      dtype, implementation: see `BiLSTM`.
      rngs: stream `params`.

    Example:
      >>> states = LanguageModelStates(10, embedding_features=4, hidden_features=3, rngs=nnx.Rngs(0))
      >>> ids = jnp.array([[1, 5, 7, 0]])
      >>> found = states(ids, ids != 0)
      >>> found.shape, found[0, 3].tolist()
      ((1, 4, 6), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        embedding_features: int,
        hidden_features: int,
        dtype: DTypeLike = jnp.float32,
        implementation: str = "auto",
        rngs: nnx.Rngs,
    ):
        self.embedding: Any = nnx.Embed(vocab_size, embedding_features, dtype=dtype, rngs=rngs)
        self.encoder: Any = BiLSTM(
            embedding_features,
            hidden_features,
            dtype=dtype,
            implementation=implementation,
            rngs=rngs,
        )
        for module in (self.embedding, self.encoder.forward, self.encoder.backward):
            fix(module)

    def __call__(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time 2*hidden_features"]:
        """The states after each word from the front, and from the back; 0 where masked.

        Args:
          ids: token ids.
          mask: True where a token is real.
        """
        inputs = ids if self.embedding is None else self.embedding(ids)
        outputs, _ = self.encoder(inputs, mask)
        return jax.lax.stop_gradient(SCALE * outputs)

    def for_prediction(self) -> Self:
        """The same on the CPU kernel, in less time; see `AttentionClassifier.for_prediction`."""
        states, vectors = nnx.clone(self), None
        if fits_table(self.encoder, self.embedding.num_embeddings):
            vectors, states.embedding = self.embedding.embedding[...], None
        states.encoder = PredictionBiLSTM(self.encoder, vectors)
        return states
