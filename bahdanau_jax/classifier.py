"""The model: embedding, bidirectional LSTMs, additive attention queried by the last states, a small head."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.attention import BahdanauAttention
from bahdanau_jax.lstm import BiLSTM
from bahdanau_jax.ngrams import NgramEmbedding
from bahdanau_jax.text import PAD, UNKNOWN

POOLINGS = ("attention", "last", "max", "mean")


class AttentionClassifier(nnx.Module):
    """Text classification as in the notebook: embed, BiLSTM x `num_layers`, attention, Dense, Dropout, Dense.

    The query is the concatenated last hidden states of the top BiLSTM, keys and values are its outputs.
    What the head reads may hold more than the attention's context (`pooling`), and what the LSTMs read more
    than single words (`bigram_rows`).

    Args:
      vocab_size: number of ids.
      num_classes: 2 gives one logit (a sigmoid's), more give one logit per class (a softmax's).
      embedding_features, hidden_features, num_layers, attention_units, head_features: sizes;
        `hidden_features` is per direction.
      dropout: rate on each LSTM's inputs, one mask per sequence and direction.
      head_dropout: rate before the last layer.
      word_dropout: the share of words that are made unknown, drawn anew each time (Iyyer et al. 2015, ACL
        P15-1162, drop them).
      pooling: what the head reads, side by side: "attention", the context; "last", the last states; "max"
        and "mean", the top BiLSTM's outputs pooled over the real positions.
      bigram_rows: rows of a table of hashed word pairs, added to the words' embeddings; 0: none.
      mask_attention: False leaves padding in the attention's softmax, as the notebook does: logits then
        depend on how far a batch is padded.
      dtype: computation dtype of the matrix products; parameters, carries and softmax stay float32.
      implementation: of the recurrence: "auto", "scan" or "native"; see `bahdanau_jax.lstm`.
      chunk_size: of the recurrence: recompute all but every so many steps; see `bahdanau_jax.lstm`.
      rngs: streams `params` and `dropout`.

    Raises:
      ValueError: `pooling` is empty, or names something else.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> model = AttentionClassifier(vocab_size=10, embedding_features=4, hidden_features=4, rngs=nnx.Rngs(0))
      >>> model.eval()
      >>> logits, weights = model(jnp.array([[1, 5, 7, 0]]))
      >>> logits.shape, weights.shape, float(weights[0, 3])
      ((1, 1), (1, 4), 0.0)
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int = 2,
        *,
        embedding_features: int = 128,
        hidden_features: int = 64,
        num_layers: int = 2,
        attention_units: int = 64,
        head_features: int = 20,
        dropout: float = 0.5,
        head_dropout: float = 0.5,
        word_dropout: float = 0.0,
        pooling: Sequence[str] = ("attention",),
        bigram_rows: int = 0,
        mask_attention: bool = True,
        dtype: DTypeLike = jnp.float32,
        implementation: str = "auto",
        chunk_size: int = 0,
        rngs: nnx.Rngs,
    ):
        if not pooling or not set(pooling) <= set(POOLINGS):
            raise ValueError(f"pooling is {pooling!r}; expected some of {', '.join(POOLINGS)}")
        self.mask_attention = mask_attention
        self.pooling = tuple(pooling)
        self.embedding = nnx.Embed(
            vocab_size,
            embedding_features,
            dtype=dtype,
            embedding_init=partial(_uniform, scale=0.05),
            rngs=rngs,
        )
        widths = [embedding_features] + [2 * hidden_features] * num_layers
        self.encoder = nnx.List(
            BiLSTM(
                width,
                hidden_features,
                dropout=dropout,
                dtype=dtype,
                implementation=implementation,
                chunk_size=chunk_size,
                rngs=rngs,
            )
            for width in widths[:-1]
        )
        self.attention = BahdanauAttention(
            widths[-1], widths[-1], attention_units, dtype=dtype, rngs=rngs
        )
        linear = partial(
            nnx.Linear, kernel_init=nnx.initializers.glorot_uniform(), dtype=dtype, rngs=rngs
        )
        self.hidden = linear(len(self.pooling) * widths[-1], head_features)
        self.head_dropout = nnx.Dropout(head_dropout, rngs=rngs)
        self.output = linear(head_features, 1 if num_classes == 2 else num_classes)
        self.word_dropout = nnx.Dropout(word_dropout, rngs=rngs) if word_dropout else None
        self.bigrams = (
            NgramEmbedding(n=2, rows=bigram_rows, features=embedding_features, dtype=dtype)
            if bigram_rows
            else None
        )

    def __call__(
        self,
        ids: Int[Array, "batch time"],
        mask: Bool[Array, "batch time"] | None = None,
        *,
        embedded: Float[Array, "batch time embedding_features"] | None = None,
    ) -> tuple[Float[Array, "batch outputs"], Float[Array, "batch time"]]:
        """Returns float32 logits [batch, 1 or num_classes] and attention weights [batch, time].

        Args:
          ids: token ids, 0 <= id < vocab_size.
          mask: True where a token is real; None: where `ids` is not the padding id 0.
          embedded: taken in place of `self.embed(ids, mask)`, for gradients with respect to the inputs:
            `ids` have none.
        """
        if mask is None:
            mask = ids != PAD
        ids = self.drop_words(ids, mask)
        hidden = self.embed(ids, mask) if embedded is None else embedded  # [batch, time, features]
        h = None
        for layer in self.encoder:
            hidden, (h, _) = layer(hidden, mask)  # [batch, time, 2*hidden], [batch, 2*hidden]
        assert h is not None, "num_layers must be at least 1"
        context, weights = self.attention(h, hidden, mask=mask if self.mask_attention else None)
        pooled = {"attention": context, "last": h} | _pool(hidden, mask)
        chosen = jnp.concatenate([pooled[name] for name in self.pooling], axis=-1)
        features = self.head_dropout(nnx.relu(self.hidden(chosen)))  # [batch, head_features]
        return self.output(features).astype(jnp.float32), weights

    def embed(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time embedding_features"]:
        """The vectors that the encoder reads, one for each token."""
        embedded = self.embedding(ids)
        return embedded if self.bigrams is None else embedded + self.bigrams(ids, mask)

    def drop_words(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"]
    ) -> Int[Array, "batch time"]:
        """In training, makes some of the real words unknown."""
        if self.word_dropout is None or self.word_dropout.deterministic:
            return ids
        kept = self.word_dropout(jnp.ones(ids.shape)) > 0
        return jnp.where(mask & ~kept, UNKNOWN, ids)


def _pool(
    outputs: Float[Array, "batch time features"], mask: Bool[Array, "batch time"]
) -> dict[str, Float[Array, "batch features"]]:
    """Maximum and mean over the real positions, zeros where there are none. `outputs` is 0 where masked."""
    count = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)  # [batch, 1]
    largest = jnp.max(jnp.where(mask[:, :, None], outputs, -jnp.inf), axis=1)
    mean = jnp.sum(outputs, axis=1, dtype=jnp.float32) / jnp.maximum(count, 1)
    return {
        "max": jnp.where(count > 0, largest, 0),
        "mean": mean.astype(outputs.dtype),
    }


def _uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike, *, scale: float) -> Array:
    """Keras's embedding initialiser: uniform over [-scale, scale)."""
    return jax.random.uniform(key, shape, dtype, -scale, scale)
