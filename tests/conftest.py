"""Settings of every test: on the CPU unless told otherwise, no flags left to parse."""

import atexit
import fcntl
import gc
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")
# For the workers and the processes of tests: threads of BLAS spend their time waiting for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests and the processes that they start share what they compile, the small functions too.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else the workers' parent has made it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="bahdanau-jax-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# The tests compile far longer than they compute; these three make it a third. Optimized programs run in
# .ci/outside and the notebook. XLA ends a process whose flags it does not know, and new versions drop some.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = ""
    if version("jaxlib").startswith(("0.10.", "0.11.", "0.12.")):
        os.environ["XLA_FLAGS"] += " --xla_cpu_parallel_codegen_split_count=1"
    if version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import pytest
from absl import flags
from hypothesis import settings

gc.set_threshold(100_000, 20, 20)  # tracing makes many objects that live on
flags.FLAGS.mark_as_parsed()  # Grain reads flags and refuses to before they are parsed

# The first example of a shape compiles, which no deadline foresees.
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Files with long tests start first: at the end, one of them would keep a single core busy."""
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A TFDS data folder with the small reviews; not to be changed."""
    from small_imdb import prepare_small

    return prepare_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def damaged(prepared, tmp_path):
    """A copy of it that a test may damage."""
    shutil.copytree(prepared, tmp_path / "tfds")
    return tmp_path / "tfds"


_REAL: dict[str, Any] = {}


@pytest.fixture(scope="session", autouse=True)
def no_reports():
    """Runs in this process make no report, which takes longer than they do."""
    finish = sys.modules.get("bahdanau_jax.training.finish")
    if finish is None:  # no test of this session trains
        yield
        return
    _REAL["add_report"] = finish.add_report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "add_report", lambda run: None)
        yield


@pytest.fixture(scope="session")
def add_report(no_reports):
    """The real `training.finish.add_report`."""
    from bahdanau_jax.training import finish

    return _REAL.get("add_report", finish.add_report)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, add_report, worker_id):
    """The folder of a finished run on 90, 20 and 30 made-up reviews, with a report; not to be changed."""
    if worker_id == "master":
        return train_tiny(tmp_path_factory.mktemp("run") / "tiny", add_report)
    folder = tmp_path_factory.getbasetemp().parent / "tiny"  # one for all workers
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "report.html").exists():
            train_tiny(folder, add_report)
    return folder


def train_tiny(folder, add_report):
    from bahdanau_jax.training import finish, train
    from experiments import imdb_tiny

    config = imdb_tiny.get_config()
    config.data.train_size, config.data.validation_size, config.data.test_size = 90, 20, 30
    config.model.embedding_features = config.model.hidden_features = 4
    config.model.attention_units, config.model.num_layers = 4, 1
    config.bucket_lengths = (16, 64)
    config.batch_size, config.epochs = 16, 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "add_report", add_report)
        train.train_and_evaluate(config, folder)
    return folder
