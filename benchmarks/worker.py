"""One contender in its own process: the parent's end (`Child`) and the child's (`Worker`).

Each contender needs its own process, since memory peaks, thread pools, GLIBC_TUNABLES and KERAS_BACKEND
belong to a process. Requests and replies are lines of JSON on stdin and stdout.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS
from benchmarks.data import Reviews, pad
from benchmarks.network import Sizes

ROOT = Path(__file__).resolve().parent.parent
# As launch.sh sets it: huge pages, and up to 1 GB of freed memory is kept.
TUNABLES = ":".join(
    f"glibc.malloc.{setting}"
    for setting in ("hugetlb=1", "mmap_max=0", "trim_threshold=1073741824", "arena_max=1")
)


class ChildFailed(Exception):
    """A contender's process reported an error or died. The message is one line."""


def environment_of(name: str, *, huge_pages: bool, cache: Path) -> dict[str, str]:
    """The environment of the contender's process; of ours, as launch.sh sets it."""
    env = dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3")
    tunables = [x for x in env.pop("GLIBC_TUNABLES", "").split(":") if x and "malloc" not in x]
    tunables += [TUNABLES] * huge_pages
    if tunables:
        env["GLIBC_TUNABLES"] = ":".join(tunables)
    # Peers run as they come, without a compilation cache. Ours starts with an empty one.
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    if CONTENDERS[name].module == "ours":
        env["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    backend = CONTENDERS[name].keras_backend
    return env | ({"KERAS_BACKEND": backend} if backend else {})


class Child:
    """The parent's end: starts the process, asks and stops it."""

    def __init__(
        self, name: str, python: str, env: dict[str, str], log: Path, options: dict[str, Any]
    ):
        self.name, self._log_path = name, log
        self._log = log.open("w", encoding="utf-8")
        started = time.monotonic()
        # -P and PYTHONPATH: "contenders/keras.py" must not shadow the library.
        self._process = subprocess.Popen(
            [python, "-P", "-m", __name__, name, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=env, text=True,
        )  # fmt: skip
        try:
            self.versions: dict[str, str] = self.ask("hello")
            self.start_seconds = time.monotonic() - started  # mostly imports
        except ChildFailed:
            self.close()
            raise

    def ask(self, op: str, **arguments) -> Any:
        """Waits for the reply. Raises ChildFailed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([op, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise ChildFailed(f"its process ended with exit code {code}; see {self._log_path}")
        reply = json.loads(line)
        if "error" in reply:
            raise ChildFailed(f"{reply['error']}; see {self._log_path}")
        return reply["value"]

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()  # the process ends with its input
            except BrokenPipeError:
                pass
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Worker:
    """The child's end. Each public method answers one kind of request."""

    def __init__(self, name: str, options: dict[str, Any]):
        contender = CONTENDERS[name]
        self._packages = contender.packages
        self._module = importlib.import_module(f"benchmarks.contenders.{contender.module}")
        self._name, self._options = name, options
        self._network: Any = None
        self._reviews: dict[str, Reviews] = {}
        self._step_seconds: dict[int, list[float]] = {}
        self._layer: tuple[tuple[int, ...], Any] = ((), None)
        self._rate: Any = None
        self._probabilities = np.zeros(0)

    def hello(self) -> dict[str, str]:
        """Versions of the contender's packages."""
        return {name: importlib.import_module(name).__version__ for name in self._packages}

    def build(self) -> float:
        """Seconds to make the network with fresh weights."""
        begun = time.perf_counter()
        self._network = self._module.Network(
            Sizes(),
            batch_size=self._options["batch_size"],
            buckets=self._options["buckets"],
            **CONTENDERS[self._name].options,
        )
        return time.perf_counter() - begun

    def train(self, rows: list[int], length: int) -> float:
        """Seconds of a training step, from ids to updated weights."""
        reviews = self._read("train")
        labels = reviews.labels[rows]
        begun = time.perf_counter()
        loss = self._network.train(pad([reviews.ids[row] for row in rows], length), labels)
        seconds = time.perf_counter() - begun
        if not np.isfinite(loss):
            raise ValueError(f"the loss is {loss}")
        self._step_seconds.setdefault(length, []).append(seconds)
        return seconds

    def compilation(self) -> dict[str, float]:
        """Seconds that first steps took beyond later ones: for the first shape, and for all shapes."""
        # With a warm cache the difference is noise and can be negative.
        excess = [max(0, x[0] - median(x[1:])) for x in self._step_seconds.values()]
        return {"first": excess[0], "all": sum(excess)}

    def predict(self, rows: list[int]) -> float:
        """Seconds of a prediction, from ids to logits."""
        reviews = self._read("test")
        ids = [reviews.ids[row] for row in rows]
        begun = time.perf_counter()
        logits = self._network.predict(ids)
        seconds = time.perf_counter() - begun
        if logits.shape != (len(rows),) or not np.isfinite(logits).all():
            raise ValueError(f"logits of shape {logits.shape}, not {len(rows)} finite numbers")
        self._probabilities = 1 / (1 + np.exp(-logits.astype(float)))
        return seconds

    def probabilities(self) -> list[float]:
        """Of the last prediction."""
        return self._probabilities.tolist()

    def layer(
        self, batch: int, length: int, features: int, hidden: int, at_least_seconds: float
    ) -> float:
        """Seconds forward and backward through one BiLSTM: the median of as many runs as fit, at least three.

        Warms up for half that time, two runs at least, since a virtual machine needs a moment to give cores
        and memory back to a process that has waited for its turn.
        """
        shape = (batch, length, features, hidden)
        if self._layer[0] != shape:
            self._layer = ((), None)  # frees the previous one
            rng = np.random.default_rng(0)
            inputs = rng.standard_normal((batch, length, features), np.float32)
            options = CONTENDERS[self._name].options
            self._layer = (shape, self._module.make_layer(hidden, inputs, **options))

        def runs(at_least: int, seconds: float) -> list[float]:
            begun, taken = time.perf_counter(), []
            while len(taken) < at_least or time.perf_counter() - begun < seconds:
                started = time.perf_counter()
                self._layer[1]()
                taken.append(time.perf_counter() - started)
            return taken

        runs(2, 0.5 * at_least_seconds)
        return median(runs(3, at_least_seconds))

    def rate(self) -> float:
        """GFLOP/s of one of RATES."""
        if self._rate is None:
            self._rate = self._module.RATES[self._name]()
            self._rate()
        return self._rate() / 1e9

    def memory(self) -> float:
        """Peak resident memory of this process in GB."""
        # Not ru_maxrss if there is a choice: on Linux a child inherits its parent's.
        try:
            status = Path("/proc/self/status").read_text()
            kilobytes = int(status.split("VmHWM:")[1].split()[0])
        except (OSError, IndexError):
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            kilobytes = peak // 1024 if sys.platform == "darwin" else peak
        return kilobytes / 1e6 * 1.024

    def _read(self, split: str) -> Reviews:
        if split not in self._reviews:
            self._reviews[split] = Reviews.load(f"{self._options['reviews']}/{split}.npz")
        return self._reviews[split]


def main() -> None:
    """Answers requests until stdin ends."""
    # Prints of libraries go to stderr, not among the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = None
    for line in sys.stdin:
        op, arguments = json.loads(line)
        try:
            worker = worker or Worker(sys.argv[1], json.loads(sys.argv[2]))
            reply = {"value": getattr(worker, op)(**arguments)}
        except Exception as error:  # whatever a peer raises becomes a failure of that peer
            import traceback

            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            reply = {"error": f"{type(error).__name__}: {lines[0][:200]}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
