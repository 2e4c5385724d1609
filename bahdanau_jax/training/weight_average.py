"""A running mean of the weights, with which the model predicts while other weights are trained."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int


class AverageState(NamedTuple):
    """State of `averaged`: that of its optimizer, the weights that are trained, and the number of steps."""

    inner: Any
    trained: Any
    count: Int[Array, ""]


def averaged(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """An optimizer that turns the parameters into a running mean of the weights that it trains.

    Step n moves the mean by 1 - min(decay, n / (9 + n)) of the way towards the trained weights: the mean
    soon forgets the first weights, and later covers about 1 / (1 - decay) steps. Gradients must be taken at
    `trained_weights`. Whoever reads the parameters, as validation and exports do, reads the mean.

    Args:
      inner: trains the weights.
      decay: of the mean, below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> mean, optimizer = jnp.array(8.0), averaged(optax.sgd(1.0), decay=0.5)
      >>> state = optimizer.init(mean)
      >>> updates, state = optimizer.update(jnp.array(5.0), state, mean)
      >>> float(state.trained), round(float(mean + updates), 4)
      (3.0, 3.5)
    """

    def init(params: Any) -> AverageState:
        return AverageState(
            inner.init(params), jax.tree.map(jnp.copy, params), jnp.zeros((), jnp.int32)
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AverageState]:
        updates, inner_state = inner.update(updates, state.inner, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        count = state.count + 1
        n = count.astype(jnp.float32)
        share = 1 - jnp.minimum(decay, n / (9 + n))
        moves = jax.tree.map(
            lambda new, mean: (share * (new - mean)).astype(mean.dtype), trained, params
        )
        return moves, AverageState(inner_state, trained, count)

    return optax.GradientTransformation(init, update)


def trained_weights(params: nnx.State, optimizer: nnx.Optimizer) -> nnx.State:
    """The weights at which gradients are taken: the parameters, or those that `averaged` trains."""
    if not isinstance(optimizer.opt_state, AverageState):
        return params
    trained = jax.tree.leaves(nnx.as_pure(optimizer.opt_state.trained))
    return jax.tree.unflatten(jax.tree.structure(params), trained)
