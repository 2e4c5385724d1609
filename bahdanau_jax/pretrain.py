"""A run that learns word vectors, from config to a folder that classifiers start from."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from sklearn.linear_model import LogisticRegression

from bahdanau_jax import console as show
from bahdanau_jax import digests, environment, processes, sources
from bahdanau_jax.pretrained import mean_vectors, save_vectors
from bahdanau_jax.self_training import unlabelled_texts
from bahdanau_jax.stop import Stopped, StopSignals
from bahdanau_jax.text import Vocabulary
from bahdanau_jax.train import figures_with_interval, read_dataset
from bahdanau_jax.word_vectors import skip_gram
from bahdanau_jax.workdir import open_workdir, write_json


def pretrain(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Learns the config's word vectors and leaves them in `workdir` as vectors.npy, with their vocabulary.

    It takes minutes and keeps nothing half done: a run that was killed begins again, to the same bits.
    Neither validation's texts, by which classifiers are chosen, nor test's are read for it. How much the
    vectors alone know of the labels is told for validation: a logistic regression on the mean of a text's.

    Args:
      config: as made by `experiments/imdb_vectors.py`.
      workdir: the run's folder; a folder of another config's run is refused.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError, DataNotFound, Stopped: as `train.train_and_evaluate`.
    """
    processes.check_alone("learning word vectors")
    with open_workdir(workdir, config) as workdir, StopSignals() as stop:
        console = show.make_console()
        finished = show.show_finished(console, workdir)
        if finished is not None:
            return finished
        started = time.monotonic()

        # Data: texts, then ids.
        dataset = read_dataset(config.data, config.seed)
        unlabelled = unlabelled_texts(dataset, "config.unlabelled") if config.unlabelled else []
        texts = [*dataset.train.texts, *unlabelled]
        vocabulary = Vocabulary.build(texts, size=config.vocab_size, marks=config.marks)
        write_json(
            workdir / "data.json",
            digests.of_data(dataset, vocabulary)
            | {"texts": {"number": len(texts), "sha256": digests.of_json(texts)}},
        )
        vocabulary.save(workdir / "vocabulary.json")
        ids = vocabulary.encode_all(texts)
        words = sum(len(row) - 1 for row in ids)
        console.print(
            f"{len(texts):,} texts, {words:,} words, {config.epochs} epochs", style="bold"
        )

        # Vectors.
        begun = time.monotonic()

        def after_epoch(done: int) -> None:
            left = (time.monotonic() - begun) / done * (config.epochs - done)
            console.print(f"epoch {done} of {config.epochs}, {show.format_seconds(left)} left")
            if stop.asked:
                raise Stopped(f"stopped by {stop.asked} in epoch {done} of {config.epochs}")

        vectors = skip_gram(
            ids,
            vocab_size=config.vocab_size,
            features=config.model.embedding_features,
            window=config.model.window,
            negatives=config.model.negatives,
            subsample=config.model.subsample,
            epochs=config.epochs,
            seed=config.seed,
            after_epoch=after_epoch,
        )
        sha256 = save_vectors(workdir, vectors)
        result = {
            "dataset": dataset.name,
            "splits": {
                "validation": probe(vectors, ids[: len(dataset.train)], dataset, vocabulary)
            },
            "seed": config.seed,
            "texts": len(texts),
            "words": words,
            "epochs": config.epochs,
            "steps": None,  # none are taken
            "vectors_sha256": sha256,
            "parameters": vectors.size,
            "wall_clock_seconds": time.monotonic() - started,
            **environment.peak_memory(),
            **environment.provenance(),
            "workdir": str(workdir),
        }
        write_json(workdir / "result.json", result)
        show.show_result(console, result)
    return result


def probe(
    vectors: np.ndarray,
    train_ids: Sequence[np.ndarray],
    dataset: sources.Dataset,
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    """Figures on validation of a logistic regression that reads the mean of a text's vectors."""
    validation_ids = vocabulary.encode_all(dataset.validation.texts)
    train, validation = (mean_vectors(vectors, ids) for ids in (train_ids, validation_ids))
    solver = LogisticRegression(max_iter=1_000).fit(train, dataset.train.labels)
    logits = np.asarray(solver.decision_function(validation), np.float32)
    logits = logits.reshape(len(validation), -1)  # one for two classes
    return figures_with_interval(logits, dataset.validation)
