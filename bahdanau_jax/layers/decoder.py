"""Bahdanau's decoder: a GRU or LSTM that attends to its memory before each step (arXiv 1409.0473, 3.1)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from bahdanau_jax.layers.dtypes import floating
from bahdanau_jax.layers.gru import GRU
from bahdanau_jax.layers.gru_functions import next_state
from bahdanau_jax.layers.lstm import LSTM
from bahdanau_jax.layers.masks import check_mask

State = Any  # h [batch, hidden] of a GRU, (h, c) of an LSTM


class Decoded(NamedTuple):
    """What a decoder returns for one step, or with an axis `steps` after the batch for all.

    Attributes:
      outputs: the states h, [batch, (steps,) hidden]; 0 at masked steps.
      contexts: [batch, (steps,) context_features]; 0 at masked steps.
      weights: of the attention, [batch, (steps,) (heads,) time]; 0 at masked steps. None without attention.
      state: after the step, or after the last real one.
    """

    outputs: Array
    contexts: Array
    weights: Array | None
    state: State


class BahdanauDecoder(nnx.Module):
    """A recurrent decoder: each step reads an input and the context that its state attends to.

    At each step i, with the input y (the embedding of the token before)::

        context, weights = attention.attend(h, memory)
        h = cell(h, [y, context])

    The memory is prepared once per source, as `attention.project(keys, mask=mask)`, so the keys are not
    projected at every step. Without attention the memory is itself the context, [batch, context_features],
    the same at every step, as in Cho et al. 2014 (arXiv 1406.1078).

    Args:
      in_features, hidden_features: sizes of inputs and state.
      context_features: size of a context: that of the memory's values, times the number of heads.
      cell: "gru" (the paper's) or "lstm".
      reset_after: the GRU's variant, see `gru`. The paper's is False.
      attention: a `BahdanauAttention` whose queries have `hidden_features`, another module with such a method
        `attend(query, memory) -> (context, weights)`, or None.
      rngs: stream `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from bahdanau_jax.layers import BahdanauAttention
      >>> rngs = nnx.Rngs(0)
      >>> attention = BahdanauAttention(query_features=6, key_features=4, units=8, rngs=rngs)
      >>> decoder = BahdanauDecoder(3, 6, context_features=4, attention=attention, rngs=rngs)
      >>> memory = attention.project(jnp.ones((2, 5, 4)))
      >>> decoded = decoder(jnp.ones((2, 7, 3)), memory, jnp.zeros((2, 6)))
      >>> decoded.outputs.shape, decoded.weights.shape
      ((2, 7, 6), (2, 7, 5))
      >>> decoder.step(jnp.ones((2, 3)), memory, decoded.state).outputs.shape
      (2, 6)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        context_features: int,
        cell: str = "gru",
        reset_after: bool = True,
        attention: nnx.Module | None = None,
        rngs: nnx.Rngs,
    ):
        if cell not in ("gru", "lstm"):
            raise ValueError(f"cell is {cell!r}; expected 'gru' or 'lstm'")
        features = in_features + context_features
        self.attention = attention
        # Only the weights are used: the layer itself runs over inputs that are known beforehand.
        self.cell: GRU | LSTM
        if cell == "gru":
            self.cell = GRU(features, hidden_features, reset_after=reset_after, rngs=rngs)
        else:
            self.cell = LSTM(features, hidden_features, rngs=rngs)

    def __call__(
        self,
        inputs: Float[Array, "batch steps in"],
        memory: Any,
        initial_state: State,
        mask: Bool[Array, "batch steps"] | None = None,
    ) -> Decoded:
        """Runs over inputs that are all known, as in training (teacher forcing).

        Args:
          inputs: [batch, steps, in_features].
          memory: what the attention's `attend` takes; without attention [batch, context_features].
          initial_state: h, or (h, c) of an LSTM, each [batch, hidden].
          mask: [batch, steps] bool, True where a step is real, in any pattern. None: all steps are real.

        Raises:
          ValueError: a shape or the mask's dtype is wrong; the message names what was expected and found.
        """
        inputs, mask = floating(inputs), None if mask is None else jnp.asarray(mask)
        self._check(inputs, initial_state, ("batch", "steps"))
        if mask is not None:
            check_mask("mask", mask, inputs.shape[:2])
        real = None if mask is None else mask.T[:, :, None]  # [steps, batch, 1]
        if real is not None:  # keeps NaN at masked steps out of the weights' gradient
            inputs = jnp.where(jnp.swapaxes(real, 0, 1), inputs, 0)
        # One product projects the inputs of all steps; the scan adds the contexts'.
        projected = self._project(jnp.swapaxes(inputs, 0, 1))

        def step(state, xs):
            projected, real = xs
            new = self._step(projected, memory, state)
            if real is None:
                return new.state, new[:3]
            state = jax.tree.map(lambda new, old: jnp.where(real, new, old), new.state, state)

            def masked(x):
                return jnp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, 0)

            return state, jax.tree.map(masked, new[:3])

        state, steps = jax.lax.scan(step, initial_state, (projected, real))
        outputs, contexts, weights = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)
        return Decoded(outputs, contexts, weights, state)

    def step(self, inputs: Float[Array, "batch in"], memory: Any, state: State) -> Decoded:
        """Takes one step, as a search does that finds its inputs one by one; see `__call__`."""
        inputs = floating(inputs)
        self._check(inputs, state, ("batch",))
        return self._step(self._project(inputs), memory, state)

    def _project(self, inputs: Array) -> Array:
        """The inputs' part of the gates."""
        kernel = self.cell.kernel[: inputs.shape[-1]]
        return inputs @ kernel + self.cell.bias[...].reshape(*[1] * (inputs.ndim - 1), -1)

    def _step(self, projected: Array, memory: Any, state: State) -> Decoded:
        cell = self.cell
        h = state if isinstance(cell, GRU) else state[0]
        if self.attention is None:
            context, weights = memory, None
        else:
            attend: Any = getattr(self.attention, "attend")  # noqa: B009, nnx.Module declares none
            context, weights = attend(h, memory)
        projected = projected + context @ cell.kernel[-context.shape[-1] :]
        recurrent_kernel = cell.recurrent_kernel[...]
        if isinstance(cell, GRU):
            bias = None if cell.recurrent_bias is None else cell.recurrent_bias[...]
            h = next_state(projected, h, recurrent_kernel, bias, reset_after=cell.reset_after)
            return Decoded(h, context, weights, h)
        h, c = _lstm_step(projected, state, recurrent_kernel)
        return Decoded(h, context, weights, (h, c))

    def _check(self, inputs: Array, state: State, leading: tuple[str, ...]) -> None:
        hidden = self.cell.recurrent_kernel.shape[0]
        if inputs.ndim != len(leading) + 1:
            raise ValueError(
                f"inputs: expected [{', '.join(leading)}, features], got shape {inputs.shape}"
            )
        expected = [(inputs.shape[0], hidden)] * (1 if isinstance(self.cell, GRU) else 2)
        found = [x.shape for x in jax.tree.leaves(state)]
        if found != expected:
            raise ValueError(f"initial_state: expected shapes {expected}, got {found}")


def _lstm_step(projected, state, recurrent_kernel):
    """One step of `lstm`, from inputs that are already projected."""
    h, c = state
    i, f, g, o = jnp.split(projected + h @ recurrent_kernel, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c
