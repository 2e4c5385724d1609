"""Where the time of a prediction goes, from text to answer, on the test reviews of a run.

    python -m benchmarks.stages --workdir=runs/imdb [--rounds=3]

--workdir   A run's folder. Its config says where the test texts come from.
--rounds    How often each stage is timed. Default: 3.

Rows, in milliseconds a review, medians: `Predictor` on all texts; within it the conversion of texts to ids,
padding, the BiLSTMs, and the model without them (attention, head, transfers). "rest" is what remains.

Exit codes: 0 done, 2 wrong flags or input.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.predictor import Predictor, padded_batches, read_config
from bahdanau_jax.runs.environment import use_compilation_cache
from bahdanau_jax.token_ids import PAD
from experiments.command import REQUIRED, command, parse_flags


@nnx.jit
def run_layers(model: Any, ids: jax.Array) -> jax.Array:
    """The last states of the last BiLSTM, [batch, 2*hidden]."""
    hidden = model.embed(ids)
    for layer in model.encoder[:-1]:
        hidden, _ = layer(hidden, ids != PAD)
    return model.encoder[-1](hidden, ids != PAD)[1][0]


@nnx.jit
def run_model(model: Any, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits and attention weights."""
    return model(ids)


def each_batch(run: Callable, model: Any, batches: Sequence[Any]) -> Callable[[], Any]:
    """A function that runs all batches and fetches the results, as `Predictor` does."""
    return lambda: jax.device_get([run(model, batch) for _, batch in batches])


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, _ = parse_flags(argv, workdir=REQUIRED, rounds=3)
    use_compilation_cache()
    workdir = Path(asked.workdir).expanduser()
    predictor = Predictor.load(workdir)
    model = nnx.merge(*predictor._fastest)
    if not hasattr(model, "encoder"):
        raise InputError(f"{workdir}: its model has no `encoder`; expected the network alone")
    config = read_config(workdir)
    texts = load_dataset(config.data.model_dump(), seed=config.seed).read_test().texts
    texts = list(texts)
    encode = lambda: predictor.vocabulary.encode_all(  # noqa: E731
        texts, max_length=predictor.bucket_lengths[-1]
    )
    ids = encode()
    pad = lambda: list(padded_batches(ids, predictor.bucket_lengths))  # noqa: E731
    batches = [(chosen, jnp.asarray(batch)) for chosen, batch in pad()]
    stages = {
        "Predictor": lambda: predictor(texts),
        "text to ids": encode,
        "padding": pad,
        "BiLSTMs": each_batch(run_layers, model, batches),
        "model": each_batch(run_model, model, batches),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(asked.rounds + 1):  # the first compiles
        for name, stage in stages.items():
            begun = time.perf_counter()
            stage()
            seconds[name].append(time.perf_counter() - begun)
    ms = {name: 1e3 * median(found[1:]) / len(texts) for name, found in seconds.items()}
    ms["attention, head, transfers"] = ms["model"] - ms["BiLSTMs"]
    ms["rest"] = ms["Predictor"] - ms["text to ids"] - ms["padding"] - ms.pop("model")
    print(f"{len(texts):,} reviews, median of {asked.rounds}")
    for name, value in ms.items():
        print(f"{name:<28} {value:7.4f} ms a review {value / ms['Predictor']:6.1%}")


if __name__ == "__main__":
    sys.exit(main())
