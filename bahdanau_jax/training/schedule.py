"""What is due after a step: figures, validation, a checkpoint, the end."""

import time
from typing import NamedTuple

from bahdanau_jax.runs import multihost
from bahdanau_jax.training.session import Session
from bahdanau_jax.training.state import Setup


class Due(NamedTuple):
    """What follows a step."""

    log: bool
    validate: bool
    save: bool
    stop: str | None  # the signal that asks for it


class Schedule:
    """Says what is due, the same in every process.

    `after` is called once per step in every process: it asks the others about signals and minutes.
    """

    def __init__(self, run: Session, setup: Setup):
        self._config, self._epoch_steps, self._run = run.config, setup.epoch_steps, run
        self._saved = time.monotonic()

    def after(self, step: int) -> Due:
        """What is due after this step, counted from 1."""
        checkpoint = self._config.checkpoint
        end_of_epoch = step % self._epoch_steps == 0
        save = end_of_epoch or step % checkpoint.every_steps == 0
        stop = self._run.asked_to_stop()
        log = save or step % self._config.log_every_steps == 0
        if log and checkpoint.every_minutes:
            minutes = (time.monotonic() - self._saved) / 60
            save |= bool(multihost.first_says(minutes >= checkpoint.every_minutes))
        return Due(log, end_of_epoch, save or stop is not None, stop)

    def saved(self) -> None:
        """Called after a checkpoint; `every_minutes` counts from here."""
        self._saved = time.monotonic()
