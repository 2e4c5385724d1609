"""Several processes of one run: how they find each other, agree, and notice that one is gone.

Every process reads its own rows of each batch and computes on its own devices. The first one holds the lock
and writes logs, figures and predictions; checkpoints are written by all. A single process takes the same
path, with nobody to ask.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from bahdanau_jax.errors import InputError

# A process that says nothing for so long counts as gone.
HEARTBEAT_SECONDS = 20
PATIENCE_SECONDS = 600  # with one that is slower to read, or to compile
_FAILED = ("Gloo", "coordination", "heartbeat", "Barrier", "NCCL")
_meetings = itertools.count()


class PeerGone(RuntimeError):
    """Another process of the run has ended or cannot be reached; all are to be started again."""


def join(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins the other processes of the run before JAX looks for devices; alone there is nothing to do.

    Args:
      coordinator: "host:port" at which the first process listens.
      count: how many processes there are.
      index: which of them this one is, from 0. All three are None where a cluster tells them by itself:
        SLURM, Open MPI, TPU pods and GKE.

    Raises:
      InputError: they did not all come, or only some of the three are given.
    """
    given = [x is not None for x in (coordinator, count, index)]
    if any(given) and not all(given):
        raise InputError(
            "--coordinator, --processes and --process go together; expected all of them, or none"
        )
    if not any(given) and not in_cluster(os.environ):
        return
    if index is not None and count is not None and not 0 <= index < count:
        raise InputError(
            f"--process is {index}; expected 0 to {count - 1}, for --processes={count}"
        )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        if not any(given) and "should be defined" in str(error):
            return  # a TPU host by itself
        where = coordinator or "the cluster's coordinator"
        raise InputError(f"cannot join the other processes at {where}: {error}") from error


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether this is one of several tasks of a SLURM job or of Open MPI, or a TPU host.

    Example:
      >>> in_cluster({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}), in_cluster({"SLURM_NTASKS": "2"})
      (False, True)
    """
    for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        if environment.get(name, "1") not in ("", "1"):
            return True
    return any(name in environment for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def check_alone(what: str) -> None:
    """Raises InputError where there are several processes, for what a single one must do."""
    if jax.process_count() > 1:
        raise InputError(f"{what} takes one process; expected it without --processes")


def meet() -> None:
    """Waits for the other processes, alone for nobody.

    It stands before what they do together for the first time: there gloo has patience for 30 s only.
    """
    if jax.process_count() > 1:
        wait = ocp.multihost.get_barrier_sync_fn()
        wait(key=f"bahdanau_jax {next(_meetings)}", timeout_ms=PATIENCE_SECONDS * 1000)


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process; all must ask."""
    if jax.process_count() == 1:
        return flag
    meet()
    return bool(np.asarray(multihost_utils.process_allgather(np.array(flag))).any())


def first_says(number: int) -> int:
    """The first process's number; all must ask."""
    if jax.process_count() == 1:
        return number
    meet()
    return int(multihost_utils.broadcast_one_to_all(np.array(number, np.int32)))


def check_same(what: str, digest: str) -> None:
    """Compares a hexadecimal digest with the first process's; all must ask.

    Raises:
      InputError: this process has another one.
    """
    if first_says(int(digest[:7], 16)) != int(digest[:7], 16):
        raise InputError(
            f"{what} of process {jax.process_index()} is not that of the first process; expected the same"
        )


def leave() -> None:
    """Waits for the other processes to stop, too, and parts from them; alone it does nothing."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


@contextlib.contextmanager
def told_when_one_is_gone() -> Iterator[None]:
    """Whatever a process meets where another one has ended becomes PeerGone."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        check_peers(error)
        raise


def check_peers(error: BaseException) -> None:
    """Raises PeerGone where an error is what a process meets when another one has ended."""
    if jax.process_count() > 1 and any(word in str(error) for word in _FAILED):
        raise PeerGone(
            f"process {jax.process_index()} of {jax.process_count()} has lost another one: "
            + " ".join(str(error).split())[:200]
        ) from error
