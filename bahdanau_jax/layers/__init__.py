"""The layers: masked LSTMs and additive attention, for use in your own models."""

from bahdanau_jax.layers.attention import BahdanauAttention, Memory
from bahdanau_jax.layers.attention_functions import additive_attention, masked_softmax
from bahdanau_jax.layers.lstm import LSTM, BiLSTM
from bahdanau_jax.layers.lstm_functions import bilstm, lstm, lstm_step
from bahdanau_jax.layers.recurrence import lstm_implementation

__all__ = [
    "LSTM",
    "BahdanauAttention",
    "BiLSTM",
    "Memory",
    "additive_attention",
    "bilstm",
    "lstm",
    "lstm_implementation",
    "lstm_step",
    "masked_softmax",
]
