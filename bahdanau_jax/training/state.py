"""Model and optimizer as one state, the same on every device."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from bahdanau_jax.data.batches import steps_per_epoch
from bahdanau_jax.data.dataset import Dataset, unlabelled_texts
from bahdanau_jax.errors import InputError
from bahdanau_jax.models.build import build_classifier
from bahdanau_jax.recipes.warm_start import first_vocabulary, read_language_model, start_from
from bahdanau_jax.runs.config import Config
from bahdanau_jax.training.loss import class_weights
from bahdanau_jax.training.optimizer import make_optimizer
from bahdanau_jax.training.session import Session
from bahdanau_jax.training.sharding import on_every_device


class Setup(NamedTuple):
    """What is built before training.

    Attributes:
      model, optimizer: with their first values.
      graphdef: of `nnx.split((model, optimizer))`.
      state: of the same, on every device.
      class_counts: training texts of each class.
      class_weights: factor of each class's loss; None: 1.
      unlabelled: the texts without labels, if the config asks for them.
      epoch_steps, total_steps: number of steps.
    """

    model: Any
    optimizer: nnx.Optimizer
    graphdef: nnx.GraphDef
    state: Any
    class_counts: np.ndarray
    class_weights: tuple[float, ...] | None
    unlabelled: Sequence[str]
    epoch_steps: int
    total_steps: int


def build_state(run: Session, dataset: Dataset) -> Setup:
    """Makes the model and its optimizer. The model starts from the runs that the config names.

    Raises:
      InputError: `config.init_from` or `config.language_model` is not a run with fitting sizes, or the model
        does not let its word vectors be shifted.
    """
    config = run.config
    model = build_classifier(
        config.model.model_dump(),
        config.vocab_size,
        len(dataset.label_names),
        rngs=nnx.Rngs(config.seed),
    )
    network = getattr(model, "network", model)
    if config.init_from:
        start_from(config.init_from, network)
    if config.language_model:
        _read_language_model(config, network)
    if any(config.adversarial.model_dump().values()) and not hasattr(model, "embed"):
        raise InputError(
            f"config.adversarial: {config.model.target} has no embed(ids); expected one, and a call "
            "that takes embedded=, as AttentionClassifier has"
        )
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.label_names))
    unlabelled = unlabelled_texts(dataset, "config.unlabelled") if config.unlabelled else []
    rows = len(dataset.train) + (len(unlabelled) if config.adversarial.virtual_norm else 0)
    epoch_steps = steps_per_epoch(rows, config.batch_size)
    total_steps = epoch_steps * config.epochs
    transformation = make_optimizer(**config.optimizer.model_dump(), total_steps=total_steps)
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
    graphdef, state = nnx.split((model, optimizer))
    return Setup(
        model,
        optimizer,
        graphdef,
        on_every_device(run.mesh, state),
        counts,
        class_weights(counts) if config.class_weights else None,
        unlabelled,
        epoch_steps,
        total_steps,
    )


def _read_language_model(config: Config, network: Any) -> None:
    states, vocabulary = getattr(network, "language_model", None), first_vocabulary(config)
    if states is None or vocabulary is None:
        raise InputError(
            f"config.language_model: {config.model.target} has no language_model; expected a module "
            "LanguageModelStates of this name, as AttentionClassifier has"
        )
    read_language_model(config.language_model, states, vocabulary)
