"""Compares bahdanau-jax with flax.nnx, Keras, PyTorch and ONNX Runtime on this machine.

    python -m benchmarks [--quick] [--only=step,epoch,...] [--out=runs/benchmark]

--only               Sections to measure, see below. Default: all.
--peers              nnx, keras-jax, keras-tensorflow, torch, onnxruntime. Default: all that are installed. Also
                     ours-bfloat16, ours with dtype="bfloat16" on a CPU with AVX-512.
--settings           plain, huge. Default: both; with --quick, huge.
--out                Folder for benchmark.json, benchmark.png and the processes' logs.
--quick              Batches of 32, two rounds, small layers: about 4 minutes on two cores instead of 18.
--full               Predict all reviews once, instead of a sample.
--rounds             Rounds of the training step. Default: 5; with --quick, 2.
--tensorflow_python  A Python that has keras and tensorflow. Default: this one.

Sections:
  step      a training step with every batch padded to 500; one of PyTorch packed, compiled and in bfloat16, and
            of TensorFlow with XLA
  epoch     training time per review: ours in length buckets, peers padded to 500 as usual
  predict   prediction time per review: ours (float32 and int16), ONNX Runtime (float32 and int8) and PyTorch
            (also compiled and in bfloat16) in batches by length, peers padded; and how far probabilities of
            ONNX Runtime and of int16 are from ours
  memory    peak resident memory of training
  compile   start to first step, and compilation
  roofline  arithmetic of an epoch without padding, relative to the rates of a large product and of the CPU
            kernel's register tile
  length, batch, hidden   one bidirectional layer, forward and backward, at growing sizes

All contenders build the same network and read the same reviews, each in its own process. They take turns in
rounds, so the machine's drift affects all of them. Everything is compiled and run once before it is timed.
Setting "huge" starts all of them with the GLIBC_TUNABLES that launch.sh sets: huge pages, and freed memory is
kept. In setting "plain", ours runs both ways.

Reads IMDB from TFDS_DATA_DIR, or makes up reviews of similar lengths. The processes together take about 16 GB
of memory; --peers=... takes less.

Exit codes: 0 done, 2 wrong flags or input.
"""

import dataclasses
import datetime
import importlib.util
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs import environment
from benchmarks import sections
from benchmarks.contenders import CONTENDERS, PEERS, RATES, VARIANTS, ours
from benchmarks.data import read_reviews
from benchmarks.network import Sizes
from benchmarks.plot import draw, show_tables
from benchmarks.records import HUGE, PLAIN, Record, write_records
from benchmarks.worker import ROOT, TUNABLES, Child, environment_of
from experiments.command import command, parse_flags

SECTIONS = (*sections.TRAINING, "predict", *sections.LAYER)
SETTINGS = {"plain": PLAIN, "huge": HUGE}


class Benchmark:
    """The measurements of one call. They are written after each section."""

    def __init__(
        self,
        out: Path,
        about: dict[str, Any],
        *,
        start: Callable[[str, str], Child],
        say: Callable[[str], None],
    ):
        self.out, self.about, self.records = out, about, list[Record]()
        self._start, self._say, self._begun = start, say, time.monotonic()

    def measure(
        self,
        keys: Sequence[sections.Key],
        setting: str,
        measure: Callable[[sections.Group], Iterator[list[Record]]],
    ) -> None:
        """Starts the contenders of `keys`, and keeps what `measure` finds in their rounds."""
        group = sections.Group(keys, setting, start=self._start, say=self._say)
        try:
            for found in measure(group):
                self.records += found
                self.about["seconds"] = round(time.monotonic() - self._begun)
                about = self.about | {"failures": self.about["failures"] + group.failures}
                write_records(self.out / "benchmark.json", about, self.records)
                if found:
                    self._say(f"{found[0].section} ({setting}): done")
        finally:
            group.close()
            self.about["failures"] += group.failures


def installed(peer: str, python: str) -> bool:
    """Whether this Python can import the peer."""
    packages = CONTENDERS[peer].packages
    if python == sys.executable:
        return all(importlib.util.find_spec(name) is not None for name in packages)
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {packages})))"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError:
        return False


