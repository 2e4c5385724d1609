"""Every field is declared once, and whatever a config holds is taken or refused in one line."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.errors import InputError
from bahdanau_jax.models.classifier import POOLINGS
from bahdanau_jax.runs.config import Config, Pooling, default_config
from bahdanau_jax.runs.parse_config import describe_fields, flatten, parse_config, upgrade
from bahdanau_jax.runs.seq2seq_config import Seq2SeqConfig
from bahdanau_jax.runs.word_vectors_config import WordVectorsConfig
from experiments import imdb, imdb_tiny


def changed(field, value, config=None) -> dict:
    """A config with one field set, whatever its type."""
    config = (config or imdb.get_config()).to_dict()
    *groups, last = field.split(".")
    group = config
    for name in groups:
        group = group[name]
    group[last] = value
    return config


def refusal(config) -> str:
    with pytest.raises(InputError) as error:
        parse_config(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "field, value",
    [
        ("seed", -1),
        ("seed", 2**40),
        ("epochs", -1),
        ("epochs", 0),
        ("epochs", True),
        ("batch_size", 0),
        ("vocab_size", 4),
        ("max_length", 0),
        ("checkpoint.every_steps", 0),
        ("checkpoint.every_minutes", -1.0),
        ("checkpoint.keep", 0),
        ("log_every_steps", 0),
        ("data.source", ""),
        ("data.name", ""),
        ("data.data_dir", ""),
        ("data.validation_size", -1),
        ("bucket_lengths", ()),
        ("bucket_lengths", (500, 250)),
        ("bucket_lengths", (250, 250, 500)),
        ("bucket_lengths", (0, 500)),
        ("bucket_lengths", (128, 256)),
        ("bucket_lengths", ("abc",)),
        ("bucket_lengths", (250.0, 500)),
        ("class_weights", 1),
        ("model.num_layers", 0),
        ("model.num_layers", 10**6),
        ("model.dropout", 1.0),
        ("model.dropout", -0.1),
        ("model.dropout", float("nan")),
        ("model.pooling", ()),
        ("model.pooling", ("sum",)),
        ("model.ngrams", -1),
        ("model.ngram_rows", 0),
        ("model.ngram_share", 1.5),
        ("model.dtype", "int8"),
        ("model.options", 3),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", float("inf")),
        ("optimizer.b1", 1.0),
        ("optimizer.eps", -1e-7),
        ("optimizer.name", "adan"),
        ("optimizer.schedule", "cosine"),
    ],
)
def test_a_field_out_of_range_is_named_with_its_value(field, value):
    assert refusal(changed(field, value)).startswith(f"config.{field} is {value!r}; expected ")


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("epochs", -1, "config.epochs is -1; expected an integer of at least 1"),
        ("seed", 2**40, "config.seed is 1099511627776; expected an integer of at most 2147483647"),
        (
            "model.dropout",
            1,
            "config.model.dropout is 1; expected a number of at least 0 and below 1",
        ),
        (
            "model.ngram_share",
            2.0,
            "config.model.ngram_share is 2.0; expected a number from 0 to 1",
        ),
        (
            "optimizer.schedule",
            "",
            "config.optimizer.schedule is ''; expected 'constant' or 'linear'",
        ),
        ("data.data_dir", 3, "config.data.data_dir is 3; expected a name, or None"),
        ("model", 3, "config.model is 3; expected a group of fields"),
        (
            "bucket_lengths",
            (250, 200, 500),
            "config.bucket_lengths is (250, 200, 500); expected increasing lengths that end with "
            "config.max_length, 500",
        ),
    ],
)
def test_the_message_says_what_was_expected(field, value, expected):
    assert refusal(changed(field, value)) == expected


def test_word_vectors_keep_a_feature_for_skip_gram():
    for topics, fits in ((7, True), (8, False)):
        found = {
            "task": "word_vectors",
            "model": {"embedding_features": 8, "topic_features": topics},
        }
        if fits:
            assert parse_config(found).model.topic_features == 7
        else:
            with pytest.raises(InputError) as caught:
                parse_config(found)
            assert str(caught.value) == (
                "config.model.topic_features is 8; expected less than config.model.embedding_features, 8"
            )


def test_marks_of_version_0_2_name_a_tokenizer():
    for marks, name in ((True, "marks"), (False, "words")):
        for found in ({"marks": marks}, {"marks": marks, "task": "word_vectors"}):
            upgraded = upgrade(found)
            assert (
                upgraded["tokenizer"] == {"name": name, "options": {}} and "marks" not in upgraded
            )
            parse_config(upgraded)


def test_an_unknown_field_gets_the_nearest_name():
    message = refusal(changed("model.droput", 0.1))
    assert message == "config.model.droput is not a field; did you mean config.model.dropout?"
    assert refusal(changed("zzz", 0.1)) == "config.zzz is not a field"
    assert refusal(changed("marks", True)).endswith("did you mean config.tokenizer.name?")


def test_a_missing_field_takes_its_default():
    assert parse_config({}) == Config()
    assert parse_config({"model": {"dropout": 0.25}}).model.num_layers == 2
    assert parse_config({"task": "word_vectors"}) == WordVectorsConfig()
    assert parse_config({"task": "seq2seq"}) == Seq2SeqConfig()


def test_the_poolings_are_those_of_the_classifier():
    assert get_args(Pooling) == POOLINGS


def test_options_hold_what_json_can_hold():
    assert parse_config(changed("model.options", {"kernel": (3, 5)}))
    message = refusal(changed("optimizer.options", {"mask": print}))
    assert message.startswith("config.optimizer.options.mask is <built-in")


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.sampled_from(sorted(flatten(imdb_tiny.get_config()))), anything)
def test_any_value_in_any_field_is_taken_or_refused_in_one_line(field, value):
    try:
        parse_config(changed(field, value, imdb_tiny.get_config()))
    except InputError as error:
        assert str(error).startswith(("config.", "the parameters of config.model"))
        assert "\n" not in str(error)


@pytest.mark.parametrize("schema", [Config, Seq2SeqConfig, WordVectorsConfig])
def test_every_field_is_described_by_one_sentence(schema):
    fields = list(describe_fields(schema))
    assert {name for name, *_ in fields} == set(flatten(default_config(schema)))
    for name, default, expected, sentence in fields:
        assert sentence.endswith("."), name
        assert expected, name
        json.dumps(default)


@pytest.mark.parametrize(
    "field, value", [("hidden_features", 2_000_000_000), ("embedding_features", 2**31 - 1)]
)
def test_a_model_that_does_not_fit_into_memory_is_refused(field, value):
    assert "would take" in refusal(changed(f"model.{field}", value))


def test_only_the_linear_model_reads_texts_without_labels():
    message = refusal(changed("unlabelled", True))
    assert message.startswith(
        "config.unlabelled is True; expected False with config.model.ngrams 0"
    )


def test_a_config_of_version_0_1_is_read_where_the_removed_fields_did_nothing():
    old = json.loads(json.dumps(imdb.get_config().to_dict()))
    for name in ("target", "attention", "options"):
        del old["model"][name]
    del old["optimizer"]["options"], old["data"]["options"]
    old["teacher"] = ""
    old["model"] |= {"members": 1, "bigram_rows": 0, "word_dropout": 0.0}
    want = parse_config(imdb.get_config()).model_dump_json()
    assert parse_config(upgrade(old)).model_dump_json() == want
    old["model"]["members"] = 2
    assert "config.model.members is not a field" in refusal(upgrade(old))
