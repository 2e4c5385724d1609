"""Self-training: the texts without labels join the training set, with what another run makes of them as labels.

The labels are soft, the probability of the second class, so a doubtful text teaches little (Lee 2013 has hard
ones; soft ones are Hinton et al.'s, 1503.02531).
"""

import dataclasses
from pathlib import Path

import numpy as np

from bahdanau_jax.errors import InputError
from bahdanau_jax.predict import Predictor
from bahdanau_jax.sources import Dataset, Examples
from bahdanau_jax.workdir import read_json, write_json

_AT_A_TIME = 5_000  # texts, so that their attention weights are not all held at once


def unlabelled_texts(dataset: Dataset, field: str) -> list[str]:
    """The texts without labels, but for copies of validation's, by which models are chosen.

    Args:
      dataset: of which.
      field: of the config, that asks for them.

    Raises:
      InputError: there are none.
    """
    held_out = set(dataset.validation.texts)
    texts = [text for text in dataset.read_unlabelled() if text not in held_out]
    if not texts:
        raise InputError(f"{field}: {dataset.name} has no texts without labels")
    return texts


def with_soft_labels(dataset: Dataset, teacher: str | Path, file: Path) -> Dataset:
    """The data set whose train holds the texts without labels too; all its labels are float32.

    Args:
      dataset: of two classes.
      teacher: the folder of a run on the same classes.
      file: keeps the labels, and is read where it is there: a run that goes on has the ones it began with.

    Raises:
      InputError: there are no such texts or not two classes, or the teacher's folder holds no run.
    """
    if len(dataset.label_names) != 2:
        raise InputError(
            f"config.teacher is for two classes; {dataset.name} has {len(dataset.label_names)}"
        )
    texts = unlabelled_texts(dataset, "config.teacher")
    kept = read_json(file) if file.exists() else {}
    if not isinstance(kept, dict):
        raise InputError(f"{file} is damaged: expected a teacher and its probabilities")
    if kept.get("teacher") == str(teacher) and len(kept["probabilities"]) == len(texts):
        soft = np.array(kept["probabilities"], np.float32)
    else:
        try:
            predict = Predictor.load(teacher)
        except InputError as error:
            raise InputError(f"config.teacher: {error}") from error
        soft = np.array(
            [
                prediction.probabilities[1]
                for i in range(0, len(texts), _AT_A_TIME)
                for prediction in predict(texts[i : i + _AT_A_TIME])
            ],
            np.float32,
        )
        write_json(file, {"teacher": str(teacher), "probabilities": soft.tolist()})
    train = Examples(
        [*dataset.train.texts, *texts],
        np.concatenate([dataset.train.labels.astype(np.float32), soft]),
        [*dataset.train.ids, *(f"unlabelled/{i}" for i in range(len(texts)))],
    )
    return dataclasses.replace(dataset, train=train)
