"""Fits the scales of a model that blends several, on validation."""

from typing import Any

import jax
import numpy as np

from bahdanau_jax.models.blend import cross_fitted, fit_scales
from bahdanau_jax.training.compile import Compiled
from bahdanau_jax.training.inputs import Tokenized
from bahdanau_jax.training.session import Session
from bahdanau_jax.training.sharding import on_every_device


def fit_blend(
    run: Session, compiled: Compiled, data: Tokenized, state: Any
) -> tuple[Any, np.ndarray]:
    """Fits `WithNgrams.scales`, if the model has them.

    Returns:
      the state with the scales fitted to all of validation, and validation's logits. Those of each half are
      blended by scales fitted to the other half, so that figures of them are not of texts fitted to.
    """
    ids, labels = data.ids["validation"], data.examples["validation"].labels
    if "scales" not in state[0]:
        return state, compiled.evaluate(state[0], ids)

    def with_scales(scales: np.ndarray) -> Any:
        changed = jax.tree.map(lambda x: x, state)
        changed[0]["scales"][...] = on_every_device(run.mesh, scales)
        return changed

    one_each = np.eye(len(state[0]["scales"][...]), dtype=np.float32)
    voices = np.stack([compiled.evaluate(with_scales(row)[0], ids) for row in one_each])
    return with_scales(fit_scales(voices, labels)), cross_fitted(voices, labels)
