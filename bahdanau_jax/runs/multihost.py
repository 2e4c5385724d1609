"""Several processes of one run: how they join, agree, and notice that one has ended.

Every process reads its own rows of each batch and computes on its own devices. The first one locks the
folder and writes logs, figures and predictions. All of them write checkpoints. A single process takes the
same path, alone.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from bahdanau_jax.errors import InputError, one_line
from bahdanau_jax.runs.clusters import Processes, check_processes, find_processes

HEARTBEAT_SECONDS = 20  # a process that is silent for longer counts as ended
PATIENCE_SECONDS = 600  # longest wait for a process that reads or compiles more slowly
_FAILED = ("Gloo", "coordination", "heartbeat", "Barrier", "NCCL")
_meetings = itertools.count()


class PeerGone(RuntimeError):
    """Another process of the run has ended or cannot be reached. Start all of them again."""


def join(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins the other processes of the run. Must be called before JAX looks for devices.

    A single process does nothing.

    Args:
      coordinator, count, index: as in `clusters.Processes`. If all are None, the environment says which
        cluster this is.

    Raises:
      InputError: not all processes came, or only some of the three are given, here or by the cluster.
    """
    given = [x is not None for x in (coordinator, count, index)]
    if any(given) and not all(given):
        raise InputError(
            "--coordinator, --processes and --process go together; expected all of them, or none"
        )
    processes = Processes(coordinator, count, index)
    if all(given):
        check_processes(processes, ("--coordinator", "--processes", "--process"))
    else:
        processes = find_processes(os.environ)
        if processes is None:
            return
    ask = processes.coordinator is None
    # Kubernetes needs no detection where all is known, and JAX's wants another package.
    known = not ask and "KUBERNETES_SERVICE_HOST" in os.environ
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            *processes,
            cluster_detection_method="deactivate" if known else None,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        if ask and "should be defined" in str(error):
            return  # a single TPU host
        where = processes.coordinator or "the cluster's coordinator"
        raise InputError(f"cannot join the other processes at {where}: {error}") from error


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def check_alone(what: str) -> None:
    """Raises InputError if the run has several processes; `what` needs a single one."""
    if jax.process_count() > 1:
        raise InputError(f"{what} takes one process; expected it without --processes")


def meet() -> None:
    """Waits for the other processes.

    Call it before their first collective operation, in which gloo waits for 30 s only.
    """
    if jax.process_count() > 1:
        wait = ocp.multihost.get_barrier_sync_fn()
        wait(key=f"bahdanau_jax {next(_meetings)}", timeout_ms=PATIENCE_SECONDS * 1000)


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process. All processes must call it."""
    if jax.process_count() == 1:
        return flag
    meet()
    return bool(np.asarray(multihost_utils.process_allgather(np.array(flag))).any())


def first_says(number: int) -> int:
    """The first process's number. All processes must call it."""
    if jax.process_count() == 1:
        return number
    meet()
    return int(multihost_utils.broadcast_one_to_all(np.array(number, np.int32)))


def check_same(what: str, digest: str) -> None:
    """Compares a hexadecimal digest with the first process's. All processes must call it.

    Raises:
      InputError: this process has another digest.
    """
    if first_says(int(digest[:7], 16)) != int(digest[:7], 16):
        raise InputError(
            f"{what} of process {jax.process_index()} differs from the first process's; expected the same"
        )


def leave() -> None:
    """Waits until the other processes stop, too, and disconnects. A single process does nothing."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


@contextlib.contextmanager
def told_when_one_is_gone() -> Iterator[None]:
    """Turns the errors that follow the end of another process into PeerGone."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        check_peers(error)
        raise


def check_peers(error: BaseException) -> None:
    """Raises PeerGone if an error follows from the end of another process."""
    if any(word in str(error) for word in _FAILED) and jax.process_count() > 1:
        raise PeerGone(
            f"process {jax.process_index()} of {jax.process_count()} has lost another one: "
            f"{one_line(error)[:200]}"
        ) from error
