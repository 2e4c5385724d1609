"""Measures ours against flax.nnx, Keras on JAX, Keras on TensorFlow and PyTorch, on this machine.

    python -m experiments.benchmark [--quick] [--only=step,epoch,...] [--out=runs/benchmark]

Every contender builds the same network and computes on the same reviews, in a process of its own;
the processes take turns in rounds, so that the machine's drift meets all of them. What is compiled
is compiled, and run once more, before anything is timed. Settings: "as it comes", and with huge
pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1) for all; where the peers run as they come, ours runs
in both settings, since launch.sh starts it with huge pages.

Sections (--only):
  step      a training step, every batch padded to 500
  epoch     training, per review: ours in length buckets, the peers padded to 500 as usually run
  predict   prediction, per review, from a sample (--full: all reviews, once)
  memory    peak resident memory of training
  compile   start to first step; compilation
  roofline  an epoch's arithmetic without padding, as a share of the rate of large products
  length, batch, hidden   one bidirectional layer alone, forward and backward, as it grows

Writes benchmark.json, benchmark.png and the processes' logs to --out. IMDB is read from
TFDS_DATA_DIR; without it reviews of such lengths are made up. On two cores the default takes about
18 minutes, --quick (batches of 32, two rounds, small layers, huge pages only) about 4. All
contenders stay alive through a setting, which takes some 16 GB of memory; --peers asks for fewer.
"""

import dataclasses
import datetime
import importlib.util
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console

from experiments.benchmark_child import CONTENDERS, HUGE_PAGES, ROOT, Child, environment_of
from experiments.benchmark_records import HUGE, PLAIN, Record, write_json

SECTIONS = (
    "step", "epoch", "predict", "memory", "compile", "roofline", "length", "batch", "hidden",
)  # fmt: skip
SCALING = SECTIONS[-3:]
SETTINGS = {"plain": PLAIN, "huge": HUGE}
# peer: what must be importable, and what to install where it is not
PEERS = {
    "nnx": (("flax",), "pip install flax"),
    "keras-jax": (("keras",), "pip install keras"),
    "keras-tensorflow": (
        ("keras", "tensorflow"),
        "pip install keras tensorflow-cpu; if elsewhere, --tensorflow_python=<that python>",
    ),
    "torch": (("torch",), "pip install torch --index-url https://download.pytorch.org/whl/cpu"),
}

_ONLY = flags.DEFINE_list("only", list(SECTIONS), "sections to measure")
_PEERS = flags.DEFINE_list("peers", list(PEERS), "peers to measure, of those installed")
_SETTINGS = flags.DEFINE_list("settings", None, "plain, huge; default: both, with --quick huge")
_OUT = flags.DEFINE_string("out", str(ROOT / "runs" / "benchmark"), "folder for the results")
_QUICK = flags.DEFINE_boolean("quick", False, "a small version of everything, to see that it works")
_FULL = flags.DEFINE_boolean("full", False, "predict all reviews, once, instead of a sample")
_ROUNDS = flags.DEFINE_integer("rounds", None, "rounds of the training step", lower_bound=1)
_TENSORFLOW_PYTHON = flags.DEFINE_string(
    "tensorflow_python", sys.executable, "a Python with keras and tensorflow"
)


def _one_of(names: Sequence[str]):
    return lambda values: values is None or (bool(values) and set(values) <= set(names))


for _flag, _names in ((_ONLY, SECTIONS), (_PEERS, tuple(PEERS)), (_SETTINGS, tuple(SETTINGS))):
    flags.register_validator(
        _flag, _one_of(_names), message=f"expected some of {', '.join(_names)}"
    )


def installed(peer: str, python: str) -> bool:
    """Whether this peer can be imported by this Python."""
    if python == sys.executable:
        return all(importlib.util.find_spec(name) is not None for name in PEERS[peer][0])
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {PEERS[peer][0]})))"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError:
        return False


def settings_here(asked: Sequence[str] | None, quick: bool) -> list[str]:
    """The settings to measure: huge pages are glibc's, and for CPUs."""
    import jax

    if platform.libc_ver()[0] != "glibc" or jax.default_backend() != "cpu":
        return [PLAIN]
    return [SETTINGS[name] for name in asked or (["huge"] if quick else ["plain", "huge"])]


