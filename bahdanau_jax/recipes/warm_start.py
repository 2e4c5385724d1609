"""Starts a classifier from other runs: from word vectors or a first layer, and a language model's states."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from bahdanau_jax.data.find_tokenizer import learns
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.models.fixed import Fixed
from bahdanau_jax.models.language_model_states import LanguageModelStates
from bahdanau_jax.runs import fingerprints
from bahdanau_jax.runs.config import Config, Tokenizer
from bahdanau_jax.runs.restore_model import check_holds_weights, restore_part
from bahdanau_jax.runs.safe_files import read_json, write_bytes
from bahdanau_jax.token_ids import FIRST_WORD, UNKNOWN

VECTORS = "vectors.npy"
_HEADER_BYTES = 128  # of a .npy file
_EXAMPLES = {  # of runs that a config's fields may name
    "init_from": "imdb_vectors.py",
    "language_model": "imdb_small_language_model.py",
}


def save_vectors(folder: Path, vectors: Float[np.ndarray, "vocab_size features"]) -> str:
    """Writes vectors.npy atomically; returns the digest that result.json keeps.

    Raises:
      InputError: the file cannot be written.
    """
    content = io.BytesIO()
    np.save(content, vectors, allow_pickle=False)
    write_bytes(folder / VECTORS, content.getvalue())
    return fingerprints.of_array(vectors)


def read_vectors(
    folder: Path, vocab_size: int, features: int
) -> Float[np.ndarray, "vocab_size features"]:
    """Reads the file that `save_vectors` wrote.

    Raises:
      InputError: the file is missing, damaged or of another shape.
    """
    file, shape = folder / VECTORS, (vocab_size, features)
    result = read_json(folder / "result.json")
    # The shape fixes the file's length, so a larger file is never read.
    expected = _HEADER_BYTES + 4 * vocab_size * features
    if (size := file.stat().st_size) != expected:
        raise InputError(
            f"{file} has {size:,} bytes; expected {expected:,}, which float32 vectors of shape "
            f"{list(shape)} (vocab_size, embedding_features) take"
        )
    try:
        vectors = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{file} is damaged: {error}") from error
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise InputError(
            f"{file} holds {vectors.dtype} of shape {list(vectors.shape)}; expected float32 of {list(shape)}"
        )
    digest = fingerprints.of_array(vectors)
    if not isinstance(result, dict) or result.get("vectors_sha256") != digest:
        raise InputError(f"{file} is damaged: its digest differs from the one in result.json")
    return vectors


def mean_vectors(
    vectors: Float[np.ndarray, "vocab_size features"], ids: Sequence[np.ndarray]
) -> Float[np.ndarray, "texts features"]:
    """Returns the mean of each text's vectors.

    Example:
      >>> mean_vectors(np.array([[0.0], [2.0], [4.0]]), [np.array([1, 2]), np.array([1])])
      array([[3.],
             [2.]])
    """
    return np.stack([vectors[row].mean(axis=0) for row in ids])


def first_vocabulary(config: Config) -> Vocabulary | None:
    """The vocabulary of the run that a classifier starts from, else of its language model, else None.

    Raises:
      InputError: as `read_vocabulary`.
    """
    for field in _EXAMPLES:
        if folder := getattr(config, field):
            return read_vocabulary(folder, config.vocab_size, config.tokenizer, field=field)
    return None


def read_vocabulary(
    folder: str | Path, size: int, tokenizer: Tokenizer, *, field: str = "init_from"
) -> Vocabulary:
    """Reads the vocabulary of another run, with what its tokenizer has learned: the same ids in both.

    Args:
      folder: of the run.
      size: largest number of ids.
      tokenizer: the one that it must have.
      field: of the config, which names the folder; for messages.

    Raises:
      InputError: there is none, it has more than `size` ids, or another tokenizer.
    """
    field, example = f"config.{field}", _EXAMPLES[field]
    file = Path(folder).expanduser() / "vocabulary.json"
    if not file.is_file():
        raise InputError(
            f"{field} is {str(folder)!r}, which holds no vocabulary.json; expected the folder of a run, such "
            f"as one of experiments/{example}"
        )
    vocabulary = Vocabulary.load(file)
    if len(vocabulary) > size:  # it may be smaller, if the run's texts had fewer words
        raise InputError(
            f"config.vocab_size is {size}, and {field}'s {file} has {len(vocabulary)} ids; expected at "
            "least as many"
        )
    asked = tokenizer.model_dump()
    found = {"name": vocabulary.name, "options": vocabulary.options}
    if learns(vocabulary.name):
        found["options"] = asked["options"]  # the vocabulary's are what it learned
    if found != asked:
        raise InputError(
            f"config.tokenizer is {asked}, and {found} in {field}'s {file}; expected the same"
        )
    return vocabulary


def start_from(folder: str | Path, network: Any) -> int:
    """Copies a run's word vectors, or its newest checkpoint's embedding and first BiLSTM, into a network.

    The other weights of the network stay.

    Args:
      folder: of a run that learned word vectors, or of a classifier's run.
      network: an AttentionClassifier, or a module with an `embedding` and an `encoder` as it has, of the same
        vocab_size, embedding_features and hidden_features as the run.

    Returns:
      the step of the checkpoint; 0 for word vectors.

    Raises:
      InputError: the folder has no complete checkpoint, it is damaged, or its sizes do not fit.

    Example::

        network = AttentionClassifier(30_000, rngs=nnx.Rngs(0))
        start_from("runs/imdb_vectors", network)
    """
    folder = Path(folder).expanduser()
    try:
        if (folder / VECTORS).is_file():
            table = network.embedding.embedding
            table[...] = jnp.asarray(read_vectors(folder, *table.shape))
            return 0
        part = nnx.Dict(embedding=network.embedding, encoder=nnx.Dict({"0": network.encoder[0]}))
        state = nnx.state(part, nnx.Param)
        names: Any = nnx.to_pure_dict(state)
        saved = _saved_config(folder)
        check_holds_weights(folder, saved)
        if saved.get("task") == "language_model":
            _check_finished(folder)
        has_ngrams = bool(saved.get("model", {}).get("ngrams"))
        step, arrays = restore_part(folder, {"network": names} if has_ngrams else names)
        arrays = arrays["network"] if has_ngrams else arrays
    except InputError as error:
        raise InputError(f"config.init_from: {error}") from error
    except AttributeError as error:
        raise InputError(
            f"config.init_from: {type(network).__name__} cannot start from a run ({error}); expected "
            "an `embedding` and an `encoder` as AttentionClassifier has"
        ) from error
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, arrays))
    nnx.update(part, state)
    return step


def read_language_model(
    folder: str | Path, states: LanguageModelStates, vocabulary: Vocabulary
) -> None:
    """Copies a language model's weights from its run. A word that it does not know gets the unknown word's.

    Args:
      folder: of a finished run of a language model.
      states: of the same embedding_features and hidden_features; is changed.
      vocabulary: of the network whose inputs the states are.

    Raises:
      InputError: the folder holds no finished language model, it is damaged, its sizes do not fit, or its
        tokenizer is not the vocabulary's.

    Example::

        states = LanguageModelStates(30_000, embedding_features=128, hidden_features=256, rngs=nnx.Rngs(0))
        read_language_model("runs/imdb_small_language_model", states, vocabulary)
    """
    folder = Path(folder).expanduser()
    try:
        saved = _saved_config(folder)
        if saved.get("task") != "language_model":
            raise InputError(
                f"{folder} holds no language model; expected the folder of a run, such as one of "
                f"experiments/{_EXAMPLES['language_model']}"
            )
        _check_finished(folder)
        known = Vocabulary.load(folder / "vocabulary.json")
        cut = vocabulary.name, vocabulary.options
        if (known.name, known.options) != cut:
            raise InputError(
                f"the tokenizer in {folder} is {(known.name, known.options)!r:.200}, the classifier's "
                f"{cut!r:.200}; expected the same"
            )
        state = nnx.state(states, Fixed)
        names: Any = nnx.to_pure_dict(state)
        own = names["embedding"]["embedding"]
        size = saved.get("vocab_size")
        size = size if isinstance(size, int) else 0
        for whose, words, ids in (("its", known, size), ("the classifier's", vocabulary, len(own))):
            if len(words) > ids:
                raise InputError(
                    f"{folder}: {whose} vocabulary has {len(words):,} ids; expected at most {ids:,}"
                )
        names["embedding"]["embedding"] = jax.ShapeDtypeStruct((size, own.shape[1]), own.dtype)
        wanted = {"embedding": names["embedding"], "encoder": {"0": names["encoder"]}}
        _, arrays = restore_part(folder, wanted)
    except InputError as error:
        raise InputError(f"config.language_model: {error}") from error
    at = {word: FIRST_WORD + i for i, word in enumerate(known.words)}
    rows = [*range(FIRST_WORD), *(at.get(word, UNKNOWN) for word in vocabulary.words)]
    rows += [UNKNOWN] * (len(own) - len(rows))  # ids that no word has
    table = arrays["embedding"]["embedding"][np.array(rows)]
    arrays = {"embedding": {"embedding": table}, "encoder": arrays["encoder"]["0"]}
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, arrays))
    nnx.update(states, state)


def _check_finished(folder: Path) -> None:
    """Checks that a language model has finished: its word vectors are normalised after the last step."""
    if not (folder / "result.json").is_file():
        raise InputError(
            f"the language model in {folder} has not finished: it holds no result.json; rerun its command"
        )


def _saved_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    found = read_json(file) if file.is_file() else {}
    return found if isinstance(found, dict) else {}
