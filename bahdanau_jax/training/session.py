"""What a run holds while it lasts: its folder, lock, devices, mesh, signals and console."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from bahdanau_jax.data.find_tokenizer import check_tokenizer
from bahdanau_jax.data.load import find_source
from bahdanau_jax.errors import InputError
from bahdanau_jax.layers.recurrence import kernel_obstacle
from bahdanau_jax.models.build import check_classifier
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment, multihost
from bahdanau_jax.runs.checkpoints import Checkpoints
from bahdanau_jax.runs.config import Config, Model
from bahdanau_jax.runs.flags import check_flags
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.preemption import StopSignals
from bahdanau_jax.training.metric_writer import MetricWriter, Silent
from bahdanau_jax.training.optimizer import make_optimizer
from bahdanau_jax.training.sharding import make_mesh
from bahdanau_jax.training.steps import choose_microbatches

T = TypeVar("T")


def check_config(config: ConfigDict) -> Config:
    """Checks every field, the optimizer's arguments, and the data source and tokenizer that the config names.

    A Session tries a model or an attention of the user's own, which needs JAX's devices and so comes later.

    Raises:
      InputError: in one line.
    """
    checked = parse_config(config)
    if not isinstance(checked, Config):
        raise InputError("config.task is set; expected the config of a classifier, without a task")
    make_optimizer(**checked.optimizer.model_dump(), total_steps=1)
    find_source(checked.data.model_dump())
    check_tokenizer(checked.tokenizer.name, checked.tokenizer.options)
    return checked


class Session:
    """One start of a run. Use it as a context manager; leaving it releases everything in reverse order.

    Attributes:
      config: the run's settings.
      workdir: the run's folder.
      first: whether this process writes the run's files.
      console: prints; silent in the other processes.
      finished: the result of a run that finished earlier in this folder, or None. The attributes below
        exist only where it is None.
      started: `time.monotonic()` at the start.
      mesh: the devices, in one axis.
      microbatches: parts in which a batch passes through the model.
      pool: one thread, for compilation.
      checkpoints: opened by `open_checkpoints`, after the processes have met.
      writer: takes the run's figures; silent until `open_writer`, and in the other processes for good.
    """

    mesh: Mesh
    checkpoints: Checkpoints

    def __init__(self, config: Config, workdir: str | Path):
        self.config, self._asked_workdir = config, workdir
        self.writer: MetricWriter | Silent = Silent()
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def _open(self, opened: contextlib.ExitStack) -> None:
        config = self.config
        kernel = kernel_obstacle(config.model.implementation, config.model.dtype) is None
        environment.use_host_devices(
            config.host_devices, batch_size=config.batch_size, kernel=kernel
        )
        check_flags(training=True)
        opened.enter_context(jax.transfer_guard("allow"))  # `CompiledAhead` guards the steps
        ours = Model()
        if (config.model.target, config.model.attention) != (ours.target, ours.attention):
            check_classifier(config.model.model_dump())  # takes a second, which ours need not
        self.first = multihost.is_first()
        if not self.first:
            multihost.any_of(False)  # the first process opens the folder
        settings = config.model_dump()
        self.workdir = opened.enter_context(
            open_workdir(self._asked_workdir, settings, lock=self.first)
        )
        if self.first:
            multihost.any_of(False)
        self._signals = opened.enter_context(StopSignals(jax.process_count()))
        silent = None if self.first else opened.enter_context(open(os.devnull, "w"))
        self.console: Console = show.make_console(silent)
        self.finished = show.show_finished(self.console, self.workdir)
        if self.finished is not None:
            return
        self.started = time.monotonic()
        self.cache = environment.use_compilation_cache()
        self.mesh = make_mesh()
        opened.enter_context(jax.set_mesh(self.mesh))
        if config.batch_size % self.mesh.size:
            raise InputError(
                f"config.batch_size is {config.batch_size}; expected a multiple of the "
                f"{self.mesh.size} devices"
            )
        self.microbatches = choose_microbatches(
            config.microbatches, config.batch_size, self.mesh.size
        )
        self.pool = ThreadPoolExecutor(max_workers=1)
        opened.callback(self.pool.shutdown, wait=False, cancel_futures=True)

    def open_checkpoints(self) -> Checkpoints:
        """Opens the folder's checkpoints, in all processes at once."""
        multihost.meet()
        checkpoints = Checkpoints(self.workdir, keep=self.config.checkpoint.keep)
        self.checkpoints = self._opened.enter_context(checkpoints)
        return checkpoints

    def say(self, line: str) -> None:
        """Prints a line, however long."""
        self.console.print(line, soft_wrap=True)

    def open_writer(self, writer: MetricWriter) -> None:
        """Takes the writer of metrics, which ends with the session."""
        self.writer = self._opened.enter_context(writer)

    def until_stopped(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; a first SIGTERM or SIGINT waits until the loop's body is done."""
        return self._signals.each_finished(batches)

    def asked_to_stop(self) -> str | None:
        """The signal that asks to stop after this step. All processes ask once a step."""
        return self._signals.asked_after_step()
