"""Word vectors from texts without labels: words with similar neighbours or texts get similar vectors."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bahdanau_jax.errors import InputError
from bahdanau_jax.models.nb_svm import joined, norms_of
from bahdanau_jax.models.ngram_vectors import ngram_scores, text_topics
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


def topic_vectors(
    texts: Sequence[np.ndarray], *, vocab_size: int, features: int, seed: int = 0
) -> Float[np.ndarray, "vocab_size features"]:
    """Vectors that tell in which texts a word stands: latent semantic analysis (Deerwester et al. 1990).

    A word counts (1 + log(times in the text)) * log(texts / texts with the word), and each text has norm 1.
    A word's vector is the sum of the leading singular vectors of its texts, of norm 1.

    Args:
      texts: int32 ids of each text, as `Vocabulary.encode` returns them. Padding and START are skipped.
      vocab_size: number of ids.
      features: size of a vector.
      seed: of the first, random vectors of the iteration.

    Returns:
      float32 vectors, zeros for ids that occur in no text.

    Example:
      >>> vectors = topic_vectors([np.array([4, 5]), np.array([6]), np.array([5, 4])], vocab_size=7, features=2)
      >>> (vectors @ vectors.T).round(3)[4:, 4:].tolist()
      [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    from scipy.sparse import csr_array  # takes 0.2 s

    ids, text = joined(texts)
    is_word = (ids == UNKNOWN) | (ids >= FIRST_WORD)
    shape = vocab_size, len(texts)
    by_word = csr_array((np.ones(is_word.sum()), (ids[is_word], text[is_word])), shape)
    by_word.sum_duplicates()
    word = np.repeat(np.arange(vocab_size), np.diff(by_word.indptr))
    holding = np.maximum(np.diff(by_word.indptr), 1)
    values = (1 + np.log(by_word.data)) * np.log(len(texts) / holding)[word]
    values /= norms_of(values**2, by_word.indices, len(texts))[by_word.indices]
    by_word.data = values.astype(np.float32)
    topics = text_topics(by_word, features=features, passes=5, seed=seed)
    # Fewer texts than features have fewer topics; the other features stay zeros.
    return ngram_scores(by_word, topics, np.eye(topics.shape[1], features, dtype=np.float32))


def normalized(
    vectors: Float[np.ndarray, "vocab_size features"], texts: Sequence[np.ndarray]
) -> Float[np.ndarray, "vocab_size features"]:
    """Gives each feature mean 0 and variance 1 over the words of the texts; ids in no text stay zeros.

    Example:
      >>> normalized(np.array([[0.0], [2.0], [4.0], [9.0]]), [np.array([1, 2]), np.array([1, 2])]).tolist()
      [[0.0], [-1.0], [1.0], [0.0]]
    """
    counts = np.bincount(np.concatenate(texts), minlength=len(vectors))
    frequencies = counts / counts.sum()
    moved = vectors - frequencies @ vectors
    scales = np.sqrt(frequencies @ moved**2)
    used = (counts > 0)[:, None]
    return np.where(used, moved / np.where(scales > 0, scales, 1), 0).astype(vectors.dtype)
