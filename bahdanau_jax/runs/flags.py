"""JAX's flags, from variables `JAX_...` or from `jax.config`, on which a run depends; see docs/flags.md."""

import os
from typing import Any

import jax

from bahdanau_jax.errors import InputError, one_line

# A run continues to the same bits only under the same values of these.
_NUMERIC = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)
_REFUSED = {
    "jax_no_execution": "nothing can be computed",
    "jax_no_tracing": "nothing can be computed",
    "jax_array_garbage_collection_guard": "JAX ends the process when Python frees a model",
}
_REFUSED_IN_TRAINING = {"jax_debug_key_reuse": "Flax draws from each key many times, by a count"}

_first_process: int | None = None


def numeric_flags() -> dict[str, Any]:
    """The flags that change a run's numbers, by the names of their variables.

    Example:
      >>> numeric_flags()["JAX_ENABLE_X64"]
      False
    """
    return {name.upper(): getattr(jax.config, name) for name in _NUMERIC}


def check_flags(*, training: bool = False) -> None:
    """Refuses flags that keep JAX from computing, and starts its devices.

    Raises:
      InputError: in one line that names the flag.
    """
    for name, reason in (_REFUSED | (_REFUSED_IN_TRAINING if training else {})).items():
        value = getattr(jax.config, name)
        if value and value != "log":
            raise InputError(f"{name.upper()} is {value}, and {reason}; expected it unset")
    try:
        jax.local_devices()
    except (AssertionError, RuntimeError) as error:
        asked = jax.config.jax_platforms or jax.config.jax_platform_name  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError(
            f"JAX_PLATFORMS is {asked!r}, and JAX cannot use it here ({one_line(error)[:200]}); expected "
            "a platform of this machine, or no JAX_PLATFORMS"
        ) from error


def check_not_forked() -> None:
    """Notes the process in which JAX computes, and refuses another one that was forked from it.

    JAX's threads do not survive a fork: the child would wait for them for ever.

    Raises:
      RuntimeError: in the child of a fork.
    """
    global _first_process
    _first_process = _first_process or os.getpid()
    if _first_process != os.getpid():
        raise RuntimeError(
            f"this process was forked from process {_first_process}, which had loaded a Predictor, and JAX "
            "does not work after a fork; expected Predictor.load in the child alone, or 'spawn'"
        )
