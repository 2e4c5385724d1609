"""What a training step reports: sums of its metrics, and norms that show whether it was finite."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from bahdanau_jax.evaluation.metrics import Metrics
from bahdanau_jax.models.probabilities import AnyArray


class StepReport(NamedTuple):
    """Stays on the device until it is fetched."""

    metrics: Metrics  # all 0 where the step was skipped
    loss: Float[AnyArray, ""]
    parameter_norms: Float[AnyArray, "parts"]  # before the step, in the order of `part_names`
    gradient_norms: Float[AnyArray, "parts"]

    @property
    def finite(self) -> Bool[AnyArray, ""]:
        """Whether the loss, every gradient and every parameter was finite."""
        array = np if isinstance(self.loss, np.ndarray | np.generic | float) else jnp
        norms = array.concatenate([self.parameter_norms, self.gradient_norms])
        return array.isfinite(self.loss) & array.all(array.isfinite(norms))


def part_names(parameters: nnx.State) -> list[str]:
    """The path of each parameter array: `["bias", "kernel"]` for an `nnx.Linear`."""
    return [".".join(map(str, path)) for path, _ in nnx.to_flat_state(parameters)]


def part_norms(parameters: nnx.State) -> Float[Array, "parts"]:
    """The Euclidean norm of each array, in float32; infinite beyond float32's range."""
    arrays = [variable.get_value() for _, variable in nnx.to_flat_state(parameters)]
    return jnp.stack([jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)))) for x in arrays])


def already_checked(sums: Iterable[Any]) -> StepReport:
    """The report of a step that was found finite before, of which only the sums were kept."""
    nothing = np.zeros(0, np.float32)
    return StepReport(Metrics(*map(float, sums)), np.zeros((), np.float32), nothing, nothing)
