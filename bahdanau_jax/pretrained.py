"""Starting a classifier from another run's folder: its word vectors, or its embedding and first BiLSTM."""

import io
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from bahdanau_jax import digests
from bahdanau_jax.checkpoint import restore_part
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.text import Vocabulary
from bahdanau_jax.workdir import read_json, write_bytes

VECTORS = "vectors.npy"


def save_vectors(folder: Path, vectors: Float[np.ndarray, "vocab_size features"]) -> str:
    """Writes vectors.npy, whole or not at all; returns the digest that result.json keeps.

    Raises:
      InputError: it cannot be written.
    """
    content = io.BytesIO()
    np.save(content, vectors, allow_pickle=False)
    write_bytes(folder / VECTORS, content.getvalue())
    return digests.of_array(vectors)


def read_vectors(
    folder: Path, vocab_size: int, features: int
) -> Float[np.ndarray, "vocab_size features"]:
    """What `save_vectors` wrote.

    Raises:
      InputError: there is none, it is damaged, or of another shape.
    """
    file, shape = folder / VECTORS, (vocab_size, features)
    result = read_json(folder / "result.json")
    # The file's length is known beforehand: nothing larger is read.
    header = 128
    if (size := file.stat().st_size) != (expected := header + 4 * vocab_size * features):
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
    if not isinstance(result, dict) or result.get("vectors_sha256") != digests.of_array(vectors):
        raise InputError(f"{file} is damaged: it is not what the run's result.json tells of")
    return vectors


def mean_vectors(
    vectors: Float[np.ndarray, "vocab_size features"], ids: Sequence[np.ndarray]
) -> Float[np.ndarray, "texts features"]:
    """The mean of each text's vectors.

    Example:
      >>> mean_vectors(np.array([[0.0], [2.0], [4.0]]), [np.array([1, 2]), np.array([1])])
      array([[3.],
             [2.]])
    """
    return np.stack([vectors[row].mean(axis=0) for row in ids])


def read_vocabulary(folder: str | Path, size: int, marks: bool) -> Vocabulary:
    """The vocabulary of the run to start from: ids must mean there what they mean here.

    Raises:
      InputError: there is none, it has more ids, or takes other things for words.
    """
    folder = Path(folder).expanduser()
    if not (folder / "vocabulary.json").is_file():
        raise InputError(
            f"config.init_from is {str(folder)!r}, which holds no vocabulary.json; expected the "
            "folder of a run, such as experiments/imdb_vectors.py leaves"
        )
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    if len(vocabulary) > size:  # fewer, where its texts had no more words
        raise InputError(
            f"config.vocab_size is {size}, and config.init_from's {folder}/vocabulary.json has "
            f"{len(vocabulary)} ids; expected at least as many"
        )
    if vocabulary.marks != marks:
        raise InputError(
            f"config.marks is {marks}, and {vocabulary.marks} in config.init_from's {folder}; "
            "expected the same"
        )
    return vocabulary


def start_from(folder: str | Path, *models: AttentionClassifier) -> int:
    """Puts a run's word vectors, or else its newest checkpoint's embedding and first BiLSTM, into each model.

    All else of the models stays.

    Args:
      folder: of word vectors, or of a single classifier's run.
      models: of the same embedding_features, hidden_features and vocab_size.

    Returns:
      the step of the checkpoint; 0 for word vectors.

    Raises:
      InputError: there is no complete checkpoint, it is damaged, lacks a part, or is of other sizes.

    Example::

        model = AttentionClassifier(30_000, rngs=nnx.Rngs(0))
        start_from("runs/imdb_vectors", model)
    """
    folder = Path(folder).expanduser()
    if (folder / VECTORS).is_file():
        for model in models:
            shape = model.embedding.embedding.shape
            try:
                model.embedding.embedding[...] = jnp.asarray(read_vectors(folder, *shape))
            except InputError as error:
                raise InputError(f"config.init_from: {error}") from error
        return 0
    step = 0
    for model in models:
        part = nnx.Dict(embedding=model.embedding, encoder=nnx.Dict({"0": model.encoder[0]}))
        state = nnx.state(part, nnx.Param)
        try:
            step, arrays = restore_part(folder, nnx.to_pure_dict(state))
        except InputError as error:
            raise InputError(f"config.init_from: {error}") from error
        nnx.replace_by_pure_dict(state, jax.tree.map(jax.numpy.asarray, arrays))
        nnx.update(part, state)
    return step
