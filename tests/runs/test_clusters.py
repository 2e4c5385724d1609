"""Each cluster's variables name the processes; half of them, or one's mistake, is refused in one line."""

import pytest

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.clusters import Processes, find_processes

KUBEFLOW = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
SKYPILOT = {
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2\n",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
}
SLURM = {
    "SLURM_NTASKS": "2",
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1314521088.0;tcp://10.0.0.1:34911",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
CLUSTERS = [KUBEFLOW, SKYPILOT, SLURM, OPEN_MPI]
ADDRESS = {"JAX_COORDINATOR_ADDRESS": "a:1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (KUBEFLOW, Processes("a:1", 2, 1)),
        (SKYPILOT, Processes("10.0.0.1:8476", 2, 1)),
        (SKYPILOT | {"JAX_COORDINATOR_PORT": "99"}, Processes("10.0.0.1:99", 2, 1)),
        (SLURM, Processes()),
        (SLURM | ADDRESS, Processes()),
        (OPEN_MPI, Processes()),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, Processes()),
        (KUBEFLOW | {"JOB_COMPLETION_INDEX": "1", "SLURM_NTASKS": "3"}, Processes("a:1", 2, 1)),
        ({}, None),
        ({"JAX_PROCESS_ID": "", "SLURM_NTASKS": "1", "WORLD_SIZE": "1"}, None),
        (
            SKYPILOT
            | {"SKYPILOT_NODE_IPS": "a", "SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0"},
            None,
        ),
        (SLURM | {"JAX_NUM_PROCESSES": "1"}, None),
    ],
)
def test_the_environment_names_the_processes(environment, expected):
    assert find_processes(environment) == expected


@pytest.mark.parametrize(
    ("cluster", "missing"), [(cluster, name) for cluster in CLUSTERS for name in cluster]
)
def test_one_missing_variable_is_named(cluster, missing):
    environment = {name: value for name, value in cluster.items() if name != missing}
    if missing == "SLURM_NTASKS":
        environment["SLURM_JOB_NUM_NODES"] = "2"
    if missing == "OMPI_COMM_WORLD_SIZE":  # the others alone are no sign of several processes
        environment["PMI_SIZE"], missing = "2", "JAX_NUM_PROCESSES"
    with pytest.raises(InputError, match=f"without .*{missing}.*; expected ") as error:
        find_processes(environment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            ADDRESS,
            "JAX_COORDINATOR_ADDRESS is 'a:1' without JAX_NUM_PROCESSES and JAX_PROCESS_ID; ",
        ),
        (KUBEFLOW | {"JAX_COORDINATOR_ADDRESS": "a"}, "ADDRESS is 'a'; expected HOST:PORT"),
        (KUBEFLOW | {"JAX_NUM_PROCESSES": "two"}, "PROCESSES is 'two'; expected a number"),
        (KUBEFLOW | {"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID is 2; expected 0 to 1"),
        (SKYPILOT | {"SKYPILOT_NUM_NODES": "3"}, "SKYPILOT_NODE_IPS lists 2 nodes; expected 3"),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, "expected srun before the command, or "),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is '2' without JAX_COORDINATOR_ADDRESS"),
        ({"JOB_COMPLETION_INDEX": "0"}, "or JAX_NUM_PROCESSES=1 to train alone"),
    ],
)
def test_nobody_trains_alone_by_accident(environment, message):
    with pytest.raises(InputError, match=message):
        find_processes(environment)
