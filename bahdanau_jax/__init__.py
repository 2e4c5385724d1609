"""Masked recurrence and additive attention in JAX and Flax NNX.

Every name here is imported on first use (PEP 562), so `import bahdanau_jax` itself loads neither JAX nor Flax.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bahdanau_jax.data.tokenizer import split_words
    from bahdanau_jax.data.vocabulary import Vocabulary
    from bahdanau_jax.errors import DataNotFound, InputError
    from bahdanau_jax.evaluation.blend_predictor import load_predictor
    from bahdanau_jax.evaluation.predictor import Prediction, Predictor
    from bahdanau_jax.layers.attention import BahdanauAttention, Memory
    from bahdanau_jax.layers.attention_functions import additive_attention, masked_softmax
    from bahdanau_jax.layers.decoder import BahdanauDecoder, Decoded
    from bahdanau_jax.layers.gru import GRU, BiGRU
    from bahdanau_jax.layers.gru_functions import gru, gru_step
    from bahdanau_jax.layers.lstm import LSTM, BiLSTM
    from bahdanau_jax.layers.lstm_functions import bilstm, lstm, lstm_step
    from bahdanau_jax.layers.recurrence import lstm_implementation
    from bahdanau_jax.models.classifier import AttentionClassifier

    __version__: str

__all__ = [
    "GRU",
    "LSTM",
    "AttentionClassifier",
    "BahdanauAttention",
    "BahdanauDecoder",
    "BiGRU",
    "BiLSTM",
    "DataNotFound",
    "Decoded",
    "InputError",
    "Memory",
    "Prediction",
    "Predictor",
    "Vocabulary",
    "additive_attention",
    "bilstm",
    "gru",
    "gru_step",
    "load_predictor",
    "lstm",
    "lstm_implementation",
    "lstm_step",
    "masked_softmax",
    "split_words",
]

_MODULES = {
    "GRU": "layers.gru",
    "LSTM": "layers.lstm",
    "AttentionClassifier": "models.classifier",
    "BahdanauAttention": "layers.attention",
    "BahdanauDecoder": "layers.decoder",
    "BiGRU": "layers.gru",
    "BiLSTM": "layers.lstm",
    "DataNotFound": "errors",
    "Decoded": "layers.decoder",
    "InputError": "errors",
    "Memory": "layers.attention",
    "Prediction": "evaluation.predictor",
    "Predictor": "evaluation.predictor",
    "Vocabulary": "data.vocabulary",
    "additive_attention": "layers.attention_functions",
    "bilstm": "layers.lstm_functions",
    "gru": "layers.gru_functions",
    "gru_step": "layers.gru_functions",
    "load_predictor": "evaluation.blend_predictor",
    "lstm": "layers.lstm_functions",
    "lstm_implementation": "layers.recurrence",
    "lstm_step": "layers.lstm_functions",
    "masked_softmax": "layers.attention_functions",
    "split_words": "data.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bahdanau-jax")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"bahdanau_jax.{name} needs {error.name}: pip install 'bahdanau-jax[train]'",
            name=error.name,
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
