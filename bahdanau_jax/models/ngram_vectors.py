"""Vectors of n-grams, learned from texts without their labels."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array


def ngram_vectors(
    values: csr_array, *, features: int, passes: int = 3, seed: int = 0
) -> Float[np.ndarray, "ngrams features"]:
    """Vectors of norm 1; n-grams of similar texts have similar ones.

    Latent semantic analysis (Deerwester et al. 1990): the texts' leading singular vectors, found by subspace
    iteration (Halko et al. 2011, arXiv 0909.4061, algorithm 4.4). An n-gram's vector is the sum of those of its
    texts, up to its norm. So a rare n-gram's vector is as long as a frequent one's.

    Args:
      values: float32 [texts, ngrams], what each n-gram counts in each text; 0 where it does not occur.
      features: size of a vector.
      passes: number of iterations.
      seed: of the first, random vectors.

    Example:
      >>> values = csr_array(np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]], np.float32))
      >>> vectors = ngram_vectors(values, features=2)
      >>> (vectors @ vectors.T).round(3).tolist()[0]
      [1.0, 1.0, 0.0, 0.0]
    """
    transposed: Any = values.T.tocsr()
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((transposed.shape[0], features), np.float32)
    for _ in range(passes):
        texts, _ = np.linalg.qr(values @ vectors)  # [texts, features], orthonormal
        del vectors  # before the next ones are made: gigabytes
        vectors = transposed @ texts
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1)
    return vectors
