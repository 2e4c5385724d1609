"""Sequence to sequence: a bidirectional encoder, and a decoder that attends (arXiv 1409.0473, section 3)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from bahdanau_jax.layers import GRU, LSTM, BahdanauAttention, BahdanauDecoder, BiGRU, BiLSTM
from bahdanau_jax.layers.decoder import Decoded, State
from bahdanau_jax.models.decoding import beam_search, greedy
from bahdanau_jax.token_ids import PAD


class Seq2Seq(nnx.Module):
    """The network of Bahdanau, Cho and Bengio 2015.

    A step's logits are a maxout layer of the state, the input and the context (the paper's eq. 4 and A.2.2).
    Without attention every step reads one context, the encoder's last states, as in Cho et al. 2014.

    Args:
      vocab_size: number of ids, of sources and targets alike.
      embedding_features, hidden_features: sizes.
      attention_units: size of the attention's hidden layer. 0: no attention.
      cell: "gru" (the paper's) or "lstm", for encoder and decoder.
      rngs: stream `params`.

    Example:
      >>> model = Seq2Seq(vocab_size=9, embedding_features=4, hidden_features=6, rngs=nnx.Rngs(0))
      >>> logits, weights = model(jnp.array([[4, 5, 0]]), jnp.array([[1, 5]]))
      >>> logits.shape, weights.shape
      ((1, 2, 9), (1, 2, 3))
      >>> ids, scores = model.decode(jnp.array([[4, 5, 0]]), steps=7, beams=3)
      >>> ids.shape, scores.shape
      ((1, 3, 7), (1, 3))
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        embedding_features: int = 64,
        hidden_features: int = 64,
        attention_units: int = 64,
        cell: str = "gru",
        rngs: nnx.Rngs,
    ):
        embedded, hidden = embedding_features, hidden_features
        self.source_embedding = nnx.Embed(vocab_size, embedded, rngs=rngs)
        self.target_embedding = nnx.Embed(vocab_size, embedded, rngs=rngs)
        encoder: Any = BiGRU if cell == "gru" else BiLSTM
        self.encoder = encoder(embedded, hidden, rngs=rngs)
        self.bridge = nnx.Linear(2 * hidden, hidden, rngs=rngs)
        attention = None
        if attention_units:
            attention = BahdanauAttention(hidden, 2 * hidden, attention_units, rngs=rngs)
        self.decoder = BahdanauDecoder(
            embedded, hidden, context_features=2 * hidden, cell=cell, attention=attention, rngs=rngs
        )
        self.readout = nnx.Linear(hidden + embedded + 2 * hidden, 2 * hidden, rngs=rngs)
        self.output = nnx.Linear(hidden, vocab_size, rngs=rngs)

    def encode(self, source: Int[Array, "batch time"]) -> tuple[Any, State]:
        """Returns the decoder's memory and first state. Positions that are PAD are masked."""
        mask = source != PAD
        outputs, state = self.encoder(self.source_embedding(source), mask)
        last = state if isinstance(self.decoder.cell, GRU) else state[0]
        first = jnp.tanh(self.bridge(last))
        attention = self.decoder.attention
        memory = last
        if isinstance(attention, BahdanauAttention):
            memory = attention.project(outputs, mask=mask)
        lstm = isinstance(self.decoder.cell, LSTM)
        return memory, (first, jnp.zeros_like(first)) if lstm else first

    def __call__(
        self, source: Int[Array, "batch time"], written: Int[Array, "batch steps"]
    ) -> tuple[Float[Array, "batch steps vocab"], Float[Array, "batch steps time"] | None]:
        """Logits and attention weights of each step, given the ids before it (teacher forcing).

        Args:
          source: ids; PAD is masked.
          written: START, then the target's ids up to the last but one; PAD is masked.
        """
        memory, state = self.encode(source)
        inputs = self.target_embedding(written)
        decoded = self.decoder(inputs, memory, state, mask=written != PAD)
        return self._logits(inputs, decoded), decoded.weights

    def decode(
        self,
        source: Int[Array, "batch time"],
        *,
        steps: int,
        beams: int = 1,
        length_penalty: float = 0.0,
    ) -> tuple[Int[Array, "batch beams steps"], Float[Array, "batch beams"]]:
        """Writes targets: greedily with one beam, otherwise by `beam_search`, whose arguments these are.

        Returns:
          ids, best first, with END and PAD after it; and their scores.
        """
        memory, state = self.encode(source)
        memory = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), memory)

        def step(state, ids):
            inputs = self.target_embedding(ids)
            decoded = self.decoder.step(inputs, memory, state)
            return jax.nn.log_softmax(self._logits(inputs, decoded)), decoded.state

        rows = source.shape[0]
        if beams > 1:
            return beam_search(
                step, state, rows=rows, steps=steps, beams=beams, length_penalty=length_penalty
            )
        ids, scores = greedy(step, state, rows=rows, steps=steps)
        lengths = jnp.maximum(jnp.sum(ids != PAD, axis=1), 1)
        return ids[:, None], (scores / lengths**length_penalty)[:, None]

    def _logits(self, inputs: Array, decoded: Decoded) -> Array:
        read = jnp.concatenate([decoded.outputs, inputs, decoded.contexts], axis=-1)
        maxout = jnp.max(self.readout(read).reshape(*read.shape[:-1], -1, 2), axis=-1)
        return self.output(maxout)
