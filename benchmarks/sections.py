"""The sections of the benchmark. Contenders take turns in rounds: A B C A B C ..."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from benchmarks.contenders import CONTENDERS, RATES, ours
from benchmarks.data import Reviews
from benchmarks.network import Sizes, train_flops
from benchmarks.records import Record
from benchmarks.worker import Child, ChildFailed

TRAINING = ("step", "epoch", "memory", "compile", "roofline")
LAYER = ("length", "batch", "hidden")
FEATURES = 128  # of the layer's inputs in the sections of LAYER


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured."""

    batch_size: int = 256
    rounds: int = 5  # of the training step; the other sections take at most 3
    predict_batches: int = 10
    padded_predict_batches: int = 2  # of a contender that pads all batches to the same length
    lengths: tuple[int, ...] = (64, 256, 1024, 2048, 8192)
    batches: tuple[int, ...] = (1, 8, 64, 256, 1024)
    hiddens: tuple[int, ...] = (32, 128, 512, 1024)
    at_batch: int = 16  # of "length"
    at_length: int = 128  # of "batch" and "hidden"
    hidden_batch: int = 32  # of "hidden"
    layer_seconds: float = 0.4  # least time of a turn of the layer alone
    full: bool = False  # predict all reviews, once


QUICK = Scale(
    batch_size=32,
    rounds=2,
    predict_batches=4,
    padded_predict_batches=2,
    lengths=(64, 512),
    batches=(1, 32),
    hiddens=(32, 128),
    layer_seconds=0.1,
)
Key = tuple[str, str]  # contender, its setting


class Group:
    """Contenders that are measured in the same rounds, each in its own process.

    A contender that fails is left out from then on, and `failures` says why.
    """

    def __init__(
        self,
        keys: Sequence[Key],
        peers_setting: str,
        *,
        start: Callable[[str, str], Child],
        say: Callable[[str], None],
    ):
        self.peers_setting, self._say = peers_setting, say
        self.children: dict[Key, Child] = {}
        self.failures: list[str] = []
        for key in keys:
            try:
                self.children[key] = start(*key)
            except ChildFailed as error:
                self._fail(key, error)

    def _fail(self, key: Key, error: ChildFailed) -> None:
        if key in self.children:
            self.children.pop(key).close()
        self.failures.append(f"{key[0]} ({key[1]}): {error}")
        self._say(f"left out from here on: {self.failures[-1]}")

    def rounds(
        self, n: int, ask: Callable[[Child], float], among: Sequence[str] = ()
    ) -> dict[Key, list[float]]:
        """Asks every contender (or those in `among`) once per round."""
        figures: dict[Key, list[float]] = {}
        for _ in range(n):
            for key, child in list(self.children.items()):
                if (key[0] in among) if among else (key[0] not in RATES):
                    try:
                        figures.setdefault(key, []).append(ask(child))
                    except ChildFailed as error:
                        self._fail(key, error)
        return {key: values for key, values in figures.items() if key in self.children}

    def close(self) -> None:
        for child in self.children.values():
            child.close()
        self.children = {}

    def records(
        self, section: str, figures: dict[Key, list[float]], unit: str, **more
    ) -> list[Record]:
        """A record per contender."""
        return [
            Record(
                section, *key, self.peers_setting, values, unit,
                versions=self.children[key].versions, **more,
            )
            for key, values in figures.items()
        ]  # fmt: skip