def settings_here(asked: Sequence[str], quick: bool) -> list[str]:
    """The settings to measure. Huge pages need glibc and a CPU."""
    if platform.libc_ver()[0] != "glibc" or jax.default_backend() != "cpu":
        return [PLAIN]
    return [SETTINGS[name] for name in asked or (["huge"] if quick else ["plain", "huge"])]


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(
        argv,
        only=list(SECTIONS),
        peers=list(PEERS),
        settings=[],
        out=str(ROOT / "runs" / "benchmark"),
        quick=False,
        full=False,
        rounds=0,
        tensorflow_python=sys.executable,
    )
    for flag, names in (
        ("only", SECTIONS),
        ("peers", (*PEERS, "ours-bfloat16")),
        ("settings", list(SETTINGS)),
    ):
        found: list[str] = getattr(asked, flag)
        if not set(found) <= set(names) or not (found or flag == "settings"):
            raise flags.Error(f"--{flag} is {','.join(found)}; expected some of {', '.join(names)}")
    console, begun = Console(highlight=False, markup=False), time.monotonic()
    if not console.is_terminal:
        console.width = 120

    def say(message: str) -> None:
        seconds = time.monotonic() - begun
        console.print(f"[{seconds:5.0f} s] {message}")

    out = Path(asked.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out={out} cannot be made: {error.strerror or error}") from error
    pythons = {
        name: asked.tensorflow_python
        for name, contender in CONTENDERS.items()
        if contender.keras_backend == "tensorflow"
    }
    peers, missing = [], []
    for peer in dict.fromkeys(asked.peers):
        if installed(peer, pythons.get(peer, sys.executable)):
            peers.append(peer)
        else:
            missing.append(f"{peer} is not installed: {CONTENDERS[peer].install}")
            say(missing[-1])

    scale = sections.QUICK if asked.quick else sections.Scale()
    scale = dataclasses.replace(scale, full=asked.full, rounds=asked.rounds or scale.rounds)
    buckets = ours.bucket_lengths()
    train, test, description = read_reviews(buckets[-1], Sizes().vocab_size)
    say(description)
    about: dict[str, Any] = {
        "machine": environment.hardware() | {"devices": environment.devices()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": environment.commit(),
        "data": description,
        "settings": {HUGE: f"GLIBC_TUNABLES={TUNABLES}", PLAIN: "no tunables"},
        "scale": dataclasses.asdict(scale) | {"quick": asked.quick, "buckets": buckets},
        "missing": missing,
        "failures": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        train.save(Path(scratch) / "train.npz")
        test.save(Path(scratch) / "test.npz")

        def start(name: str, setting: str) -> Child:
            options = {"reviews": scratch, "buckets": buckets, "batch_size": scale.batch_size}
            cache = Path(scratch) / "jax_cache"
            env = environment_of(name, huge_pages=setting == HUGE, cache=cache)
            log = out / f"{name}-{setting.replace(' ', '-')}.log"
            return Child(name, pythons.get(name, sys.executable), env, log, options)

        benchmark = Benchmark(out, about, start=start, say=say)
        settings = settings_here(asked.settings, asked.quick)
        last = settings[-1]
        training = [peer for peer in peers if CONTENDERS[peer].trains]
        if set(asked.only) & set(sections.TRAINING):
            for setting in settings:
                keys = [("ours", setting), *((peer, setting) for peer in training)]
                if setting == PLAIN and HUGE in settings:
                    keys.insert(1, ("ours", HUGE))  # as launch.sh starts it
                if "roofline" in asked.only:
                    keys += [(rate, setting) for rate in RATES]
                benchmark.measure(
                    keys,
                    setting,
                    lambda group: sections.training_sections(
                        group, asked.only, scale, train, buckets
                    ),
                )
        if "predict" in asked.only:
            names = [name for peer in peers for name in (peer, *VARIANTS.get(peer, ()))]
            benchmark.measure(
                [(name, last) for name in ("ours", *VARIANTS["ours"], *names)],
                last,
                lambda group: sections.predict_section(group, scale, test),
            )
        variants = [
            name for peer in peers for name in VARIANTS.get(peer, ()) if name != "torch-by-length"
        ]
        variants = [name for name in variants if CONTENDERS[name].trains]
        if "step" in asked.only and variants:
            benchmark.measure(
                [(name, last) for name in variants],
                last,
                lambda group: sections.variants_step(group, scale, buckets[-1]),
            )
        for section in (name for name in sections.LAYER if name in asked.only):
            benchmark.measure(
                [(name, last) for name in ("ours", *training)],
                last,
                lambda group, section=section: sections.layer_section(group, section, scale),
            )
    show_tables(console, benchmark.records)
    draw(out / "benchmark.png", about, benchmark.records)
    for line in [*missing, *about["failures"]]:
        say(line)
    say(f"written: {out / 'benchmark.json'}, {out / 'benchmark.png'}")


if __name__ == "__main__":
    sys.exit(main())
