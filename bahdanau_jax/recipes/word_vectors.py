"""Word vectors from texts without labels: words with similar neighbours get similar vectors."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bahdanau_jax.errors import InputError
from bahdanau_jax.token_ids import FIRST_WORD, UNKNOWN


def load_gensim() -> tuple[type, type]:
    """Imports gensim and returns `Word2Vec` and the base class of its callbacks.

    Raises:
      InputError: gensim is not installed. It has no wheel for Python 3.14, where `train` leaves it out.
    """
    try:
        from gensim.models import Word2Vec
        from gensim.models.callbacks import CallbackAny2Vec
    except ImportError as error:
        raise InputError(
            f"word vectors need gensim: {error}; expected Python 3.11 to 3.13, for which gensim has wheels"
        ) from error
    return Word2Vec, CallbackAny2Vec


def skip_gram(
    texts: Sequence[np.ndarray],
    *,
    vocab_size: int,
    features: int,
    window: int = 8,
    negatives: int = 5,
    subsample: float = 1e-4,
    epochs: int = 8,
    learning_rate: float = 0.05,
    seed: int = 0,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> Float[np.ndarray, "vocab_size features"]:
    """Learns skip-gram vectors with negative sampling (Mikolov et al. 2013, arXiv 1310.4546), with gensim.

    It uses one thread: with more, the result would differ from run to run.

    Args:
      texts: int32 ids of each text, as `Vocabulary.encode` returns them. Padding and START are skipped.
      vocab_size: number of ids.
      features: size of a vector.
      window: words to either side that a word predicts, at most; the number is drawn for each word.
      negatives: negative samples per predicted word.
      subsample: words above this frequency are sometimes skipped.
      epochs: passes over the texts.
      learning_rate: at the start; it falls linearly to 1e-4.
      seed: of everything random.
      after_epoch: called with 1, 2, ... when an epoch ends; an exception that it raises ends the training.

    Returns:
      float32 vectors, zeros for ids that occur in no text.

    Example:
      >>> texts = [np.array([1, 4, 5]), np.array([1, 5, 4])]
      >>> vectors = skip_gram(texts, vocab_size=7, features=3, subsample=1.0, epochs=1)
      >>> vectors.shape, vectors.any(axis=1).tolist()
      ((7, 3), [False, False, False, False, True, True, False])
    """
    word2vec, callback = load_gensim()
    names = [str(i) for i in range(vocab_size)]  # gensim wants words as strings

    class Sentences:
        def __iter__(self) -> Iterator[list[str]]:
            for ids in texts:
                yield [names[i] for i in ids.tolist() if i == UNKNOWN or i >= FIRST_WORD]

    class Epochs(callback):
        done = 0

        def on_epoch_end(self, model: Any) -> None:
            self.done += 1
            after_epoch(self.done)

    model = word2vec(
        Sentences(),
        sg=1,
        vector_size=features,
        window=window,
        negative=negatives,
        sample=subsample,
        epochs=epochs,
        alpha=learning_rate,
        min_count=1,
        workers=1,
        seed=seed,
        callbacks=[Epochs()],
    )
    vectors = np.zeros((vocab_size, features), np.float32)
    ids = [int(str(name)) for name in model.wv.index_to_key]
    vectors[ids] = model.wv.vectors
    return vectors
