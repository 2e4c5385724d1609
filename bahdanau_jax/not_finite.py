"""A loss, gradient or parameter that is NaN or infinite: the step is left out, then told or the run stopped.

The step itself decides on the device, so a bad one never reaches the parameters. What it found is looked
at when the run fetches its figures anyway: nothing waits for it.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from bahdanau_jax.errors import InputError
from bahdanau_jax.objective import AnyArray, Metrics
from bahdanau_jax.workdir import write_json


class Report(NamedTuple):
    """What a training step found; it stays on the device until somebody asks."""

    metrics: Metrics  # all 0 where the step was left out
    loss: Float[AnyArray, ""]
    parameter_norms: Float[AnyArray, "parts"]  # before the step, in the order of `part_names`
    gradient_norms: Float[AnyArray, "parts"]

    @property
    def finite(self) -> Bool[AnyArray, ""]:
        """Whether the loss, every gradient and every parameter was finite."""
        array = np if isinstance(self.loss, np.ndarray | np.generic | float) else jnp
        norms = array.concatenate([self.parameter_norms, self.gradient_norms])
        return array.isfinite(self.loss) & array.all(array.isfinite(norms))


class NotFinite(InputError):
    """The run met more steps that are not finite than it may leave out."""


def part_names(parameters: nnx.State) -> list[str]:
    """The path of each parameter array: `["bias", "kernel"]` for an `nnx.Linear`."""
    return [".".join(map(str, path)) for path, _ in nnx.to_flat_state(parameters)]


def part_norms(parameters: nnx.State) -> Float[Array, "parts"]:
    """The Euclidean norm of each array, in float32; infinite where it is past float32's range."""
    arrays = [variable.get_value() for _, variable in nnx.to_flat_state(parameters)]
    return jnp.stack([jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)))) for x in arrays])


def checked_before(sums: Iterable[Any]) -> Report:
    """The report of a step that an earlier start of the run checked, of which it kept the sums."""
    nothing = np.zeros(0, np.float32)
    return Report(Metrics(*map(float, sums)), np.zeros((), np.float32), nothing, nothing)


class Watch:
    """Looks at the steps' reports and counts those that were left out.

    Args:
      names: as of `part_names`.
      max_skipped: how many steps of a run may be left out.
      skipped: how many were, before this start.
      review_ids: gives the ids of the reviews in the batch of a step, counted from 1.
      workdir: gets `not_finite.json` with all that is known of the step that stops the run.

    Example::

        for note in watch.check(step, fetched):
            print(note)
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        max_skipped: int,
        skipped: int,
        review_ids: Callable[[int], Sequence[str]],
        workdir: Path,
    ):
        self.skipped = skipped
        self._names, self._max_skipped = names, max_skipped
        self._review_ids, self._workdir = review_ids, workdir

    def check(self, last_step: int, reports: Sequence[Report]) -> list[str]:
        """Looks at fetched reports of consecutive steps, the last one that of `last_step`.

        Returns:
          a line for each step that was left out.

        Raises:
          NotFinite: where that is one too many.
        """
        notes = []
        for step, report in enumerate(reports, start=last_step - len(reports) + 1):
            if report.finite:
                continue
            self.skipped += 1
            if self.skipped > self._max_skipped:
                raise NotFinite(self._stop(step, report))
            notes.append(
                f"warning: step {step} was left out ({self.skipped} of at most {self._max_skipped}): "
                + self._what(report)
            )
        return notes

    def _what(self, report: Report) -> str:
        """Such as "its loss is nan, the gradients of 2 of 3 parts are not finite (bias, kernel)"."""
        found = []
        if not np.isfinite(report.loss):
            found.append(f"its loss is {report.loss}")
        for kind, norms in (
            ("gradients", report.gradient_norms),
            ("values", report.parameter_norms),
        ):
            bad = [
                name for name, norm in zip(self._names, norms, strict=True) if not np.isfinite(norm)
            ]
            if bad:
                listed = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
                found.append(
                    f"the {kind} of {len(bad)} of {len(self._names)} parts are not finite ({listed})"
                )
        return "; ".join(found)

    def _stop(self, step: int, report: Report) -> str:
        file = self._workdir / "not_finite.json"
        ids = list(self._review_ids(step))
        found: dict[str, Any] = {
            "step": step,
            "loss": str(report.loss),  # JSON has neither NaN nor infinity
            "reviews": ids,
            "norms": {
                name: {"parameter": str(parameter), "gradient": str(gradient)}
                for name, parameter, gradient in zip(
                    self._names, report.parameter_norms, report.gradient_norms, strict=True
                )
            },
        }
        if jax.process_index() == 0:
            write_json(file, found)
        few = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        already = f" after {self._max_skipped} that were left out" if self._max_skipped else ""
        return (
            f"step {step} is not finite{already}: {self._what(report)}; its {len(ids)} reviews ({few}) "
            f"and the norm of each part are in {file}; expected a smaller "
            "config.optimizer.learning_rate, config.optimizer.clip_norm above 0, or more "
            f"config.max_skipped_steps than {self._max_skipped}"
        )
