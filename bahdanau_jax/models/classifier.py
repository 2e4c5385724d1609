"""The model: embedding, bidirectional LSTMs, additive attention queried by the last states, a small head."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bahdanau_jax.layers.attention import BahdanauAttention
from bahdanau_jax.layers.lstm import BiLSTM
from bahdanau_jax.layers.masks import mask_of
from bahdanau_jax.layers.prediction import (
    TABLE_BYTES,
    PredictionBiLSTM,
    attention_for_prediction,
    fits_table,
    obstacle,
)
from bahdanau_jax.models.language_model_states import LanguageModelStates
from bahdanau_jax.token_ids import PAD

POOLINGS = ("attention", "last", "max", "mean")


class Attention(Protocol):
    """What an attention of your own must offer: it is constructed and called as `BahdanauAttention` is.

    Construction: `MyAttention(query_features, key_features, units, *, rngs)`, an nnx.Module.
    """

    def __call__(
        self,
        query: Float[Array, "batch query_features"],
        keys: Float[Array, "batch time key_features"],
        values: Float[Array, "batch time value_features"] | None = None,
        mask: Bool[Array, "batch time"] | None = None,
    ) -> tuple[Float[Array, "batch value_features"], Float[Array, "batch time"]]:
        """Returns the context and the weights. `values` None: the keys. `mask` True: a real position."""
        ...


class AttentionClassifier(nnx.Module):
    """Text classification as in the notebook: embedding, BiLSTMs, attention, Dense, Dropout, Dense.

    The query is the concatenated last hidden states of the top BiLSTM; keys and values are its outputs.

    Args:
      vocab_size: number of ids.
      num_classes: 2 gives one logit (of a sigmoid), more give one logit per class (of a softmax).
      embedding_features, hidden_features, num_layers, attention_units, head_features: sizes;
        `hidden_features` is per direction.
      dropout: rate on each LSTM's inputs, one mask per sequence and direction.
      head_dropout: rate before the last layer.
      pooling: what the head reads, side by side: "attention", the context; "last", the last states; "max"
        and "mean", the top BiLSTM's outputs pooled over the real positions.
      mask_attention: False lets padding take part in the attention's softmax, as in the notebook. Logits then
        depend on the length to which a batch is padded.
      attention: class of the attention; see `Attention` for what it must offer.
      dtype: dtype of the matrix products; parameters, carries and softmax stay float32.
      implementation: of the recurrence: "auto", "scan", "native", "fused" or "cudnn"; see `bahdanau_jax.lstm`.
      chunk_size: of the recurrence: steps between two stored states; see `bahdanau_jax.lstm`.
      language_model_features: size of the states of a language model, per direction, which the encoder reads
        beside the word vectors; see `LanguageModelStates`. 0: none.
      language_model_embedding_features: size of that language model's word vectors.
      rngs: streams `params` and `dropout`.

    Raises:
      ValueError: `pooling` is empty or names something else.

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
        pooling: Sequence[str] = ("attention",),
        mask_attention: bool = True,
        attention: Callable[..., Any] = BahdanauAttention,
        dtype: DTypeLike = jnp.float32,
        implementation: str = "auto",
        chunk_size: int = 0,
        language_model_features: int = 0,
        language_model_embedding_features: int = 128,
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
        self.language_model: Any = nnx.data(
            LanguageModelStates(
                vocab_size,
                embedding_features=language_model_embedding_features,
                hidden_features=language_model_features,
                dtype=dtype,
                implementation=implementation,
                rngs=rngs,
            )
            if language_model_features
            else None
        )
        inputs = embedding_features + 2 * language_model_features
        widths = [inputs] + [2 * hidden_features] * num_layers
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
        self.attention: Attention = attention(widths[-1], widths[-1], attention_units, rngs=rngs)
        linear = partial(
            nnx.Linear, kernel_init=nnx.initializers.glorot_uniform(), dtype=dtype, rngs=rngs
        )
        self.hidden = linear(len(self.pooling) * widths[-1], head_features)
        self.head_dropout = nnx.Dropout(head_dropout, rngs=rngs if head_dropout else None)
        self.output = linear(head_features, 1 if num_classes == 2 else num_classes)

    def __call__(
        self,
        ids: Int[Array, "batch time"],
        mask: Bool[Array, "batch time"] | None = None,
        *,
        lengths: Int[Array, "batch"] | None = None,
        embedded: Float[Array, "batch time in_features"] | None = None,
    ) -> tuple[Float[Array, "batch outputs"], Float[Array, "batch time"]]:
        """Returns float32 logits [batch, 1 or num_classes] and attention weights [batch, time].

        Args:
          ids: token ids, 0 <= id < vocab_size.
          mask: True where a token is real. None: where `ids` is not 0, the padding.
          lengths: instead of `mask`, the number of real tokens in each row, which come first.
          embedded: replaces `self.embed(ids)`, for gradients with respect to the encoder's inputs.
        """
        ids = jnp.asarray(ids)
        mask = mask_of(mask, lengths, *ids.shape)
        mask = ids != PAD if mask is None else mask
        hidden = embedded  # [batch, time, features]
        if hidden is None:
            hidden = self.embed(ids) if self.language_model is None else self.embed(ids, mask)
        h = None
        for layer in self.encoder:
            hidden, (h, _) = layer(hidden, mask)  # [batch, time, 2*hidden], [batch, 2*hidden]
        assert h is not None, "num_layers must be at least 1"
        query = h.astype(hidden.dtype)
        context, weights = self.attention(query, hidden, mask=mask if self.mask_attention else None)
        pooled = {"attention": context, "last": h} | _pool(hidden, mask)
        chosen = jnp.concatenate([pooled[name] for name in self.pooling], axis=-1)
        features = self.head_dropout(nnx.relu(self.hidden(chosen)))  # [batch, head_features]
        return self.output(features).astype(jnp.float32), weights

    def for_prediction(self, *, products: str = "float32") -> Self:
        """Returns a model that gives the same results in less time, and cannot be trained.

        On a CPU with the kernel, the first BiLSTM that reads word vectors alone looks up the products of words,
        which are computed here. Elsewhere, and for a subclass with an `embed` of its own, it returns the model
        itself.

        Args:
          products: "float32", or "int16" for products of rounded numbers; see `PredictionBiLSTM`.

        Raises:
          ValueError: "int16" is asked for and cannot be had; says why.
        """
        first = self.encoder[0]
        if isinstance(first, PredictionBiLSTM):
            return self
        why = obstacle(first)
        if type(self).embed is not AttentionClassifier.embed:
            why = f"{type(self).__name__} has an embed() of its own"
        elif self.language_model is not None:
            if products != "float32":
                why = "the encoder reads a language model's states"
        elif not fits_table(first, self.embedding.num_embeddings):
            why = f"the products of {self.embedding.num_embeddings} words take over {TABLE_BYTES >> 20} MB"
        if why:
            if products != "float32":
                raise ValueError(f"products of {products} cannot be had: {why}")
            return self
        model = nnx.clone(self)
        vectors = None
        if self.language_model is None:
            vectors, model.embedding = self.embedding.embedding[...], None
        else:
            model.language_model = self.language_model.for_prediction()
        model.encoder = nnx.List(
            PredictionBiLSTM(layer, vectors if layer is first else None, products=products)
            for layer in self.encoder
        )
        model.attention = attention_for_prediction(model.attention)
        return model

    def embed(
        self, ids: Int[Array, "batch time"], mask: Bool[Array, "batch time"] | None = None
    ) -> Float[Array, "batch time in_features"]:
        """The vectors that the encoder reads, one per token; ids, where products of words are looked up.

        With a language model, its states follow the word vector; `mask` None: `ids` is real where not 0.
        """
        if self.embedding is None:
            return ids
        vectors = self.embedding(ids)
        if self.language_model is None:
            return vectors
        states = self.language_model(ids, ids != PAD if mask is None else mask)
        return jnp.concatenate([vectors, states.astype(vectors.dtype)], axis=-1)


