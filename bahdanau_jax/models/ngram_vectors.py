"""Vectors of n-grams, learned from texts without their labels."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from jaxtyping import Float

CsrArray = Any  # scipy.sparse.csr_array, which has no types

_THREADS = min(4, os.cpu_count() or 1)  # each has sums of its own
_ROWS = 100_000  # n-grams whose vectors are in memory at once: those of all would be gigabytes


def text_topics(
    by_ngram: CsrArray, *, features: int, passes: int = 3, seed: int = 0
) -> Float[np.ndarray, "texts features"]:
    """The leading singular vectors of texts and their n-grams; orthonormal columns.

    Latent semantic analysis (Deerwester et al. 1990), by subspace iteration (Halko et al. 2011, arXiv
    0909.4061, algorithm 4.4).

    Args:
      by_ngram: float32 [ngrams, texts], what each n-gram counts in each text; 0 where it does not occur.
      features: number of singular vectors.
      passes: number of iterations.
      seed: of the first, random vectors.
    """
    rng = np.random.default_rng(seed)
    ngrams, texts = by_ngram.shape
    sums = np.zeros((texts, features), np.float32)
    for start in range(0, ngrams, _ROWS):
        block = by_ngram[start : start + _ROWS]
        sums += block.T @ rng.standard_normal((block.shape[0], features), np.float32)
    topics, _ = np.linalg.qr(sums)
    for _ in range(passes - 1):
        topics, _ = np.linalg.qr(_there_and_back(by_ngram, topics, unit=False))
    return topics


def text_vectors(
    by_ngram: CsrArray, topics: Float[np.ndarray, "texts features"]
) -> Float[np.ndarray, "texts features"]:
    """The sum of the vectors of each text's n-grams, each times what it counts in the text."""
    return _there_and_back(by_ngram, topics, unit=True)


def ngram_scores(
    by_ngram: CsrArray,
    topics: Float[np.ndarray, "texts features"],
    coefficients: Float[np.ndarray, "features outputs"],
) -> Float[np.ndarray, "ngrams outputs"]:
    """The product of each n-gram's vector and the coefficients.

    An n-gram's vector is the sum of the topics of its texts, divided by its norm. So n-grams of similar texts
    have similar vectors, and a rare n-gram's vector is as long as a frequent one's.

    Example:
      >>> from scipy.sparse import csr_array
      >>> values = csr_array(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]], np.float32))
      >>> topics = text_topics(values.T.tocsr(), features=2)
      >>> vectors = ngram_scores(values.T.tocsr(), topics, np.eye(2, dtype=np.float32))
      >>> np.abs(vectors @ vectors.T).round(3).tolist()[0]
      [1.0, 1.0, 0.0, 0.0]
    """
    scores = []
    for start in range(0, by_ngram.shape[0], _ROWS):
        vectors = by_ngram[start : start + _ROWS] @ topics
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        scores.append(vectors @ coefficients / np.where(norms > 0, norms, 1))
    return np.concatenate(scores)


def _there_and_back(by_ngram: CsrArray, topics: np.ndarray, *, unit: bool) -> np.ndarray:
    """The texts' sums of n-grams' vectors, which are the n-grams' sums of `topics`, of norm 1 if `unit`."""
    bounds = np.searchsorted(
        by_ngram.indptr, np.linspace(0, by_ngram.nnz, _THREADS + 1).astype(np.int64)
    )
    bounds[-1] = by_ngram.shape[0]

    def part(k: int) -> np.ndarray:
        rows = slice(bounds[k], bounds[k + 1] + 1)
        sums = np.zeros_like(topics)
        _add(by_ngram.indptr[rows], by_ngram.indices, by_ngram.data, topics, unit, sums)
        return sums

    with ThreadPoolExecutor(_THREADS) as pool:
        return np.sum(list(pool.map(part, range(_THREADS))), axis=0)


@numba.njit(nogil=True, fastmath=True)
def _add(ends, texts, values, topics, unit, sums):
    size = topics.shape[1]
    vector = np.empty(size, np.float32)
    for ngram in range(len(ends) - 1):
        vector[:] = 0
        for i in range(ends[ngram], ends[ngram + 1]):
            text, value = texts[i], values[i]
            for k in range(size):
                vector[k] += value * topics[text, k]
        norm = np.float32(1)
        if unit:
            norm = np.sqrt(np.sum(vector * vector))
        if norm > 0:
            for i in range(ends[ngram], ends[ngram + 1]):
                text, value = texts[i], values[i] / norm
                for k in range(size):
                    sums[text, k] += value * vector[k]
