"""Masked recurrence and additive attention in JAX and Flax NNX."""

from bahdanau_jax.attention import BahdanauAttention, additive_attention, masked_softmax
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.lstm import LSTM, BiLSTM, lstm
from bahdanau_jax.text import Vocabulary, split_words

__all__ = [
    "LSTM",
    "AttentionClassifier",
    "BahdanauAttention",
    "BiLSTM",
    "DataNotFound",
    "InputError",
    "Vocabulary",
    "additive_attention",
    "lstm",
    "masked_softmax",
    "split_words",
]
