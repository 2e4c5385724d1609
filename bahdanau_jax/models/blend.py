"""Blends the logits of several models by scales that are fitted to labelled texts."""

import numpy as np
from jaxtyping import Float, Int


def fit_scales(
    voices: Float[np.ndarray, "voices n outputs"], labels: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "voices"]:
    """The scales, none below 0, with which the sum of the logits has the greatest likelihood.

    For two classes this is a logistic regression without penalty and intercept. The scales also correct the
    temperature: their sum is not 1. The true class has the probability (n + 1) / (n + 2), with n texts of the
    class, as in Platt (1999), "Probabilistic outputs for support vector machines". With 1 the likelihood would
    have no maximum where the models make no mistake.

    Args:
      voices: each model's logits of the same texts, which no model has trained on.
      labels: the classes of the texts.

    Example:
      >>> good, bad = np.array([[[2.0], [-2.0], [3.0], [1.0]], [[0.0], [0.0], [-1.0], [0.0]]])
      >>> [round(x, 2) for x in fit_scales(np.stack([good, bad]), np.array([1, 0, 1, 0])).tolist()]
      [0.35, 0.0]
    """
    # Imported here: they take half a second, which other models need not wait for.
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    z = np.asarray(voices, np.float64)
    if z.shape[2] == 1:  # a softmax of (0, z) is the sigmoid of z
        z = np.concatenate([np.zeros_like(z), z], axis=2)
    n, classes = max(1, len(labels)), z.shape[2]
    others = 1 / (np.bincount(labels, minlength=classes)[labels] + 2)[:, None]  # [n, 1]
    true = np.where(np.eye(classes, dtype=bool)[labels], 1 - others, others / (classes - 1))

    def loss(scales: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_softmax(np.tensordot(scales, z, 1), axis=1)
        gradient = np.tensordot(z, np.exp(log_p) - true, 2)
        return -float((log_p * true).sum()) / n, gradient / n

    start = np.full(len(z), 1 / len(z))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(z), tol=1e-10
    )
    return found.x.astype(np.float32)


def cross_fitted(
    voices: Float[np.ndarray, "voices n outputs"], labels: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n outputs"]:
    """The blend of every text by scales fitted to the other half of the texts: every second one."""
    blend = np.empty(voices.shape[1:], np.float32)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - half.start, None, 2)
        scales = fit_scales(voices[:, other], labels[other])
        blend[half] = np.tensordot(scales, voices[:, half], 1)
    return blend
