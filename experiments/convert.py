r"""Converts Keras or PyTorch weights to our SafeTensors, or back, and checks the result.

    python -m experiments.convert --input=notebook.keras --output=notebook.safetensors
    python -m experiments.convert --input=imdb.safetensors --output=imdb.keras --like=notebook.keras
    python -m experiments.convert --input=lstm.pt --output=lstm.safetensors
    python -m experiments.convert --input=lstm.safetensors --output=lstm.pt

--input     .keras or .weights.h5: the notebook's network, as Keras 3 saves it. .pt: the `state_dict` of a
            bidirectional `torch.nn.LSTM`. .safetensors: an AttentionClassifier, as `experiments.export`
            writes a run's, or BiLSTMs, as the third command writes them.
--output    .safetensors, which `interop.safetensors.load_safetensors` reads, or any of the others. A .pt
            gets the BiLSTMs of a classifier.
--like      A Keras file: the output gets its layers, names and optimizer.
--prefix    Prefix of the LSTM's names in the state_dict, such as "encoder.".

The command runs our layers and theirs on the same random, partly padded input and prints the largest
difference. A model with Keras's weights needs `mask_attention=False` to give Keras's probabilities for padded
rows.

Exit code: 0 when done. 2 when something asked for is wrong, or when the two differ by more than 1e-5; then
nothing is written.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from flax import nnx

from bahdanau_jax.errors import InputError
from bahdanau_jax.interop import convert, convert_check, keras_files
from bahdanau_jax.interop.safetensors import read_safetensors, save_safetensors, set_weights
from bahdanau_jax.layers.lstm import BiLSTM
from bahdanau_jax.models.classifier import AttentionClassifier
from experiments.command import command, parse_flags

OURS = ".safetensors"
ENDINGS = (OURS, ".pt", *keras_files.ENDINGS)
TOLERANCE = 1e-5


def convert_keras(source: Path, target: Path, like: Path | None) -> str:
    """Converts a Keras file to SafeTensors or back; returns the result of the comparison."""
    if target.suffix == OURS:
        layers = keras_files.read_keras(source)
        model = make_classifier(convert.names_from_keras(layers), source)
    else:
        model = read_ours(source)
        if not isinstance(model, AttentionClassifier):
            raise InputError(f"{source} holds BiLSTMs; expected an AttentionClassifier")
        if like is None:
            raise InputError(
                f"--like is missing; expected a Keras file, whose layers {target} gets"
            )
        layers = convert.classifier_to_keras(model)
    difference = convert_check.difference_from_keras(layers, model)
    said = _compared(source, difference, "probabilities of the notebook's network in Keras")
    if like is None:
        save_safetensors(model, target)
    else:
        keras_files.write_keras(target, layers, like=like)
    return said


def convert_torch(source: Path, target: Path, prefix: str) -> str:
    """Converts a state_dict to SafeTensors or back; returns the result of the comparison."""
    if target.suffix == OURS:
        state_dict = read_state_dict(source)
        layers = layers_of(state_dict, prefix, source)
    else:
        model = read_ours(source)
        layers = model.encoder if isinstance(model, AttentionClassifier) else model
        state_dict = convert.bilstm_to_torch(layers, prefix=prefix)
    difference = convert_check.difference_from_torch(state_dict, layers, prefix=prefix)
    said = _compared(source, difference, "outputs of torch.nn.LSTM")
    if target.suffix == OURS:
        save_safetensors(layers, target)
    else:
        import torch

        torch.save({name: torch.tensor(x) for name, x in state_dict.items()}, target)
    return said


def _compared(source: Path, difference: float, what: str) -> str:
    said = f"largest difference between ours and the {what}: {difference:.1e}"
    if not difference <= TOLERANCE:
        raise InputError(f"{source}: {said}; expected at most {TOLERANCE}")
    return said


def make_classifier(weights: Mapping[str, np.ndarray], source: Path) -> AttentionClassifier:
    """Builds a classifier with these weights by name, and of their sizes."""
    try:
        vocab_size, embedding_features = weights["embedding.embedding"].shape
        outputs = len(weights["output.bias"])
        model = AttentionClassifier(
            vocab_size,
            2 if outputs == 1 else outputs,
            embedding_features=embedding_features,
            hidden_features=len(weights["encoder.0.forward.recurrent_kernel"]),
            num_layers=sum(name.endswith(".forward.kernel") for name in weights),
            attention_units=weights["attention.key_kernel"].shape[1],
            head_features=len(weights["hidden.bias"]),
            mask_attention=False,
            rngs=nnx.Rngs(0),
        )
    except KeyError as error:
        raise InputError(
            f"{source} does not hold an AttentionClassifier: {error} is missing"
        ) from error
    set_weights(model, weights, where=str(source))
    return model


def make_bilstms(sizes: Sequence[tuple[int, int]]) -> nnx.List[BiLSTM]:
    """Builds BiLSTMs of `sizes`, (in_features, hidden_features) each."""
    return nnx.List([BiLSTM(*size, rngs=nnx.Rngs(0)) for size in sizes])


def read_ours(file: Path) -> AttentionClassifier | nnx.List[BiLSTM]:
    """Reads the classifier or the BiLSTMs of a SafeTensors file."""
    weights = read_safetensors(file)
    if "0.forward.kernel" not in weights:
        return make_classifier(weights, file)
    kernels = [name for name in sorted(weights) if name.endswith("forward.recurrent_kernel")]
    try:
        sizes = [len(weights[f"{i}.forward.kernel"]) for i in range(len(kernels))]
    except KeyError as error:
        raise InputError(f"{file} does not hold BiLSTMs: {error} is missing") from error
    layers = make_bilstms([(size, len(weights[kernels[0]])) for size in sizes])
    set_weights(layers, weights, where=str(file))
    return layers


def layers_of(state_dict: Mapping[str, Any], prefix: str, source: Path) -> nnx.List[BiLSTM]:
    """Builds BiLSTMs with the weights of a state_dict."""
    sizes = []
    while (name := f"{prefix}weight_ih_l{len(sizes)}") in state_dict:
        gates, features = state_dict[name].shape
        sizes.append((features, gates // 4))
    if not sizes:
        raise InputError(
            f"{source} has no {prefix}weight_ih_l0; expected the state_dict of an LSTM, after --prefix"
        )
    layers = make_bilstms(sizes)
    convert.bilstm_from_torch(state_dict, layers, prefix=prefix)
    return layers


def read_state_dict(file: Path) -> dict[str, np.ndarray]:
    """Reads a file of `torch.save(lstm.state_dict(), file)`, without running code from it."""
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{file} needs PyTorch: pip install torch") from error
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        return {name: x.float().numpy() for name, x in found.items() if torch.is_tensor(x)}
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # PyTorch raises many kinds, pickle's among them
        raise InputError(f"{file} is not a state_dict ({type(error).__name__})") from error


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(argv, input=None, output=None, like=None, prefix="")
    for flag in ("input", "output"):
        if not (asked[flag].value or "").endswith(ENDINGS):
            raise flags.Error(
                f"--{flag} is {asked[flag].value}; expected a file that ends with {', '.join(ENDINGS)}"
            )
    source, target = Path(asked.input).expanduser(), Path(asked.output).expanduser()
    if [source.suffix, target.suffix].count(OURS) != 1:
        raise flags.Error(f"expected one of --input and --output to end with {OURS}")
    try:
        if ".pt" in (source.suffix, target.suffix):
            said = convert_torch(source, target, asked.prefix)
        else:
            said = convert_keras(source, target, asked.like and Path(asked.like).expanduser())
        print(f"{target}: {said}")
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
