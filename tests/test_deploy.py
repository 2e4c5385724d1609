"""Each file of `deploy/` starts two processes that find each other, here with its cluster's variables."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"
# In place of the real one: joins, and prints this process, the number of processes and a number from the first.
LAUNCH = f"""#!/usr/bin/env bash
[[ $1 != --help ]] || exit 0
exec {shlex.quote(sys.executable)} -c '
import jax
from bahdanau_jax.runs import multihost

multihost.join(None, None, None)
print(jax.process_index(), jax.process_count(), multihost.first_says(7 + jax.process_index()))
multihost.leave()
' "$@"
"""
# In place of SLURM's: two tasks on this machine. Their lines would mix in one pipe.
SRUN = """#!/usr/bin/env bash
export SLURM_NTASKS=2 SLURM_STEP_NODELIST=localhost SLURM_LOCALID=0
SLURM_PROCID=1 "$@" >second &
SLURM_PROCID=0 "$@"
wait
cat second
"""


def kubeflow(port):
    common = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    common["KUBERNETES_SERVICE_HOST"] = "10.96.0.1"
    return [common | {"JAX_PROCESS_ID": str(i), "JOB_COMPLETION_INDEX": str(i)} for i in range(2)]


def skypilot(port):
    common = {"SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1", "SKYPILOT_NUM_NODES": "2"}
    common["JAX_COORDINATOR_PORT"] = str(port)
    return [common | {"SKYPILOT_NODE_RANK": str(i)} for i in range(2)]


def slurm(port):
    """The batch script runs once, on the first node."""
    return [
        {
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": "0",
            "SLURM_SUBMIT_DIR": ".",
            "JAX_COORDINATOR_PORT": str(port),
        }
    ]


def read_yaml(name):
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "cluster"),
    [
        (["bash", DEPLOY / "slurm.sbatch"], slurm),
        (read_yaml("trainjob.yaml")["spec"]["trainer"]["command"], kubeflow),
        (["bash", "-c", read_yaml("skypilot.yaml")["run"]], skypilot),
    ],
    ids=["slurm", "kubeflow", "skypilot"],
)
def test_two_processes_find_each_other(tmp_path, command, cluster):
    for name, text in {"launch.sh": LAUNCH, "srun": SRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    path = {"PYTHONPATH": str(DEPLOY.parent), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    started = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | path | variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        for variables in cluster(port)
    ]
    printed = "".join(process.communicate(timeout=120)[0] for process in started)
    assert [process.returncode for process in started] == [0] * len(started)
    lines = [line for line in printed.splitlines() if not line.startswith("[Gloo]")]
    assert sorted(lines) == ["0 2 7", "1 2 7"]


def test_a_stopped_slurm_job_is_queued_again(tmp_path):
    scripts = {"launch.sh": "", "srun": "exit 75", "scontrol": 'echo "$@"'}
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(tmp_path)}
    variables["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", DEPLOY / "slurm.sbatch"], env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (75, "requeue 7\n")


def test_the_train_job_has_kubeflow_s_fields():
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="CI installs it")
    job = read_yaml("trainjob.yaml")
    assert (
        models.TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job
    )  # it drops what it does not know


def test_the_nodes_share_the_folder_of_runs():
    job, task = read_yaml("trainjob.yaml")["spec"], read_yaml("skypilot.yaml")
    assert job["trainer"]["numNodes"] == task["num_nodes"] == 2
    [patch] = job["runtimePatches"]
    [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    [container] = node["template"]["spec"]["template"]["spec"]["containers"]
    [mount] = container["volumeMounts"]
    assert [mount["mountPath"]] == list(task["volumes"]) == ["/runs"]
    assert "--workdir=/runs/imdb" in job["trainer"]["command"]
    assert "--workdir=/runs/imdb" in task["run"]
