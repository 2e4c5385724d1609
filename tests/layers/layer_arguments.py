"""Random arguments of a layer's implementation."""

import jax.numpy as jnp
import numpy as np

from bahdanau_jax.layers.layer import Arguments


def make_arguments(
    rng, *, directions, masked, scaled, dtype=jnp.float32, batch=6, time=5, features=3, hidden=8
):
    """Under a mask, the first row has no real step, the second only real ones; masked inputs are NaN."""

    def draw(*shape, dtype=dtype):
        return jnp.asarray(rng.normal(size=shape), dtype)

    mask, inputs = None, draw(batch, time, features)
    if masked:
        mask = rng.random((batch, time)) < 0.6
        mask[0], mask[1] = False, True
        mask[2:] &= np.arange(time) < time - 2  # a block that stops early
        inputs = jnp.where(mask[:, :, None], inputs, jnp.nan)
        mask = jnp.asarray(mask)
    return Arguments(
        inputs,
        mask,
        draw(directions, batch, features) if scaled else None,
        draw(directions, features, 4 * hidden),
        draw(directions, hidden, 4 * hidden) / hidden**0.5,
        draw(directions, 4 * hidden, dtype=jnp.float32),
        draw(directions, batch, hidden, dtype=jnp.float32),
        draw(directions, batch, hidden, dtype=jnp.float32),
    )
