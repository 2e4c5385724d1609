"""A run that learns word vectors and leaves them in a folder, for classifiers to start from."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from bahdanau_jax.data.dataset import Dataset
from bahdanau_jax.data.find_tokenizer import check_tokenizer
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.metrics import figures_with_interval
from bahdanau_jax.recipes.all_texts import read_all_texts
from bahdanau_jax.recipes.warm_start import mean_vectors, save_vectors
from bahdanau_jax.recipes.word_vectors import SkipGram, load_gensim, normalized, topic_vectors
from bahdanau_jax.runs import console as show
from bahdanau_jax.runs import environment, fingerprints, multihost
from bahdanau_jax.runs.checkpoint_checks import complete_steps
from bahdanau_jax.runs.checkpoints import Checkpoints
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import parse_config
from bahdanau_jax.runs.preemption import StopSignals
from bahdanau_jax.runs.safe_files import write_json
from bahdanau_jax.runs.word_vectors_config import WordVectorsConfig


def pretrain(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Learns word vectors and writes them to `workdir`, as vectors.npy with their vocabulary.

    Skip-gram keeps a checkpoint after each epoch, from which a stopped run goes on to the same bits. The run
    reads neither validation nor test texts. At the end, a logistic regression on the mean vector of each text
    shows on validation how much the vectors alone know of the labels.

    Args:
      config: as made by `experiments/imdb_vectors.py`.
      workdir: the run's folder; a folder that holds a run of another config is refused.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError: the config, the folder or the data is not as expected.
      DataNotFound: the data set is neither prepared nor reachable.
      Stopped: a signal asked to stop.
    """
    multihost.check_alone("learning word vectors")
    settings = parse_config(config)
    if not isinstance(settings, WordVectorsConfig):
        raise InputError("config.task is missing; expected 'word_vectors'")
    load_gensim()  # if it is missing, say so before minutes of reading
    check_tokenizer(settings.tokenizer.name, settings.tokenizer.options)
    with open_workdir(workdir, settings.model_dump()) as workdir, StopSignals():
        console = show.make_console()
        finished = show.show_finished(console, workdir)
        if finished is not None:
            return finished
        started = time.monotonic()

        # Data: texts, then ids.
        dataset, texts, vocabulary, digests = read_all_texts(settings)
        begun = bool(complete_steps(workdir / "checkpoints"))
        fingerprints.keep_or_compare(workdir / "data.json", digests, begun=begun)
        vocabulary.save(workdir / "vocabulary.json")
        ids = vocabulary.encode_all(texts)
        words = sum(len(row) - 1 for row in ids)
        console.print(
            f"{len(texts):,} texts, {words:,} words, {settings.epochs} epochs", style="bold"
        )

        # Vectors.
        model = settings.model
        skip_gram = SkipGram(
            ids,
            vocab_size=settings.vocab_size,
            features=model.embedding_features - model.topic_features,
            window=model.window,
            negatives=model.negatives,
            subsample=model.subsample,
            epochs=settings.epochs,
            seed=settings.seed,
        )
        _train(skip_gram, workdir, console)
        vectors = skip_gram.vectors()
        if model.topic_features:
            topics = topic_vectors(
                ids,
                vocab_size=settings.vocab_size,
                features=model.topic_features,
                seed=settings.seed,
            )
            vectors = np.concatenate([vectors, topics], axis=1)
        vectors = normalized(vectors, ids)

        # Result.
        sha256 = save_vectors(workdir, vectors)
        validation = probe(vectors, ids[: len(dataset.train)], dataset, vocabulary)
        result = {
            "dataset": dataset.name,
            "splits": {"validation": validation},
            "seed": settings.seed,
            "texts": len(texts),
            "words": words,
            "epochs": settings.epochs,
            "steps": None,  # gensim counts none
            "vectors_sha256": sha256,
            "parameters": vectors.size,
            "wall_clock_seconds": time.monotonic() - started,
            **environment.peak_memory(),
            **environment.provenance(),
            "workdir": str(workdir),
        }
        write_json(workdir / "result.json", result)
        shutil.rmtree(workdir / "checkpoints")  # of no use beside vectors.npy
        show.show_result(console, result)
    return result


def _train(skip_gram: SkipGram, workdir: Path, console: Console) -> None:
    """Trains all epochs, from the latest checkpoint on."""
    state = nnx.State(skip_gram.state())
    epochs = iter(grain.MapDataset.range(skip_gram.epochs).to_iter_dataset())
    with Checkpoints(workdir) as checkpoints:
        first = 0
        restored = checkpoints.restore_latest(state, epochs)
        show.show_warnings(console, checkpoints.notices)
        if restored is not None:
            first, state, _ = restored
            skip_gram.set_state(nnx.to_pure_dict(state))
            console.print(f"resumed from the checkpoint of epoch {first} of {skip_gram.epochs}")
        begun = time.monotonic()
        for epoch in epochs:
            skip_gram.train_epoch(epoch)
            done = epoch + 1
            checkpoints.save(done, nnx.State(skip_gram.state()), epochs, {})
            left = (time.monotonic() - begun) / (done - first) * (skip_gram.epochs - done)
            console.print(f"epoch {done} of {skip_gram.epochs}, {show.format_seconds(left)} left")


def probe(
    vectors: np.ndarray, train_ids: Sequence[np.ndarray], dataset: Dataset, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Fits a logistic regression to the mean vector of each training text.

    Args:
      vectors: float32 [vocab_size, features].
      train_ids: int32 ids of each text of `dataset.train`.
      dataset: with at least two classes in train.
      vocabulary: of the vectors.

    Returns:
      figures on validation, as `metrics.figures_with_interval`.
    """
    validation_ids = vocabulary.encode_all(dataset.validation.texts)
    train, validation = (mean_vectors(vectors, ids) for ids in (train_ids, validation_ids))
    solver = LogisticRegression(max_iter=1_000).fit(train, dataset.train.labels)
    logits = np.asarray(solver.decision_function(validation), np.float32)
    logits = logits.reshape(len(validation), -1)  # one for two classes
    return figures_with_interval(logits, dataset.validation)
