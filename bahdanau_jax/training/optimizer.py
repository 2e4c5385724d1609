"""From the config's `optimizer` section to an optax gradient transformation."""

import inspect
from collections.abc import Mapping
from typing import Any

import optax

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.config import Optimizer


def make_optimizer(
    name: str,
    learning_rate: float,
    *,
    total_steps: int,
    schedule: str = "constant",
    clip_norm: float = 0.0,
    options: Mapping[str, Any] = {},  # noqa: B006
    **defaults: float,
) -> optax.GradientTransformation:
    """An optax optimizer by name.

    Args:
      name: "adam", "adamw", "sgd" or "rmsprop".
      learning_rate: of the first step.
      total_steps: of the run.
      schedule: "constant", or "linear": down to 0 at `total_steps`.
      clip_norm: gradients of a larger global norm are scaled down to it (Pascanu et al. 2013, arXiv
        1211.5063). 0: no clipping.
      options: further arguments of the optimizer, such as weight_decay.
      **defaults: b1, b2 and eps. One that the optimizer does not take must have the config's default.

    Raises:
      InputError: the optimizer does not take an argument.

    Example:
      >>> state = make_optimizer("sgd", 0.1, total_steps=10, options={"momentum": 0.9}).init({})
    """
    make = getattr(optax, name)
    taken = inspect.signature(make).parameters
    arguments = {option: value for option, value in defaults.items() if option in taken}
    for option, value in defaults.items():
        if option not in taken and value != Optimizer.model_fields[option].default:
            raise InputError(
                f"config.optimizer.{option} is {value!r}; expected its default, since {name} takes no {option}"
            )
    rate = optax.linear_schedule(learning_rate, 0.0, total_steps)
    try:
        optimizer = make(rate if schedule == "linear" else learning_rate, **arguments, **options)
    except TypeError as error:
        raise InputError(f"config.optimizer.options does not fit {name}: {error}") from error
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer
