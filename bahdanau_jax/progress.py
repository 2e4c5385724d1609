"""What a checkpoint says of the run so far beside its arrays: times, the best validation, open figures."""

import dataclasses
import math
from typing import Any

from bahdanau_jax.clock import Clock
from bahdanau_jax.errors import InputError
from bahdanau_jax.not_finite import Report, checked_before


@dataclasses.dataclass
class Progress:
    """Goes into a checkpoint as JSON, and comes out of one that anybody may have written.

    Attributes:
      clock: how long was trained.
      best: {"step", "epoch", "loss", "accuracy", "n"} of validation at the epoch's end that was the best.
      pending: of the steps since the last training figures.
      skipped_steps: steps that were left out, since they were not finite.
    """

    clock: Clock = dataclasses.field(default_factory=Clock)
    best: dict[str, Any] | None = None
    pending: list[Report] = dataclasses.field(default_factory=list)
    skipped_steps: int = 0

    @property
    def best_step(self) -> int | None:
        """The step of the best validation so far."""
        return self.best["step"] if self.best else None

    def compare(self, figures: dict[str, Any]) -> None:
        """Takes a validation's figures as the best where its accuracy is higher than all before."""
        better = self.best is None or figures["accuracy"] > self.best["accuracy"]
        if better and math.isfinite(figures["loss"]):
            self.best = figures

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads. The reports must have been fetched and checked."""
        return {
            "clock": self.clock.measured() | {"lap_seconds": self.clock.carried},
            "best": self.best,
            "pending": [list(map(float, report.metrics)) for report in self.pending],
            "skipped_steps": self.skipped_steps,
        }

    @classmethod
    def from_json(cls, found: Any, where: str) -> "Progress":
        """Reads what `to_json` gave.

        Raises:
          InputError: it is something else; names the checkpoint `where` it was found.
        """
        try:
            clock, best = dict(found["clock"]), found["best"]
            pending, skipped = found["pending"], found["skipped_steps"]
            ok = all(
                _is_number(x) or (x is None and name == "first_step_seconds")
                for name, x in clock.items()
            )
            ok &= all(_is_number(x) for sums in pending for x in sums)
            ok &= all(len(sums) == 3 for sums in pending)
            ok &= type(skipped) is int and skipped >= 0
            if best is not None:
                ok &= all(_is_number(best[name]) for name in ("loss", "accuracy"))
                ok &= all(type(best[name]) is int for name in ("step", "epoch", "n"))
            if not ok:
                raise TypeError("a value of another type than was saved")
            return cls(Clock(**clock), best, [checked_before(x) for x in pending], skipped)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{where} does not fit: {type(error).__name__}: {error}") from error


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e300
