"""The benchmark's sections: what each asks of the contenders, in rounds A B C A B C ..."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from experiments import benchmark_ours as ours
from experiments.benchmark_child import Child, ChildFailed
from experiments.benchmark_data import Reviews
from experiments.benchmark_network import Sizes, train_flops
from experiments.benchmark_records import Record

TRAINING = ("step", "epoch", "roofline", "predict", "compile", "memory")
SCALING = ("length", "batch", "hidden")
FEATURES = 128  # of the inputs to the layer alone


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured."""

    batch_size: int = 256
    rounds: int = 5  # of the training step; the other sections take 3
    predict_batches: int = 10  # ours; the batches differ in length
    peer_predict_batches: int = 2  # the peers' are all padded to the same
    lengths: tuple[int, ...] = (64, 256, 1024, 2048, 8192)
    batches: tuple[int, ...] = (1, 8, 64, 256, 1024)
    hiddens: tuple[int, ...] = (32, 128, 512, 1024)
    at_batch: int = 16  # of "length"
    at_length: int = 128  # of "batch" and "hidden"
    hidden_batch: int = 32  # of "hidden"
    layer_seconds: float = 0.4  # a turn of the layer alone, at least
    full: bool = False  # predict all reviews, once


QUICK = Scale(
    batch_size=32,
    rounds=2,
    predict_batches=4,
    peer_predict_batches=2,
    lengths=(64, 512),
    batches=(1, 32),
    hiddens=(32, 128),
    layer_seconds=0.1,
)
Key = tuple[str, str]  # contender, its setting


class Group:
    """The contenders that are measured in the same rounds, each in its process."""

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

    def drop(self, key: Key, error: ChildFailed) -> None:
        """Goes on without this contender."""
        self.children.pop(key).close()
        self._fail(key, error)

    def _fail(self, key: Key, error: ChildFailed) -> None:
        self.failures.append(f"{key[0]} ({key[1]}): {error}")
        self._say(f"left out from here on: {self.failures[-1]}")

    def rounds(
        self, n: int, ask: Callable[[Child], float], among: Sequence[str] = ()
    ) -> dict[Key, list[float]]:
        """Asks every contender (or those `among`) once a round."""
        figures: dict[Key, list[float]] = {}
        for _ in range(n):
            for key, child in list(self.children.items()):
                if (key[0] in among) if among else (key[0] != "matmul"):
                    try:
                        figures.setdefault(key, []).append(ask(child))
                    except ChildFailed as error:
                        self.drop(key, error)
        return {key: values for key, values in figures.items() if key in self.children}

    def close(self) -> None:
        for child in self.children.values():
            child.close()
        self.children = {}

    def records(
        self, section: str, figures: dict[Key, list[float]], unit: str, **more
    ) -> list[Record]:
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
    test: Reviews,
    buckets: Sequence[int],
) -> Iterator[list[Record]]:
    """The network: its first step, training steps, epoch, memory and prediction."""
    longest = buckets[-1]
    plan = ours.epoch_plan(train.lengths, scale.batch_size, buckets)
    shapes = _shapes(plan, train.lengths, buckets)
    everyones = range(scale.batch_size)

    def step(child: Child, rows: Iterable[int] = everyones, length: int = longest) -> float:
        return child.ask("train", rows=[int(row) for row in rows], length=length)

    def epoch(child: Child) -> float:
        """Milliseconds a review of a whole epoch, from one batch of each shape that it has."""
        if child.name == "matmul":
            return child.ask("matmul")
        if child.name != "ours":  # padded to one length, so that one batch stands for all
            return step(child, plan[0]) / scale.batch_size * 1e3
        seconds = sum(n * step(child, rows, length) for length, (n, rows) in shapes.items())
        return seconds / len(train.ids) * 1e3

    def first_step(child: Child) -> float:
        """Seconds from the start of the process; then each shape is compiled and run once more."""
        seconds = child.start_seconds + child.ask("build")["seconds"] + step(child)
        step(child)
        if child.name == "ours" and {"epoch", "compile"} & set(sections):
            for length, (_, rows) in shapes.items():
                if length != longest:
                    step(child, rows, length)
                    step(child, rows, length)
        return seconds

    start = group.rounds(1, first_step)
    if "step" in sections:
        note = f"batch {scale.batch_size} x {longest}"
        yield group.records("step", group.rounds(scale.rounds, step), "s", note=note)
    if {"epoch", "roofline"} & set(sections):
        among = [name for name, _ in group.children if name != "matmul" or "roofline" in sections]
        figures = group.rounds(min(3, scale.rounds), epoch, among)
        products = {key: figures.pop(key) for key in list(figures) if key[0] == "matmul"}
        padded = sum(n * length for length, (n, _) in shapes.items()) * scale.batch_size
        note = (
            f"ours in buckets ({1 - train.lengths.sum() / padded:.1%} padding), peers at {longest}"
        )
        yield group.records("epoch", figures, "ms a review", note=note)
        yield group.records("matmul", products, "GFLOP/s", note="4096 x 4096 x 4096, float32")
        if products:
            yield _shares(group, figures, products, train)
    if "memory" in sections:
        peaks = group.rounds(1, lambda child: child.ask("memory"))
        yield group.records("memory", peaks, "GB", note="peak resident memory of training")
    if "compile" in sections:
        note = "of the process, data prepared"
        yield group.records("start to first step", start, "s", note=note)
        one = group.rounds(1, lambda child: child.ask("compilation")["first"])
        yield group.records("compilation", one, "s", note=f"batch {scale.batch_size} x {longest}")
        every = group.rounds(1, lambda child: child.ask("compilation")["all"], ["ours"])
        note = f"{len(shapes)} shapes; from the cache wherever ours ran before"
        yield group.records("compilation of all shapes", every, "s", note=note)
    if "predict" in sections:
        yield _predict(group, scale, test)


