"""The examples in the docstrings of the public interface give what they say."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "attention",
        "batches",
        "calibration",
        "classifier",
        "digests",
        "faithfulness",
        "lstm",
        "objective",
        "recurrence",
        "significance",
        "text_files",
        "weights",
    ],
)
def test_examples_give_what_they_say(module):
    results = doctest.testmod(importlib.import_module(f"bahdanau_jax.{module}"))
    assert results.attempted > 0 and results.failed == 0
