"""The layers: masked LSTMs and GRUs, additive attention and its decoder, for use in your own models."""

from bahdanau_jax.layers.attention import BahdanauAttention, Memory
from bahdanau_jax.layers.attention_functions import additive_attention, masked_softmax
from bahdanau_jax.layers.decoder import BahdanauDecoder, Decoded
from bahdanau_jax.layers.gru import GRU, BiGRU
from bahdanau_jax.layers.gru_functions import gru, gru_step
from bahdanau_jax.layers.lstm import LSTM, BiLSTM
from bahdanau_jax.layers.lstm_functions import bilstm, lstm, lstm_step
from bahdanau_jax.layers.recurrence import lstm_implementation

__all__ = [
    "GRU",
    "LSTM",
    "BahdanauAttention",
    "BahdanauDecoder",
    "BiGRU",
    "BiLSTM",
    "Decoded",
    "Memory",
    "additive_attention",
    "bilstm",
    "gru",
    "gru_step",
    "lstm",
    "lstm_implementation",
    "lstm_step",
    "masked_softmax",
]