def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    from bahdanau_jax import environment
    from bahdanau_jax.errors import InputError
    from experiments import benchmark_ours, benchmark_sections
    from experiments.benchmark_data import read_reviews
    from experiments.benchmark_network import Sizes
    from experiments.benchmark_plot import draw, show_tables

    console, begun = Console(), time.monotonic()
    if not console.is_terminal:
        console = Console(width=120)

    def say(message: str) -> None:
        console.print(
            f"[{time.monotonic() - begun:5.0f} s] {message}", highlight=False, markup=False
        )

    out = Path(_OUT.value)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"error: --out={out} cannot be made: {error.strerror or error}")
    settings = settings_here(_SETTINGS.value, _QUICK.value)
    pythons = dict.fromkeys(CONTENDERS, sys.executable)
    pythons["keras-tensorflow"] = _TENSORFLOW_PYTHON.value
    peers, missing = [], []
    for peer in dict.fromkeys(_PEERS.value):
        if installed(peer, pythons[peer]):
            peers.append(peer)
        else:
            missing.append(f"{peer} is not installed: {PEERS[peer][1]}")
            say(missing[-1])

    scale = benchmark_sections.QUICK if _QUICK.value else benchmark_sections.Scale()
    rounds = _ROUNDS.value or scale.rounds
    scale = dataclasses.replace(scale, full=_FULL.value, rounds=rounds)
    buckets = benchmark_ours.bucket_lengths()
    try:
        train, test, description = read_reviews(buckets[-1], Sizes().vocab_size)
    except InputError as error:
        sys.exit(f"error: {error}")
    say(description)
    about: dict[str, Any] = {
        "machine": environment.hardware() | {"devices": environment.devices()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": environment.commit(),
        "data": description,
        "settings": {HUGE: f"GLIBC_TUNABLES={HUGE_PAGES}", PLAIN: "no tunables"},
        "scale": dataclasses.asdict(scale) | {"quick": _QUICK.value, "buckets": buckets},
        "missing": missing,
        "failures": [],
    }
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as scratch:
        train.save(Path(scratch) / "train.npz")
        test.save(Path(scratch) / "test.npz")

        def start(name: str, setting: str) -> Child:
            options = {"reviews": scratch, "buckets": buckets, "batch_size": scale.batch_size}
            cache = Path(scratch) / "jax_cache"
            env = environment_of(name, huge_pages=setting == HUGE, cache=cache)
            log = out / f"{name}-{setting.replace(' ', '-')}.log"
            return Child(name, pythons[name], env, log, options)

        def measure(keys, setting: str, sections) -> None:
            group = benchmark_sections.Group(keys, setting, start=start, say=say)
            try:
                for found in sections(group):
                    records.extend(found)
                    about["failures"] = about["failures"] + group.failures
                    group.failures = []
                    about["seconds"] = round(time.monotonic() - begun)
                    write_json(out / "benchmark.json", about, records)
                    if found:
                        say(f"{found[0].section} ({setting}): done")
            finally:
                group.close()

        only = _ONLY.value
        for setting in settings:
            keys = [("ours", setting), *((peer, setting) for peer in peers)]
            if setting == PLAIN and HUGE in settings:
                keys.insert(1, ("ours", HUGE))  # as launch.sh starts it
            if "roofline" in only:
                keys.append(("matmul", setting))
            if set(only) - set(SCALING):
                measure(
                    keys,
                    setting,
                    lambda group: benchmark_sections.training_sections(
                        group, only, scale, train, test, buckets
                    ),
                )
        last = settings[-1]
        if "step" in only and "torch" in peers:
            measure(
                [("torch-packed", last)],
                last,
                lambda group: benchmark_sections.packed_step(group, scale, buckets[-1]),
            )
        for section in SCALING:
            if section in only:
                measure(
                    [("ours", last), *((peer, last) for peer in peers)],
                    last,
                    lambda group, section=section: benchmark_sections.scaling_section(
                        group, section, scale
                    ),
                )
    show_tables(console, about, records)
    draw(out / "benchmark.png", about, records)
    for line in [*missing, *about["failures"]]:
        say(line)
    say(f"written: {out / 'benchmark.json'}, {out / 'benchmark.png'}")


if __name__ == "__main__":
    app.run(main)
