"""From the config's `optimizer` section to an optax gradient transformation."""

import difflib

import optax

from bahdanau_jax.errors import InputError

OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": optax.sgd,
    "rmsprop": optax.rmsprop,
}


def make_optimizer(name: str, learning_rate: float, **options) -> optax.GradientTransformation:
    """An optax optimizer by name.

    Args:
      name: one of OPTIMIZERS.
      learning_rate: step size.
      **options: the optimizer's own arguments, e.g. b1, b2, eps of Adam.

    Raises:
      InputError: for an unknown name, with the nearest ones, or an option that the optimizer lacks.
    """
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name, OPTIMIZERS, cutoff=0.3) or sorted(OPTIMIZERS)
        raise InputError(f"config.optimizer.name is {name!r}; did you mean {' or '.join(near)}?")
    try:
        return OPTIMIZERS[name](learning_rate, **options)
    except TypeError as error:
        raise InputError(f"config.optimizer does not fit {name}: {error}") from error
