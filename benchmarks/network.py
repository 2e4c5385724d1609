"""The sizes of the network that every contender builds, and its arithmetic."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The notebook's network: embedding, BiLSTMs, additive attention, Dense, Dropout, one logit."""

    vocab_size: int = 10_000
    embedding_features: int = 128
    hidden_features: int = 64  # in each direction
    num_layers: int = 2
    attention_units: int = 64
    head_features: int = 20
    dropout: float = 0.5  # on each layer's inputs, one mask per review
    head_dropout: float = 0.5


def lstm_flops(features: int, hidden: int) -> int:
    """FLOPs of one time step of one direction: the products with the input and with the last output."""
    return 2 * features * 4 * hidden + 2 * hidden * 4 * hidden


def forward_flops(sizes: Sizes, lengths: Sequence[int]) -> int:
    """FLOPs of the matrix products for reviews of these lengths, without padding.

    A multiplication and an addition count as 2. Element-wise work (sigmoids, softmax) is not counted.

    Example:
      >>> forward_flops(Sizes(), [1]) // 1000
      431
    """
    width = 2 * sizes.hidden_features
    features = [sizes.embedding_features] + [width] * (sizes.num_layers - 1)
    a_token = sum(2 * lstm_flops(size, sizes.hidden_features) for size in features)
    # Key, score and share of the context.
    a_token += 2 * width * sizes.attention_units + 2 * sizes.attention_units + 2 * width
    a_review = 2 * width * sizes.attention_units  # the query
    a_review += 2 * width * sizes.head_features + 2 * sizes.head_features
    return a_token * int(sum(lengths)) + a_review * len(lengths)


def train_flops(sizes: Sizes, lengths: Sequence[int]) -> int:
    """FLOPs of training: each product has two more in the backward pass."""
    return 3 * forward_flops(sizes, lengths)
