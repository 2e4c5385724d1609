"""One process at a time in a run's folder: a lock that dies with the process that holds it."""

import contextlib
import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

from bahdanau_jax.errors import InputError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, through a lock on its file `.lock`.

    The operating system drops the lock when the process ends, however it ends: a file that a killed
    run left behind locks nothing.

    Raises:
      InputError: another process holds it; names that process.

    Example::

        with locked(Path("runs/imdb")):
            ...
    """
    file = folder / ".lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"run folder {folder} is in use by {_holder(descriptor)}; expected one that no other "
                "run is writing to"
            ) from error
        except OSError as error:  # some network file systems know no locks
            warnings.warn(
                f"{file} cannot be locked ({error.strerror}): start no second run on this folder",
                stacklevel=4,
            )
        holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with contextlib.suppress(OSError):  # a full disk does not make the lock any weaker
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{holder}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        found = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {found['pid']:d} on {found['host']:.100s}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"  # it has not written its name yet
