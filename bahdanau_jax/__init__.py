"""Masked recurrence and additive attention in JAX and Flax NNX."""

from bahdanau_jax.attention import BahdanauAttention, Memory, additive_attention, masked_softmax
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.lstm import LSTM, BiLSTM, bilstm, lstm, lstm_implementation
from bahdanau_jax.predict import Prediction, Predictor
from bahdanau_jax.text import Vocabulary, split_words

__all__ = [
    "LSTM",
    "AttentionClassifier",
    "BahdanauAttention",
    "BiLSTM",
    "DataNotFound",
    "InputError",
    "Memory",
    "Prediction",
    "Predictor",
    "Vocabulary",
    "additive_attention",
    "bilstm",
    "lstm",
    "lstm_implementation",
    "masked_softmax",
    "split_words",
]
