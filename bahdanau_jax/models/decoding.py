"""Greedy decoding and beam search for any model that predicts the next token (static shapes, for `jax.jit`)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bahdanau_jax.token_ids import END, PAD, START

# step(state, ids [rows]) -> (log-probabilities of the next id [rows, vocab], state)
Step = Callable[[Any, Int[Array, "rows"]], tuple[Float[Array, "rows vocab"], Any]]


def greedy(
    step: Step, state: Any, *, rows: int, steps: int
) -> tuple[Int[Array, "rows steps"], Float[Array, "rows"]]:
    """Takes the likeliest id at each step.

    Args:
      step: takes the state and the last id of each row, START first. PAD is never taken, however likely.
      state: before the first step.
      rows: number of sequences.
      steps: length of the results. A sequence that has not ended by then is cut off.

    Returns:
      ids, PAD after each END, and the summed log-probability of each row's ids.

    Example:
      >>> import jax.numpy as jnp
      >>> def step(state, ids):  # 4 is likeliest first, then END
      ...     row = jnp.where(ids[:, None] == START, jnp.arange(5) == 4, jnp.arange(5) == END)
      ...     return jnp.log(jnp.where(row, 0.6, 0.1)), state
      >>> ids, score = greedy(step, (), rows=1, steps=3)
      >>> ids.tolist(), round(float(jnp.exp(score[0])), 2)
      ([[4, 3, 0]], 0.36)
    """

    def advance(carry, _):
        state, last, score = carry
        log_probabilities, state = step(state, last)
        log_probabilities = log_probabilities.at[:, PAD].set(-jnp.inf)
        ended = (last == END) | (last == PAD)
        ids = jnp.where(ended, PAD, jnp.argmax(log_probabilities, axis=-1)).astype(last.dtype)
        score += jnp.where(ended, 0, jnp.max(log_probabilities, axis=-1))
        return (state, ids, score), ids

    first = (state, jnp.full(rows, START), jnp.zeros(rows))
    (_, _, score), ids = jax.lax.scan(advance, first, length=steps)
    return ids.T, score


def beam_search(
    step: Step, state: Any, *, rows: int, steps: int, beams: int, length_penalty: float = 0.0
) -> tuple[Int[Array, "rows beams steps"], Float[Array, "rows beams"]]:
    """Keeps the `beams` best beginnings of each row at every step.

    A beginning's score is its summed log-probability, divided by length ** length_penalty (END counts). One
    that has ended stays as it is and competes on. One beam is greedy decoding.

    Args:
      step: as for `greedy`, but for rows * beams sequences, the beams of a row side by side. What depends on
        the source alone and is not in `state` must be repeated: `jnp.repeat(x, beams, axis=0)`.
      state: of the rows before the first step; its arrays have the rows in front.
      rows, steps: as for `greedy`.
      beams: number of beginnings to keep.
      length_penalty: 0 compares sums, 1 means (Wu et al. 2016, arXiv 1609.08144, have a formula between).

    Returns:
      ids, best first, PAD after each END; and their scores, -inf where a row has fewer sequences than beams.

    Example:
      >>> import jax.numpy as jnp
      >>> def step(state, ids):  # 4 or END first, then END
      ...     first, then = jnp.array([0, 0, 0.1, 0.3, 0.6]), jnp.array([0, 0, 0.2, 0.6, 0.2])
      ...     return jnp.log(jnp.where(ids[:, None] == START, first, then)), state
      >>> ids, scores = beam_search(step, (), rows=1, steps=3, beams=2)
      >>> ids[0].tolist(), [f"{p:.2f}" for p in jnp.exp(scores[0])]
      ([[4, 3, 0], [3, 0, 0]], ['0.36', '0.30'])
    """

    def by_row(x):  # [rows * beams, ...] -> [rows, beams, ...]
        return x.reshape(rows, beams, *x.shape[1:])

    def advance(carry, _):
        state, last, total, lengths, index, written = carry
        log_probabilities, state = step(state, last.reshape(-1))
        log_probabilities = by_row(log_probabilities.at[:, PAD].set(-jnp.inf))
        vocab = log_probabilities.shape[-1]
        ended = (last == END) | (last == PAD)
        only_pad = jnp.where(jnp.arange(vocab) == PAD, 0.0, -jnp.inf)
        log_probabilities = jnp.where(ended[..., None], only_pad[None, None], log_probabilities)
        totals = total[..., None] + log_probabilities  # [rows, beams, vocab]
        lengths += ~ended
        scores = totals / jnp.maximum(lengths, 1)[..., None] ** length_penalty
        _, best = jax.lax.top_k(scores.reshape(rows, -1), beams)  # [rows, beams]
        total = jnp.take_along_axis(totals.reshape(rows, -1), best, axis=1)
        beam, ids = best // vocab, (best % vocab).astype(last.dtype)
        flat = (beam + beams * jnp.arange(rows)[:, None]).reshape(-1)
        state = jax.tree.map(lambda x: x[flat], state)
        lengths = jnp.take_along_axis(lengths, beam, axis=1)
        written = jnp.take_along_axis(written, beam[..., None], axis=1).at[:, :, index].set(ids)
        return (state, ids, total, lengths, index + 1, written), None

    first = (
        jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), state),
        jnp.full((rows, beams), START),
        # All beams begin alike: only the first counts.
        jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)[None].repeat(rows, axis=0),
        jnp.zeros((rows, beams), int),
        0,
        jnp.full((rows, beams, steps), PAD),
    )
    (_, _, total, lengths, _, written), _ = jax.lax.scan(advance, first, length=steps)
    return written, total / jnp.maximum(lengths, 1) ** length_penalty
