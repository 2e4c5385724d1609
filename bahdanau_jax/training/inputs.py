"""The inputs of a run, texts as ids: the vocabulary, the digests that resume compares, and the batches."""

from collections.abc import Sequence

import grain
import jax
import numpy as np

from bahdanau_jax.data.batches import (
    eval_batches,
    padding_share,
    plan_epoch,
    rows_of_step,
    train_batches,
)
from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.find_tokenizer import learns
from bahdanau_jax.data.token_store import EncodedTexts
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.recipes.warm_start import first_vocabulary
from bahdanau_jax.runs import fingerprints, multihost
from bahdanau_jax.runs.checkpoint_checks import complete_steps
from bahdanau_jax.runs.flags import numeric_flags
from bahdanau_jax.training.session import Session


class Tokenized:
    """The splits as ids.

    Attributes:
      dataset: where they come from.
      examples: text, label and id of each split read so far; test comes with `add_test`.
      whole: every id of each text.
      ids: the last `max_length` ids of each text.
      unlabelled: the same of the texts without labels.
      vocabulary: the words.
    """

    def __init__(
        self, run: Session, dataset: Dataset, vocabulary: Vocabulary, unlabelled: Sequence[str]
    ):
        self._config, self._folder, self.dataset = run.config, run.workdir, dataset
        self.vocabulary = vocabulary
        self.examples: dict[str, Examples] = {}
        self.whole: dict[str, EncodedTexts] = {}
        self.ids: dict[str, EncodedTexts] = {}
        self._add("train", dataset.train)
        self._add("validation", dataset.validation)
        self.unlabelled = vocabulary.gather(unlabelled, run.workdir).last(run.config.max_length)
        self._train, self._labels = self.ids["train"], dataset.train.labels
        if run.config.adversarial.virtual_norm:
            self._train = self._train + self.unlabelled
            self._labels = np.r_[self._labels, np.full(len(unlabelled), -1)]

    def _add(self, split: str, examples: Examples) -> None:
        self.examples[split] = examples
        self.whole[split] = self.vocabulary.gather(examples.texts, self._folder)
        self.ids[split] = self.whole[split].last(self._config.max_length)

    def add_test(self) -> None:
        """Reads the test split, for the first time."""
        self._add("test", self.dataset.read_test())

    def train_batches(self) -> grain.DatasetIterator:
        """This process's share of the training batches of all epochs."""
        return train_batches(
            self._train,
            self._labels,
            **self._sizes,
            epochs=self._config.epochs,
            seed=self._config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def texts_once(self) -> Sequence[grain.DatasetIterator]:
        """Batches of the training texts, and of the texts without labels, each text once."""
        texts = self.ids["train"]
        labels = self.examples["train"].labels
        nothing = np.zeros(len(self.unlabelled), np.int32)
        return [
            eval_batches(texts, labels, **self._sizes),
            eval_batches(self.unlabelled, nothing, **self._sizes),
        ]

    def ids_of_step(self, step: int) -> Sequence[str]:
        """The ids of the reviews in the batch of a step, counted from 1."""
        rows = rows_of_step(self._cut_lengths, step, **self._sizes, seed=self._config.seed)
        train = self.examples["train"]
        n = len(train)
        return [train.ids[row] if row < n else f"unlabelled {row - n}" for row in map(int, rows)]

    def describe_batches(self) -> str:
        """The number of batches per epoch, their lengths, and the share of padding in them."""
        size, buckets = self._config.batch_size, self._config.bucket_lengths
        plan = plan_epoch(self._cut_lengths, size, buckets, np.random.default_rng(0))
        return (
            f"{len(plan)} per epoch of {size} reviews, padded to {', '.join(map(str, buckets))}: "
            f"{padding_share(self._cut_lengths, plan, buckets):.1%} padding"
        )

    @property
    def _sizes(self) -> dict:
        return dict(batch_size=self._config.batch_size, bucket_lengths=self._config.bucket_lengths)

    @property
    def _cut_lengths(self) -> np.ndarray:
        return self._train.lengths


def tokenize(run: Session, dataset: Dataset, unlabelled: Sequence[str]) -> Tokenized:
    """Builds the vocabulary and turns train and validation into ids.

    The first process keeps the vocabulary and the data's digests in the folder. On resume the digests are
    compared instead, and the other processes compare theirs with the first one's.

    Raises:
      InputError: data, vocabulary or a flag is not what the run began with, or differs between processes.
    """
    vocabulary = _make_vocabulary(run, dataset)
    checkpoints = run.open_checkpoints()
    data = fingerprints.of_data(dataset, vocabulary) | numeric_flags()
    if run.config.adversarial.virtual_norm and unlabelled:
        digest = fingerprints.of_json(list(unlabelled))
        data["unlabelled"] = {"reviews": len(unlabelled), "sha256": digest}
    multihost.check_same("the data, or a JAX_... variable,", fingerprints.of_json(data))
    if run.first:
        begun = bool(checkpoints.steps())
        fingerprints.keep_or_compare(run.workdir / "data.json", data, begun=begun)
        vocabulary.save(run.workdir / "vocabulary.json")
    return Tokenized(run, dataset, vocabulary, unlabelled)


def _make_vocabulary(run: Session, dataset: Dataset) -> Vocabulary:
    """Counts words in the training texts, or reads the vocabulary of another run or of this run's folder.

    Subwords may come out a little differently when they are learned again. So only the first process learns
    them, once, and a resumed run reads them.
    """
    config, tokenizer = run.config, run.config.tokenizer
    if (vocabulary := first_vocabulary(config)) is not None:
        return vocabulary
    file, learned = run.workdir / "vocabulary.json", learns(tokenizer.name)
    begun = bool(complete_steps(run.workdir / "checkpoints"))
    if not learned or (run.first and not begun):
        vocabulary = Vocabulary.build(
            dataset.train.texts,
            size=config.vocab_size,
            tokenizer=tokenizer.name,
            options=tokenizer.options,
        )
        if not learned:
            return vocabulary
        vocabulary.save(file)
    multihost.meet()
    return Vocabulary.load(file)
