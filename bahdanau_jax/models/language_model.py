"""A language model in both directions: the words before a word predict it, and the words after it do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers import BiLSTM
from bahdanau_jax.token_ids import PAD

_SMOOTHING = 0.75  # candidates are drawn by count ** 0.75, as word2vec draws its negatives


class Constant(nnx.Variable):
    """An array that training leaves as it is."""


class LanguageModel(nnx.Module):
    """One BiLSTM whose forward half predicts the next word and whose backward half the one before.

    A classifier's first layer has the same shapes and starts from it (Dai and Le 2015, arXiv 1511.01432). The
    word vectors that the layer reads are normalised: over the words of the texts each feature has mean 0 and
    variance 1 (Miyato et al. 2017, arXiv 1605.07725, equation 1). So the norm of an adversarial shift means
    the same everywhere.

    Args:
      counts: int [vocab_size], how often each id stands in the texts.
      embedding_features, hidden_features: sizes; `hidden_features` per direction.
      dropout: rate of one mask over a text's word vectors, for each direction.
      dtype, implementation: see `BiLSTM`.
      rngs: streams `params` and `dropout`.

    Example:
      >>> model = LanguageModel(np.array([0, 2, 1, 3, 9]), hidden_features=4, rngs=nnx.Rngs(0))
      >>> loss = model.sampled_loss(jnp.array([[1, 4, 3, 0]]), candidates=3, key=jax.random.key(0))
      >>> loss.shape
      ()
    """

    def __init__(
        self,
        counts: Int[np.ndarray, "vocab_size"],
        *,
        embedding_features: int = 128,
        hidden_features: int = 128,
        dropout: float = 0.25,
        dtype: DTypeLike = jnp.float32,
        implementation: str = "auto",
        rngs: nnx.Rngs,
    ):
        n = len(counts)
        self.embedding = nnx.Embed(
            n,
            embedding_features,
            embedding_init=lambda key, shape, dtype: jax.random.uniform(
                key, shape, dtype, -0.2, 0.2
            ),
            rngs=rngs,
        )
        layer = BiLSTM(
            embedding_features,
            hidden_features,
            dropout=dropout,
            dtype=dtype,
            implementation=implementation,
            rngs=rngs,
        )
        self.encoder = nnx.List([layer])  # where AttentionClassifier has it
        initial = nnx.initializers.normal(0.05)(rngs.params(), (n, hidden_features))
        self.kernel, self.bias = nnx.Param(initial), nnx.Param(jnp.zeros(n))
        self.frequencies = Constant(jnp.asarray(counts / counts.sum(), jnp.float32))
        smooth = np.maximum(counts, 0.5) ** _SMOOTHING  # every id may be drawn
        self.drawn = Constant(jnp.asarray(smooth / smooth.sum(), jnp.float32))

    def vectors(self) -> Float[Array, "vocab_size embedding_features"]:
        """The normalised word vectors, which the BiLSTM reads."""
        table = self.embedding.embedding[...]
        mean = (self.frequencies[...] @ table)[None]
        variance = self.frequencies[...] @ jnp.square(table - mean)
        return (table - mean) / jnp.sqrt(variance + 1e-6)[None]

    def sampled_loss(
        self, ids: Int[Array, "batch time"], *, candidates: int, key: Array
    ) -> Float[Array, ""]:
        """Mean sampled softmax loss of all words in nats (Jean et al. 2015, arXiv 1412.2007).

        Every word competes with the same random words. The logit of each is lowered by the logarithm of how
        often it is expected among them, so that the sum of the exponentials estimates the full softmax's
        without bias.

        Args:
          ids: at least two real words in a row; padding behind them.
          candidates: number of words to draw.
          key: of the draw.
        """
        drawn = jnp.searchsorted(
            jnp.cumsum(self.drawn[...]), jax.random.uniform(key, (candidates,))
        )
        drawn = jnp.minimum(drawn, len(self.drawn[...]) - 1)  # the sum may be a little below 1
        expected = jnp.log(self.drawn[drawn] * candidates)
        kernel, bias = self.kernel[...], self.bias[...]
        rows, lowered = kernel[drawn], (bias[drawn] - expected)[None, None]

        def loss(hidden, targets):
            others = hidden @ rows.T + lowered
            itself = targets[..., None] == drawn[None, None]  # no word competes with itself
            others = jnp.where(itself, -1e30, others)
            own = jnp.sum(hidden * kernel[targets], axis=-1) + bias[targets]
            return jnp.logaddexp(jax.nn.logsumexp(others, axis=-1), own) - own

        return self._mean(loss, ids)

    def loss(self, ids: Int[Array, "batch time"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Mean cross-entropy of all words in nats, each against the whole vocabulary; and their number."""

        def loss_of_text(text):
            hidden, targets = text
            logits = hidden @ self.kernel[...].T + self.bias[...][None]
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets)

        def loss(hidden, targets):
            # Text by text: the logits of a batch would take gigabytes.
            return jax.lax.map(loss_of_text, (hidden, targets))

        return self._mean(loss, ids), 2 * jnp.sum(_pairs(ids))

    def _mean(self, loss, ids: Int[Array, "batch time"]) -> Float[Array, ""]:
        outputs, _ = self.encoder[0](self.vectors()[ids], ids != PAD)
        forward, backward = jnp.split(outputs.astype(jnp.float32), 2, axis=-1)
        pairs = _pairs(ids)
        losses = loss(forward[:, :-1], ids[:, 1:]) + loss(backward[:, 1:], ids[:, :-1])
        count = jnp.maximum(2 * jnp.sum(pairs, dtype=jnp.float32), 1)
        return jnp.sum(jnp.where(pairs, losses, 0)) / count


def _pairs(ids: Int[Array, "batch time"]) -> Bool[Array, "batch time-1"]:
    """Where two neighbours are real words."""
    return (ids[:, 1:] != PAD) & (ids[:, :-1] != PAD)