def for_prediction(model: Any, products: str = "float32") -> Any:
    """What a model's own `for_prediction` returns, or the model itself if it has none.

    Raises:
      ValueError: `products` are not "float32" and cannot be had; says why.
    """
    if hasattr(model, "for_prediction"):
        return model.for_prediction(products=products)
    if products != "float32":
        raise ValueError(
            f"products of {products} cannot be had: {type(model).__name__} has no for_prediction()"
        )
    return model


def _pool(
    outputs: Float[Array, "batch time features"], mask: Bool[Array, "batch time"]
) -> dict[str, Float[Array, "batch features"]]:
    """Maximum and mean over the real positions, zeros where there are none. `outputs` is 0 where masked."""
    count = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)  # [batch, 1]
    # Outputs are above -1. An initial value of -inf would stop a run under jax_debug_infs.
    largest = jnp.max(outputs, axis=1, where=mask[:, :, None], initial=-2)
    mean = jnp.sum(outputs, axis=1, dtype=jnp.float32) / jnp.maximum(count, 1)
    return {
        "max": jnp.where(count > 0, largest, 0),
        "mean": mean.astype(outputs.dtype),
    }


def _uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike, *, scale: float) -> Array:
    """Keras's embedding initialiser: uniform over [-scale, scale)."""
    return jax.random.uniform(key, shape, dtype, -scale, scale)