def _shapes(
    plan: Sequence[np.ndarray], lengths: np.ndarray, buckets: Sequence[int]
) -> dict[int, tuple[int, np.ndarray]]:
    """Of an epoch's plan: how often each padded length occurs, and a full batch of it."""
    shapes: dict[int, tuple[int, np.ndarray]] = {}
    for rows in sorted(plan, key=len):  # a short last batch comes first and is replaced
        length = ours.padded_length(lengths[rows], buckets)
        shapes[length] = (shapes.get(length, (0, rows))[0] + 1, rows)
    return shapes


def _shares(
    group: Group, figures: dict[Key, list[float]], products: dict[Key, list[float]], train: Reviews
) -> list[Record]:
    """What an epoch's arithmetic without padding is of the rate of a large product."""
    flops = train_flops(Sizes(), train.lengths.tolist()) / len(train.ids)
    (rates,) = products.values()
    shares = {
        key: [flops / (ms * 1e-3) / (rate * 1e9) for ms, rate in zip(values, rates, strict=True)]
        for key, values in figures.items()
    }
    note = f"{flops / 1e6:.0f} MFLOP a review at its own length"
    return group.records("roofline", shares, "of the large product's rate", note=note)


def _predict(group: Group, scale: Scale, test: Reviews) -> list[Record]:
    """Every k-th of our batches, which differ in length; for the peers some of these reviews."""
    plan = ours.prediction_plan(test.lengths, scale.batch_size)[:-1]  # the last one may be short
    stride = max(1, len(plan) // scale.predict_batches)
    sample = np.concatenate(plan[stride // 2 :: stride])
    order = np.random.default_rng(0).permutation(len(sample))
    few = sample[order[: scale.peer_predict_batches * scale.batch_size]]
    sample = sample[order]
    rounds, note = min(3, scale.rounds), f"from {len(sample):,} (ours) and {len(few):,} (peers)"

    def predict(child: Child) -> float:
        """Milliseconds a review."""
        rows = sample if child.name == "ours" else few
        return child.ask("predict", rows=rows.tolist()) / len(rows) * 1e3

    group.rounds(1, predict)  # compiles
    if scale.full:
        few = sample = np.arange(len(test.ids))
        rounds, note = 1, f"all {len(sample):,}"
    return group.records("predict", group.rounds(rounds, predict), "ms a review", note=note)


def packed_step(group: Group, scale: Scale, length: int) -> Iterator[list[Record]]:
    """PyTorch's packed sequences, once: exact, without padding, and slow on a CPU."""

    def step(child: Child) -> float:
        child.ask("build")
        child.ask("train", rows=list(range(8)), length=length)  # warms up
        return child.ask("train", rows=list(range(scale.batch_size)), length=length)

    note = f"batch {scale.batch_size} x {length}"
    yield group.records("step", group.rounds(1, step), "s", note=note)


def scaling_section(group: Group, section: str, scale: Scale) -> Iterator[list[Record]]:
    """One BiLSTM alone, forward and backward, while one of its sizes grows."""
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
