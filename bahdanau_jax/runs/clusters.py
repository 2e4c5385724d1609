"""Which processes train together, from the environment variables that a cluster sets."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bahdanau_jax.errors import InputError

SKYPILOT_PORT = 8476  # where JAX_COORDINATOR_PORT does not name another
_ALONE = "JAX_NUM_PROCESSES=1 to train alone"
_SKYPILOT = ("SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK")
_JAX = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_TPU = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
# What JAX reads by itself: the number of processes, then the other variables, then what sets them.
_READ_BY_JAX = [
    (
        "SLURM_NTASKS",
        ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"),
        "srun before the command",
    ),
    (
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        "mpirun of Open MPI 4, or --coordinator, --processes and --process",
    ),
]


class Processes(NamedTuple):
    """The processes of a run, as `jax.distributed.initialize` takes them. All None: JAX asks the cluster.

    Attributes:
      coordinator: "host:port" at which the first process listens.
      count: number of processes.
      index: number of this process, from 0.
    """

    coordinator: str | None = None
    count: int | None = None
    index: int | None = None


def find_processes(environment: Mapping[str, str]) -> Processes | None:
    """The processes of which this is one, or None if it trains alone.

    Looks for what Kubeflow Trainer sets (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID), for
    SkyPilot, and for what JAX itself reads: SLURM, Open MPI and TPU pods. JAX_NUM_PROCESSES=1 overrides them.

    Raises:
      InputError: this is one of several processes, but a variable is missing or wrong.

    Example:
      >>> kubeflow = {
      ...     "JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
      >>> find_processes(kubeflow)
      Processes(coordinator='a:1', count=2, index=1)
      >>> find_processes({}), find_processes(kubeflow | {"JAX_NUM_PROCESSES": "1"})
      (None, None)
    """
    environment = {name: value for name, value in environment.items() if value.strip()}
    if _number(environment, "JAX_NUM_PROCESSES") == 1:
        return None
    given = [name for name in _JAX if name in environment]
    if given and given != ["JAX_COORDINATOR_ADDRESS"]:
        return _jax(environment, given[0])
    if any(name in environment for name in _SKYPILOT):
        return _skypilot(environment)
    if _read_by_jax(environment) or any(name in environment for name in _TPU):
        return Processes()  # JAX_COORDINATOR_ADDRESS may be given beside them
    if given:
        return _jax(environment, given[0])
    _refuse_unknown(environment)
    return None


def check_processes(processes: Processes, names: Iterable[str]) -> Processes | None:
    """Returns the processes, or None for a single one; `names` are those of the three values.

    Raises:
      InputError: the address has no port, or the index is not below the count.
    """
    (coordinator, count, index), names = processes, list(names)
    host, _, port = str(coordinator).rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"{names[0]} is {coordinator!r}; expected HOST:PORT")
    if count is None or index is None or not 0 <= index < count:
        raise InputError(
            f"{names[2]} is {index}; expected 0 to {(count or 1) - 1}, for {names[1]}={count}"
        )
    return processes if count > 1 else None


def _jax(environment: Mapping[str, str], here: str) -> Processes | None:
    _require(environment, here, _JAX, f"all of {', '.join(_JAX)}, or {_ALONE}")
    count, index = (_number(environment, name) for name in _JAX[1:])
    return check_processes(Processes(environment[_JAX[0]], count, index), _JAX)


def _skypilot(environment: Mapping[str, str]) -> Processes | None:
    here = next(name for name in _SKYPILOT if name in environment)
    _require(environment, here, _SKYPILOT, f"all of {', '.join(_SKYPILOT)}, or {_ALONE}")
    hosts = environment[_SKYPILOT[0]].split()
    count, index = (_number(environment, name) for name in _SKYPILOT[1:])
    if count != len(hosts):
        raise InputError(
            f"SKYPILOT_NODE_IPS lists {len(hosts)} nodes; expected {count}, the number of nodes"
        )
    port = environment.get("JAX_COORDINATOR_PORT", SKYPILOT_PORT)
    return check_processes(Processes(f"{hosts[0]}:{port}", count, index), _SKYPILOT)


def _read_by_jax(environment: Mapping[str, str]) -> bool:
    for name, others, started_by in _READ_BY_JAX:
        if name == "SLURM_NTASKS" and name not in environment:  # as after sbatch --nodes=2
            name, others = "SLURM_JOB_NUM_NODES", (name, *others)
        if _number(environment, name, 1) != 1:
            _require(environment, name, others, f"{started_by}, or {_ALONE}")
            return True
    return False


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """Refuses one of several processes whose launcher names no coordinator for JAX.

    torchrun and PyTorchJob set WORLD_SIZE, MPICH sets PMI_SIZE, an indexed Kubernetes job sets its index.
    """
    several = [name for name in ("WORLD_SIZE", "PMI_SIZE") if environment.get(name, "1") != "1"]
    several += [name for name in ("JOB_COMPLETION_INDEX",) if name in environment]
    if several:
        _require(environment, several[0], _JAX, f"all of them, or {_ALONE}")


def _require(
    environment: Mapping[str, str], here: str, names: Iterable[str], expected: str
) -> None:
    missing = [name for name in names if name not in environment]
    if missing:
        without = " and ".join(missing)
        raise InputError(f"{here} is {environment[here]!r} without {without}; expected {expected}")


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    value = environment.get(name)
    if value is None:
        return default
    if not value.strip().isdecimal():
        raise InputError(f"{name} is {value!r}; expected a number")
    return int(value)