def training_sections(
    group: Group,
    sections: Sequence[str],
    scale: Scale,
    train: Reviews,
    buckets: Sequence[int],
) -> Iterator[list[Record]]:
    """The sections that train the network."""
    longest = buckets[-1]
    plan = ours.epoch_plan(train.lengths, scale.batch_size, buckets)
    shapes = _shapes(plan, train.lengths, buckets)
    everyones = range(scale.batch_size)
    every_shape = {"epoch", "roofline", "compile"} & set(sections)

    def step(child: Child, rows: Iterable[int] = everyones, length: int = longest) -> float:
        return child.ask("train", rows=[int(row) for row in rows], length=length)

    def second_step(child: Child, *arguments) -> float:
        """One step straight after another, as in training.

        What a process frees before it waits for its turn may go back to the host of a virtual machine, and
        take seconds per GB to get again.
        """
        step(child, *arguments)
        return step(child, *arguments)

    def epoch(child: Child) -> float:
        """Milliseconds per review in an epoch, computed from one batch of each of its shapes."""
        if child.name in RATES:
            return child.ask("rate")
        if CONTENDERS[child.name].module != "ours":  # all batches have one shape
            return second_step(child, plan[0]) / scale.batch_size * 1e3
        seconds = sum(n * second_step(child, rows, length) for length, (n, rows) in shapes.items())
        return seconds / len(train.ids) * 1e3

    def first_step(child: Child) -> float:
        """Seconds from the start of the process. Then compiles each shape and runs it once more."""
        seconds = child.start_seconds + child.ask("build") + step(child)
        step(child)
        if CONTENDERS[child.name].module == "ours" and every_shape:
            for length, (_, rows) in shapes.items():
                if length != longest:
                    step(child, rows, length)
                    step(child, rows, length)
        return seconds

    start = group.rounds(1, first_step)
    if "step" in sections:
        note = f"batch {scale.batch_size} x {longest}"
        yield group.records("step", group.rounds(scale.rounds, second_step), "s", note=note)
    if {"epoch", "roofline"} & set(sections):
        among = [name for name, _ in group.children if name not in RATES or "roofline" in sections]
        figures = group.rounds(min(3, scale.rounds), epoch, among)
        rates = {key: figures.pop(key) for key in list(figures) if key[0] in RATES}
        padded = sum(n * length for length, (n, _) in shapes.items()) * scale.batch_size
        note = (
            f"ours in buckets ({1 - train.lengths.sum() / padded:.1%} padding), peers at {longest}"
        )
        yield group.records("epoch", figures, "ms per review", note=note)
        notes = "4096 x 4096 x 4096, float32", "float32, operands in the L1 cache"
        for rate, note in zip(RATES, notes, strict=True):
            found = {key: values for key, values in rates.items() if key[0] == rate}
            yield group.records(rate, found, "GFLOP/s", note=note)
            if found:
                yield _shares(group, figures, found, train)
    if "memory" in sections:
        peaks = group.rounds(1, lambda child: child.ask("memory"))
        yield group.records("memory", peaks, "GB", note="peak resident memory of training")
    if "compile" in sections:
        note = "of the process, with the data prepared"
        yield group.records("start to first step", start, "s", note=note)
        one = group.rounds(1, lambda child: child.ask("compilation")["first"])
        yield group.records("compilation", one, "s", note=f"batch {scale.batch_size} x {longest}")
        every = group.rounds(1, lambda child: child.ask("compilation")["all"], ["ours"])
        note = f"{len(shapes)} shapes; from the cache if ours ran before"
        yield group.records("compilation of all shapes", every, "s", note=note)


def _shapes(
    plan: Sequence[np.ndarray], lengths: np.ndarray, buckets: Sequence[int]
) -> dict[int, tuple[int, np.ndarray]]:
    """By padded length: how often it occurs in an epoch's plan, and a full batch of it."""
    shapes: dict[int, tuple[int, np.ndarray]] = {}
    for rows in sorted(plan, key=len):  # a short last batch comes first and is replaced
        length = ours.padded_length(lengths[rows], buckets)
        shapes[length] = (shapes.get(length, (0, rows))[0] + 1, rows)
    return shapes


def _shares(
    group: Group, figures: dict[Key, list[float]], found: dict[Key, list[float]], train: Reviews
) -> list[Record]:
    """The rate of an epoch's arithmetic without padding, relative to one of this machine's rates."""
    flops = train_flops(Sizes(), train.lengths.tolist()) / len(train.ids)
    (((name, _), rates),) = found.items()
    shares = {
        key: [flops / (ms * 1e-3) / (rate * 1e9) for ms, rate in zip(values, rates, strict=True)]
        for key, values in figures.items()
    }
    note = f"{flops / 1e6:.0f} MFLOP per review at its own length"
    if name == "tile":
        return group.records("tile roofline", shares, "of the register tile's rate", note=note)
    return group.records("roofline", shares, "of the large product's rate", note=note)


