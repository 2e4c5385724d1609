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


SCHEDULES = ("constant", "linear")


def make_optimizer(
    name: str,
    learning_rate: float,
    *,
    total_steps: int,
    schedule: str = "constant",
    clip_norm: float = 0.0,
    **options,
) -> optax.GradientTransformation:
    """An optax optimizer by name.

    Args:
      name: one of OPTIMIZERS.
      learning_rate: step size, at the start where it decays.
      total_steps: of the run.
      schedule: "constant", or "linear": down to 0 at `total_steps`.
      clip_norm: gradients of a larger global norm are scaled down to it (Pascanu et al. 2013,
        1211.5063); 0: never.
      **options: the optimizer's own arguments, e.g. b1, b2, eps of Adam.

    Raises:
      InputError: for an unknown name, with the nearest ones, or an option that the optimizer lacks.
    """
    if name not in OPTIMIZERS:
        near = difflib.get_close_matches(name, OPTIMIZERS, cutoff=0.3) or sorted(OPTIMIZERS)
        raise InputError(f"config.optimizer.name is {name!r}; did you mean {' or '.join(near)}?")
    if schedule not in SCHEDULES:
        expected = " or ".join(SCHEDULES)
        raise InputError(f"config.optimizer.schedule is {schedule!r}; expected {expected}")
    if not 0 <= clip_norm < float("inf"):
        raise InputError(f"config.optimizer.clip_norm is {clip_norm}; expected 0 (never) or more")
    rate = optax.linear_schedule(learning_rate, 0.0, total_steps)
    try:
        optimizer = OPTIMIZERS[name](rate if schedule == "linear" else learning_rate, **options)
    except TypeError as error:
        raise InputError(f"config.optimizer does not fit {name}: {error}") from error
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer
