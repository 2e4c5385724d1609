"""Word vectors from texts without labels: words with similar neighbours or texts get similar vectors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from bahdanau_jax.errors import InputError
from bahdanau_jax.models.nb_svm import joined, norms_of
from bahdanau_jax.models.ngram_vectors import ngram_scores, text_topics
from bahdanau_jax.token_ids import FIRST_WORD, UNKNOWN


def load_gensim() -> type:
    """Imports gensim and returns `Word2Vec`.

    Raises:
      InputError: gensim is not installed. It has no wheel for Python 3.14, where `train` leaves it out.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise InputError(
            f"word vectors need gensim: {error}; expected Python 3.11 to 3.13, for which gensim has wheels"
        ) from error
    return Word2Vec


class SkipGram:
    """Skip-gram with negative sampling (Mikolov et al. 2013, arXiv 1310.4546) by gensim, one epoch at a time.

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

    Raises:
      InputError: gensim is not installed.

    Example:
      >>> texts = [np.array([1, 4, 5]), np.array([1, 5, 4])]
      >>> model = SkipGram(texts, vocab_size=7, features=3, subsample=1.0, epochs=2)
      >>> for epoch in range(2):
      ...     model.train_epoch(epoch)
      >>> vectors = model.vectors()
      >>> vectors.shape, vectors.any(axis=1).tolist()
      ((7, 3), [False, False, False, False, True, True, False])
    """

    def __init__(
        self,
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
    ):
        word2vec = load_gensim()
        self.vocab_size, self.epochs, self.learning_rate = vocab_size, epochs, learning_rate
        self._sentences = _Sentences(texts, vocab_size)
        self._model: Any = word2vec(
            sg=1,
            vector_size=features,
            window=window,
            negative=negatives,
            sample=subsample,
            alpha=learning_rate,  # or gensim warns that the first epoch's is higher
            min_count=1,
            workers=1,
            seed=seed,
        )
        self._model.build_vocab(self._sentences)

    def train_epoch(self, epoch: int) -> None:
        """One pass over the texts; `epoch` counts from 0 and sets the learning rate."""
        self._model.train(
            self._sentences,
            total_examples=self._model.corpus_count,
            epochs=1,
            start_alpha=self._learning_rate(epoch),
            end_alpha=self._learning_rate(epoch + 1),
        )

    def _learning_rate(self, epochs: int) -> float:
        return self.learning_rate - (self.learning_rate - 1e-4) * (epochs / self.epochs)

    def vectors(self) -> Float[np.ndarray, "vocab_size features"]:
        """float32 vectors, zeros for ids that occur in no text."""
        keyed = self._model.wv
        vectors = np.zeros((self.vocab_size, keyed.vector_size), np.float32)
        vectors[[int(str(name)) for name in keyed.index_to_key]] = keyed.vectors
        return vectors

    def state(self) -> dict[str, np.ndarray]:
        """What an epoch changes: weights into and out of the hidden layer, and the random generator's state."""
        _, key, position, *_ = self._model.random.get_state()
        return {
            "input": self._model.wv.vectors.copy(),  # the next epoch changes them in place
            "output": self._model.syn1neg.copy(),
            "random": np.append(key, np.uint32(position)),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned after an epoch, with the same bits."""
        self._model.wv.vectors[...] = state["input"]
        self._model.syn1neg[...] = state["output"]
        *key, position = np.asarray(state["random"])
        self._model.random.set_state(("MT19937", np.array(key, np.uint32), int(position)))


class _Sentences:
    """The words of each text as strings, which gensim wants."""

    def __init__(self, texts: Sequence[np.ndarray], vocab_size: int):
        self._texts = texts
        self._names = [str(i) for i in range(vocab_size)]

    def __iter__(self) -> Iterator[list[str]]:
        for ids in self._texts:
            yield [self._names[i] for i in ids.tolist() if i == UNKNOWN or i >= FIRST_WORD]


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