def predict_section(group: Group, scale: Scale, test: Reviews) -> Iterator[list[Record]]:
    """Prediction, and by how much probabilities differ from ours where the weights are the same.

    All read reviews of every k-th of our batches, which differ in length. Those that pad every batch to the
    same length read fewer.
    """
    plan = ours.prediction_plan(test.lengths, scale.batch_size)[:-1]  # the last one may be short
    stride = max(1, len(plan) // scale.predict_batches)
    sample = np.concatenate(plan[stride // 2 :: stride])
    sample = sample[np.random.default_rng(0).permutation(len(sample))]
    few = sample[: scale.padded_predict_batches * scale.batch_size]
    rounds, note = min(5, scale.rounds), f"{len(sample):,} by length, {len(few):,} padded"
    if scale.full:
        few = sample = np.arange(len(test.ids))
        rounds, note = 1, f"all {len(sample):,}"

    def predict(child: Child, rows: np.ndarray | None = None) -> float:
        """Milliseconds per review."""
        if rows is None:
            rows = sample if CONTENDERS[child.name].by_length else few
        return child.ask("predict", rows=rows.tolist()) / len(rows) * 1e3

    group.rounds(1, lambda child: child.ask("build"))
    group.rounds(1, lambda child: predict(child, few))
    probabilities = {
        key: np.array(child.ask("probabilities"))
        for key, child in group.children.items()
        if CONTENDERS[key[0]].module == "ours" or not CONTENDERS[key[0]].trains
    }
    group.rounds(1, predict)  # compiles the other lengths
    yield group.records("predict", group.rounds(rounds, predict), "ms per review", note=note)
    reference = next((p for key, p in probabilities.items() if key[0] == "ours"), None)
    if reference is not None:
        differences = {
            key: [float(np.abs(p - reference).max())]
            for key, p in probabilities.items()
            if key[0] != "ours" and key in group.children
        }
        note = f"largest of {len(reference):,} reviews, the same weights"
        yield group.records("difference", differences, "of a probability", note=note)


def variants_step(group: Group, scale: Scale, length: int) -> Iterator[list[Record]]:
    """A training step of peers with other settings, once. Packed sequences of PyTorch are slow on a CPU."""

    def step(child: Child) -> float:
        child.ask("build")
        child.ask("train", rows=list(range(scale.batch_size)), length=length)  # warms up, compiles
        return child.ask("train", rows=list(range(scale.batch_size)), length=length)

    note = f"batch {scale.batch_size} x {length}"
    yield group.records("step", group.rounds(1, step), "s", note=note)


def layer_section(group: Group, section: str, scale: Scale) -> Iterator[list[Record]]:
    """One bidirectional layer, forward and backward, at growing sizes."""
    shapes = {
        "length": [(scale.at_batch, length, 64) for length in scale.lengths],
        "batch": [(batch, scale.at_length, 64) for batch in scale.batches],
        "hidden": [(scale.hidden_batch, scale.at_length, hidden) for hidden in scale.hiddens],
    }[section]
    for batch, length, hidden in shapes:
        sizes = dict(batch=batch, length=length, hidden=hidden, features=FEATURES)

        def layer(child: Child, seconds: float = scale.layer_seconds, sizes=sizes) -> float:
            return child.ask("layer", at_least_seconds=seconds, **sizes)

        group.rounds(1, partial(layer, seconds=0.0))  # compiles
        figures = group.rounds(min(3, scale.rounds), layer)
        fixed = ", ".join(f"{name} {size}" for name, size in sizes.items() if name != section)
        yield group.records(section, figures, "s", size=sizes[section], note=fixed)
