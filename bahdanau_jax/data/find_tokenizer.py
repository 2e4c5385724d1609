"""Finds the tokenizer that a config or a vocabulary names."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from bahdanau_jax.data.tokenizer import BUILT_IN, Tokenizer, each_text
from bahdanau_jax.errors import InputError, one_line
from bahdanau_jax.import_path import accepted, load_object

_FIELD = "config.tokenizer.name"


def check_tokenizer(name: str, options: Mapping[str, Any]) -> None:
    """Checks what can be checked before there are texts.

    Raises:
      InputError: there is no such tokenizer, it does not take the options, or what it learns with is missing.

    Example:
      >>> check_tokenizer("word", {})
      Traceback (most recent call last):
      bahdanau_jax.errors.InputError: config.tokenizer.name is 'word'; expected 'words', 'marks', \
'characters', 'bpe', 'unigram' or "package.module:Class"
    """
    if name in BUILT_IN and options:
        raise InputError(
            f"config.tokenizer.options has {', '.join(options)}; expected none with {name!r}: they are "
            "for a tokenizer of your own"
        )
    if learns(name):
        if name in BUILT_IN and find_spec("tokenizers") is None:
            raise InputError(
                f"{_FIELD} is {name!r}, which learns with Hugging Face tokenizers; expected "
                "pip install 'bahdanau-jax[subwords]'"
            )
    else:
        make_tokenizer(name, options)


def learns(name: str) -> bool:
    """Whether the tokenizer learns from the training texts.

    Example:
      >>> learns("bpe"), learns("words")
      (True, False)
    """
    return hasattr(_find(name), "learn")


def learned_options(
    name: str, options: Mapping[str, Any], texts: Iterable[str], size: int
) -> dict[str, Any]:
    """The arguments of a tokenizer: what it learns from texts, or `options` where it learns nothing.

    Raises:
      InputError: as `check_tokenizer`.
    """
    check_tokenizer(name, options)
    if not learns(name):
        return dict(options)
    return _find(name).learn(each_text(texts), size, **options)


def make_tokenizer(name: str, options: Mapping[str, Any]) -> Tokenizer:
    """Makes a tokenizer.

    Args:
      name: a key of `BUILT_IN`, or "package.module:Class".
      options: its arguments, learned or from the config.

    Raises:
      InputError: there is no such tokenizer, it takes other arguments, or lacks a method.

    Example:
      >>> make_tokenizer("marks", {}).tokens("Fine!")
      ['fine', '!']
    """
    kind = _find(name)
    arguments = accepted(kind, {}, _FIELD, options)
    try:
        made = kind(**arguments)
    except Exception as error:  # whatever a class of the user's own raises
        raise InputError(
            f"{_FIELD} is {name!r}, which cannot be made with its options "
            f"({type(error).__name__}: {one_line(error)[:200]})"
        ) from error
    for method in ("tokens", "spans"):
        if not callable(getattr(made, method, None)):
            raise InputError(
                f"{_FIELD} is {name!r}, which has no method {method}; expected a "
                "bahdanau_jax.data.tokenizer.Tokenizer"
            )
    return made


def _find(name: str) -> Any:
    if name in BUILT_IN:
        return BUILT_IN[name]
    if ":" not in name:
        known = ", ".join(map(repr, BUILT_IN))
        raise InputError(f'{_FIELD} is {name!r}; expected {known} or "package.module:Class"')
    return load_object(name, _FIELD)
