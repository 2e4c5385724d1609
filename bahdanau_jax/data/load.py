"""Loads the data set that a config names."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from bahdanau_jax.data.dataset import Dataset
from bahdanau_jax.data.look import check_trainable, warnings_of
from bahdanau_jax.data.movie_reviews import validate_by_films
from bahdanau_jax.errors import InputError
from bahdanau_jax.import_path import accepted, load_object

SOURCES = {
    "tfds": "bahdanau_jax.data.tfds:load_tfds",
    "files": "bahdanau_jax.data.files:load_files",
    "hub": "bahdanau_jax.data.hub:load_hub",
    "embedded": "bahdanau_jax.data.movie_reviews:load_embedded",
    "rotten_tomatoes": "bahdanau_jax.data.movie_reviews:load_rotten_tomatoes",
    "made_up": "bahdanau_jax.data.synthetic:make_up",
}
_FIELD = "config.data.source"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def load_dataset(
    fields: Mapping[str, Any],
    *,
    seed: int,
    tokenizer: str = "words",
    say: Callable[[str], object] = _to_stderr,
) -> Dataset:
    """Calls the loader that `fields["source"]` names. Says how texts were read, and warnings about them.

    A loader is a function that takes keyword arguments and returns a `Dataset`. It gets `seed` and those
    fields that its parameters name, and all of `fields["options"]`.

    Args:
      fields: the config's `data` section. `source` is a key of `SOURCES` or "package.module:function".
      seed: the run's seed.
      tokenizer: `config.tokenizer.name`, for a warning about texts without spaces.
      say: takes the lines.

    Raises:
      InputError: as `find_source`, the loader returns something else, or the texts suffice for no training.
      DataNotFound: the data is neither here nor can it be downloaded.

    Example:
      >>> fields = dict(source="made_up", train_size=9, validation_size=2, test_size=2)
      >>> len(load_dataset(fields, seed=0).train)
      9
    """
    dataset = read_dataset(fields, seed=seed)
    for line in (*dataset.notes, *warnings_of(dataset, tokenizer)):
        say(line)
    check_trainable(dataset)
    return dataset


def read_dataset(fields: Mapping[str, Any], *, seed: int) -> Dataset:
    """As `load_dataset`, for a look at texts that may not suffice for training."""
    # "embedded" has no other split than that by films.
    by_films = fields.get("validation") == "films" and fields["source"] != "embedded"
    load, arguments = _resolve({**fields, "validation_fold": 0} if by_films else fields, seed)
    dataset = load(**arguments)
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"{_FIELD} is {fields['source']!r}, which returned {type(dataset).__name__}; "
            "expected a bahdanau_jax.data.dataset.Dataset"
        )
    if by_films:
        fold = int(fields.get("validation_fold", 0))
        return validate_by_films(dataset, int(fields["validation_size"]), fold)
    return dataset


def find_source(fields: Mapping[str, Any]) -> Callable[..., Dataset]:
    """Returns the loader that `fields["source"]` names, without calling it.

    Raises:
      InputError: it cannot be imported, needs a parameter that no field has, or does not take one of the
        options.

    Example:
      >>> find_source({"source": "made_up", "train_size": 9, "validation_size": 2, "test_size": 2}).__name__
      'make_up'
      >>> find_source({"source": "nowhere"})
      Traceback (most recent call last):
      bahdanau_jax.errors.InputError: config.data.source is 'nowhere'; expected 'tfds', 'files', \
'hub', 'embedded', 'rotten_tomatoes', 'made_up' or "package.module:function"
    """
    return _resolve(fields, seed=0)[0]


def _resolve(fields: Mapping[str, Any], seed: int) -> tuple[Callable[..., Dataset], dict[str, Any]]:
    """Returns the loader and its arguments."""
    source: str = fields["source"]
    options = dict(fields.get("options") or {})
    if source not in SOURCES and ":" not in source:
        known = ", ".join(map(repr, SOURCES))
        raise InputError(f'{_FIELD} is {source!r}; expected {known} or "package.module:function"')
    load = load_object(SOURCES.get(source, source), _FIELD)
    given = {name: fields[name] for name in fields if name not in ("source", "options")}
    arguments = accepted(load, {**given, "seed": seed}, _FIELD, options)
    if fields.get("validation_fold") and "validation_fold" not in arguments:
        raise InputError(
            f"config.data.validation_fold is {fields['validation_fold']}; expected 0, since the source "
            f"{source!r} has no folds"
        )
    return load, arguments
