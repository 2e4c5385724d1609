"""Checks a config against the fields that `config.py` declares, and explains what is wrong in one line."""

import collections.abc
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from ml_collections import ConfigDict
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bahdanau_jax.errors import InputError
from bahdanau_jax.runs.config import Config, Pooling, Section
from bahdanau_jax.runs.language_model_config import LanguageModelConfig
from bahdanau_jax.runs.seq2seq_config import Seq2SeqConfig
from bahdanau_jax.runs.word_vectors_config import WordVectorsConfig


def schema_of(config: ConfigDict | Mapping[str, Any]) -> type[Section]:
    """The schema that a config follows: a classifier's has no field `task`."""
    if "task" not in config:
        return Config
    tasks = {"seq2seq": Seq2SeqConfig, "language_model": LanguageModelConfig}
    return tasks.get(config["task"], WordVectorsConfig)


def parse_config(config: ConfigDict | Mapping[str, Any]) -> Any:
    """Checks a config and returns it as a Config, or as its `task` says.

    A field that is missing takes its default.

    Raises:
      InputError: in one line, with the field, its value and what was expected.

    Example:
      >>> parse_config({"epochs": 0})
      Traceback (most recent call last):
      bahdanau_jax.errors.InputError: config.epochs is 0; expected an integer of at least 1
    """
    values = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    schema = schema_of(values)
    try:
        parsed = schema.model_validate(values)
    except ValidationError as error:
        raise InputError(_message(schema, error, values)) from None
    for name, value in flatten(parsed.model_dump()).items():
        if not _is_json(value):
            raise InputError(
                f"config.{name} is {value!r}; expected a number, a text, a list or None"
            )
    return parsed


# Fields of version 0.1 and the value with which each did nothing.
_REMOVED = {
    "teacher": "",
    "model.members": 1,
    "model.bigram_rows": 0,
    "model.word_dropout": 0.0,
}


def upgrade(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config.json as this version writes them.

    Fields that are new get their default. Fields of older versions go where they did nothing; where they
    did something they stay, and differ from every config of today.

    Raises:
      InputError: a run of version 0.1 with n-grams, whose parameters have other names.
    """
    found = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()
    }
    model = found.get("model")
    if isinstance(model, dict) and "members" in model and model.get("ngrams"):
        raise InputError(
            f"config.model.ngrams is {model['ngrams']} in a run folder of version 0.1, which named an n-gram "
            "model's parameters differently; expected a folder of 0.2 or newer, or version 0.1 to read this one"
        )
    for path, neutral in _REMOVED.items():
        *groups, name = path.split(".")
        group = found.get(groups[0]) if groups else found
        if isinstance(group, dict) and name in group and group[name] == neutral:
            del group[name]
    if isinstance(found.get("marks"), bool):  # of version 0.2
        found["tokenizer"] = {"name": "marks" if found.pop("marks") else "words"}
    return _with_defaults(found, schema_of(found)().model_dump())


def _with_defaults(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults) | dict(found)
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(found.get(name), Mapping):
            merged[name] = _with_defaults(found[name], default)
    return merged


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names.

    Example:
      >>> flatten({"seed": 0, "model": {"dropout": 0.5}})
      {'seed': 0, 'model.dropout': 0.5}
    """
    flat = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict | Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        elif not isinstance(value, ConfigDict | Mapping) or name == "options":
            flat[f"{prefix}{name}"] = value
    return flat


def describe_fields(schema: type[Section] = Config) -> Iterator[tuple[str, Any, str, str]]:
    """Dotted name, default, expected value and sentence of each field, in the order of declaration.

    Example:
      >>> next(describe_fields())
      ('seed', 0, 'an integer of at least 0', 'Seed of the weights, dropout and the order of batches.')
    """
    for name, field in schema.model_fields.items():
        section = _section(field)
        if section is not None:
            for inner, default, expected, sentence in describe_fields(section):
                yield f"{name}.{inner}", default, expected, sentence
        else:
            sentence = " ".join((field.description or "").split())
            yield name, field.default, _expected(field), sentence


def _message(schema: type[Section], error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first of pydantic's errors in our words."""
    first = error.errors()[0]
    if first["type"] == "value_error":  # raised by a validator above, in our words already
        return str(first.get("ctx", {})["error"])
    names = [name for name in first["loc"] if isinstance(name, str)]
    path = ".".join(["config", *names])
    if first["type"] == "extra_forbidden":
        known = [name for name, *_ in describe_fields(schema)]
        close = difflib.get_close_matches(".".join(names), known, n=1)
        if names == ["marks"]:
            close = ["tokenizer.name"]  # which replaced it
        return f"{path} is not a field" + (f"; did you mean config.{close[0]}?" if close else "")
    field, value, section = None, values, schema
    for name in names:
        if section is None:  # inside `options`
            break
        field, value = section.model_fields[name], value[name]
        section = _section(field)
    if field is None or section is not None:
        return f"{path} is {value!r}; expected a group of fields"
    return f"{path} is {value!r}; expected {_expected(field, value)}"


def _expected(field: FieldInfo, value: Any = None) -> str:
    """What a field takes, in words; of an integer's two bounds the one that `value` breaks."""
    kind = field.annotation
    bounds = {
        name: bound
        for constraint in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if (bound := getattr(constraint, name, None)) is not None
    }
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if kind is bool:
        return "True or False"
    if kind is int:
        if type(value) is int and value > bounds["le"]:
            return f"an integer of at most {bounds['le']}"
        return f"an integer of at least {bounds['ge']}"
    if kind is float:
        low = f"of at least {bounds['ge']:g}" if "ge" in bounds else f"above {bounds['gt']:g}"
        high = f" and below {bounds['lt']:g}" if "lt" in bounds else ""
        return f"a number from 0 to {bounds['le']:g}" if "le" in bounds else f"a number {low}{high}"
    if kind is str:
        return "a name" if field.metadata else "a text"
    if get_origin(kind) is dict:
        return "keyword arguments by name"
    if kind == Sequence[Pooling]:
        return "one or more of " + ", ".join(map(repr, get_args(Pooling)))
    if get_origin(kind) is collections.abc.Sequence:
        return "increasing lengths that end with config.max_length"
    return "a name, or None"


def _section(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, or None."""
    kind: Any = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(inside) for name, inside in value.items())
    return value is None or isinstance(value, bool | int | float | str)
