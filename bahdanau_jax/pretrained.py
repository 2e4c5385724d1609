"""Starting a classifier from another run's folder: its embedding and first BiLSTM, and the words they know."""

from pathlib import Path

import jax
from flax import nnx

from bahdanau_jax.checkpoint import restore_part
from bahdanau_jax.classifier import AttentionClassifier
from bahdanau_jax.errors import InputError
from bahdanau_jax.text import Vocabulary


def read_vocabulary(folder: str | Path, size: int, marks: bool) -> Vocabulary:
    """The vocabulary of the run to start from: ids must mean there what they mean here.

    Raises:
      InputError: there is none, it has another number of ids, or takes other things for words.
    """
    folder = Path(folder).expanduser()
    if not (folder / "vocabulary.json").is_file():
        raise InputError(
            f"config.init_from is {str(folder)!r}, which holds no vocabulary.json; expected the "
            "folder of a run, such as experiments/imdb_language_model.py leaves"
        )
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    if len(vocabulary) != size:
        raise InputError(
            f"config.vocab_size is {size}, and config.init_from's {folder}/vocabulary.json has "
            f"{len(vocabulary)} ids; expected the same"
        )
    if vocabulary.marks != marks:
        raise InputError(
            f"config.marks is {marks}, and {vocabulary.marks} in config.init_from's {folder}; "
            "expected the same"
        )
    return vocabulary


def start_from(folder: str | Path, *models: AttentionClassifier) -> int:
    """Puts the embedding and the first BiLSTM of a run's newest checkpoint into each model; all else stays.

    Args:
      folder: of a language model's run, or of a single classifier's.
      models: of the same embedding_features, hidden_features and vocab_size.

    Returns:
      the step of the checkpoint.

    Raises:
      InputError: there is no complete checkpoint, it is damaged, lacks a part, or is of other sizes.

    Example::

        model = AttentionClassifier(30_000, hidden_features=128, num_layers=1, rngs=nnx.Rngs(0))
        start_from("runs/imdb_language_model", model)
    """
    folder = Path(folder).expanduser()
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
