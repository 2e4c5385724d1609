"""Whatever comes in - text, files, labels, configs, masks, run folders - is used or refused in one line.

A few dozen cases of each kind run with the suite; `FUZZ_CASES=1000 ./launch.sh test tests/test_fuzz.py` runs so
many of each, over 10,000 in all.
"""

import contextlib
import copy
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from absl import flags
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import bahdanau_jax as bj
from bahdanau_jax.data.batches import eval_batches, plan_epoch, train_batches
from bahdanau_jax.data.dataset import Dataset, Examples
from bahdanau_jax.data.input_texts import FORMATS, open_texts
from bahdanau_jax.data.sniff import Layout
from bahdanau_jax.data.tokenizer import split_words, word_spans
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.evaluation.metrics import loss_and_metrics
from bahdanau_jax.evaluation.predictor import _read_label_names, read_config
from bahdanau_jax.runs import fingerprints
from bahdanau_jax.runs.console import show_finished
from bahdanau_jax.runs.folder import open_workdir
from bahdanau_jax.runs.parse_config import flatten, parse_config
from bahdanau_jax.runs.predictions import read_predictions
from bahdanau_jax.runs.safe_files import parse_json, write_json
from bahdanau_jax.token_ids import FIRST_WORD, START
from bahdanau_jax.training.metric_writer import MetricWriter
from bahdanau_jax.training.progress import Progress
from experiments import imdb_tiny, run

CASES = int(os.environ.get("FUZZ_CASES", "30"))
fuzz = settings(max_examples=CASES, derandomize=CASES < 100)

# st.characters() has everything but halves of surrogate pairs; those come from JSON and file names.
TEXT = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"])), max_size=60)
NUMBERS = st.one_of(
    st.integers(-3, 100),
    st.integers(),
    st.sampled_from([2**31, 2**63, 10**400, -(10**30), 1e308, -0.0]),
    st.floats(),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
JSON = st.recursive(
    LEAVES,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXT, inside, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def used_or_refused(function, *arguments, **keywords) -> Any:
    """What the function gives; None where it refuses its input in one line."""
    try:
        return function(*arguments, **keywords)
    except (InputError, flags.Error) as error:
        message = str(error)
        assert message and "\n" not in message
        return None


def changed(value, draw):
    """A JSON value with one of its inner values replaced, removed or added."""
    value = copy.deepcopy(value)
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            return value
        key = draw(st.sampled_from(keys))
        if isinstance(inner[key], dict | list) and inner[key] and draw(st.booleans()):
            inner = inner[key]
            continue
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            inner[key] = draw(JSON)
        elif what == "remove":
            del inner[key]
        elif isinstance(inner, dict):
            inner[draw(TEXT)] = draw(JSON)
        else:
            inner.insert(key, draw(JSON))
        return value


# --- text and files ---------------------------------------------------------------------------


@fuzz
@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(-2, 30), st.integers(-1, 20))
def test_any_text_becomes_ids_of_its_words(texts, size, max_length):
    vocabulary = used_or_refused(Vocabulary.build, texts, size=size)
    assert (vocabulary is None) == (size <= FIRST_WORD)
    for text in texts if vocabulary else ():
        words = split_words(text)
        assert [text[a:b] for a, b in word_spans(text)] == [
            text[a:b] for a, b in word_spans(text) if split_words(text[a:b])
        ]
        assert len(words) == len(word_spans(text))
        ids = used_or_refused(vocabulary.encode, text, max_length=max_length)
        if max_length < 1:
            assert ids is None
            continue
        assert ids.dtype == np.int32 and 1 <= len(ids) <= max_length
        assert ids.min() >= START and ids.max() < len(vocabulary)
        for word, id_ in zip(words[::-1], ids[::-1], strict=False):
            assert vocabulary.decode([id_]) == [word] or word not in vocabulary.words


@fuzz
@given(st.one_of(st.binary(max_size=80), JSON.map(lambda x: json.dumps({"words": x}).encode())))
def test_any_file_is_a_vocabulary_or_refused(folder, data):
    (folder / "vocabulary.json").write_bytes(data)
    vocabulary = used_or_refused(Vocabulary.load, folder / "vocabulary.json")
    if vocabulary is not None:
        vocabulary.save(folder / "again.json")
        assert Vocabulary.load(folder / "again.json").words == vocabulary.words


LINES = st.one_of(
    st.binary(max_size=30),
    TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from([b"text", b",", b'"', b"\t", b"{", b"}", b":", b"\xff", b"1", b"\r"]))
    .map(b"".join),
    JSON.map(lambda x: json.dumps({"text": x}).encode()),
)  # fmt: skip


@fuzz
@given(st.lists(LINES, max_size=6), st.sampled_from(["", *FORMATS]), st.sampled_from(["text", "1"]))
def test_any_file_gives_texts_or_is_refused(folder, lines, form, column):
    path = folder / "texts"
    path.write_bytes(b"\n".join([b"text,1", *lines] if form in ("csv", "tsv") else lines))

    def read():
        chunks, total = open_texts(str(path), [column], Layout(form), size=2, say=str)
        texts = [text for chunk in chunks for text in chunk]
        assert len(texts) == total
        return texts

    texts = used_or_refused(read)
    assert texts is None or all(isinstance(text, str) for text in texts)


# --- labels, lengths, masks -------------------------------------------------------------------


@fuzz
@given(st.lists(st.tuples(TEXT, st.integers(-(2**31), 2**31 - 1), TEXT), max_size=6))
def test_every_text_label_and_id_counts_in_the_digest(rows):
    texts, labels, ids = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    examples = Examples(texts, np.array(labels, np.int32), ids)
    dataset = Dataset("x", ("a",), examples, examples, lambda: examples, "test")
    first = fingerprints.of_data(dataset, Vocabulary([]))
    assert first == fingerprints.of_data(dataset, Vocabulary([]))
    for i in range(len(rows)):
        other = Examples(texts[:i] + ["", *texts[i + 1 :]], examples.labels, ids)
        assert (fingerprints.of_examples(other) == fingerprints.of_examples(examples)) == (
            texts[i] == ""
        )


@fuzz
@given(
    st.lists(
        st.tuples(st.floats(-100, 100), st.integers(0, 1), st.booleans()), min_size=4, max_size=4
    )
)
def test_filler_rows_never_count(rows):
    logits, labels, real = (np.array(x) for x in zip(*rows, strict=True))
    logits = logits[:, None].astype(np.float32)
    loss, metrics = loss_and_metrics(logits, labels, real)
    assert metrics.count == real.sum() and np.isfinite(loss) and metrics.correct <= metrics.count
    nats = np.logaddexp(0, np.where(labels == 1, -1, 1) * logits[:, 0].astype(np.float64))
    np.testing.assert_allclose(metrics.loss_sum, nats[real].sum(), rtol=1e-3, atol=1e-4)


@fuzz
@given(st.data())
def test_each_review_comes_once_an_epoch_whatever_the_lengths(data):
    buckets = sorted(data.draw(st.sets(st.integers(1, 30), min_size=1, max_size=4)))
    lengths = data.draw(st.lists(st.integers(0, buckets[-1]), min_size=1, max_size=20))
    processes = data.draw(st.integers(1, 3))
    batch_size = processes * data.draw(st.integers(1, 5))
    ids = [np.full(n, 7, np.int32) for n in lengths]
    labels = np.array([data.draw(st.integers(0, 5)) for _ in ids], np.int32)
    sizes = dict(batch_size=batch_size, bucket_lengths=buckets, threads=1)
    plan = plan_epoch(np.array(lengths), batch_size, buckets, np.random.default_rng(0))
    assert sorted(row for rows in plan for row in rows) == list(range(len(ids)))
    make = data.draw(
        st.sampled_from([eval_batches, lambda *a, **k: train_batches(*a, **k, epochs=1, seed=3)])
    )
    shares = [
        list(make(ids, labels, **sizes, process_index=i, process_count=processes))
        for i in range(processes)
    ]
    seen = []
    for batch in zip(*shares, strict=True):
        assert len({share.ids.shape for share in batch}) == 1
        for share in batch:
            for row_ids, label, real, row in zip(*share, strict=True):
                assert real == (row >= 0)
                if real:
                    seen.append(row)
                    assert (row_ids != 0).sum() == lengths[row] and label == labels[row]
                else:
                    assert not row_ids.any() and label == 0
    assert sorted(seen) == list(range(len(ids)))


ROWS, TIME = 3, 6


@jax.jit
def encode_and_attend(inputs, mask):
    """Outputs, weights, context and the gradient with regard to the inputs."""

    encoder = bj.BiLSTM(2, 2, rngs=nnx.Rngs(0))
    attention = bj.BahdanauAttention(4, 4, 3, rngs=nnx.Rngs(1))

    def total(inputs):
        outputs, (h, _) = encoder(inputs, mask)
        context, weights = attention(h, outputs, mask=mask)
        return context.sum(), (outputs, weights, context)

    gradient, found = jax.grad(total, has_aux=True)(inputs)
    return *found, gradient


@fuzz
@given(
    st.lists(st.booleans(), min_size=ROWS * TIME, max_size=ROWS * TIME),
    st.sampled_from([0.0, 1.0, 1e30, np.inf, np.nan]),
)
def test_any_mask_gives_zeros_where_it_is_false_and_no_nan(bits, masked_value):
    mask = np.array(bits).reshape(ROWS, TIME)
    inputs = np.random.default_rng(0).normal(size=(ROWS, TIME, 2)).astype(np.float32)
    inputs[~mask] = masked_value
    outputs, weights, context, gradient = map(np.asarray, encode_and_attend(inputs, mask))
    for found in (outputs, weights, gradient):
        assert np.isfinite(found).all() and not found[~mask].any()
    assert np.isfinite(context).all()
    np.testing.assert_allclose(weights.sum(1), mask.any(1), atol=1e-5)
    inputs[~mask] = 0
    for again, found in zip(
        encode_and_attend(inputs, mask), (outputs, weights, context), strict=False
    ):
        np.testing.assert_array_equal(again, found)


# --- configs and command lines ----------------------------------------------------------------


@fuzz
@given(st.data())
def test_any_config_is_valid_or_refused(data):
    config = imdb_tiny.get_config().unlock()
    names = sorted(flatten(config))
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        *groups, last = name.split(".")
        group = config
        for part in groups:
            group = group[part]
        # ml_collections makes a float of an integer before ours looks at it.
        with group.ignore_type(), contextlib.suppress(OverflowError):
            group[last] = data.draw(st.one_of(LEAVES, st.lists(NUMBERS, max_size=3).map(tuple)))
    parsed = used_or_refused(parse_config, config)
    if parsed is not None:
        json.dumps(parsed.model_dump(), allow_nan=False)


ARGUMENTS = st.one_of(
    TEXT,
    st.tuples(
        st.sampled_from(["--config", "--workdir", "--config.seed", "--config.model", "--nosuch"]),
        st.sampled_from(["", "=", "=1", "=x", "=1e9", "=experiments/imdb.py", "=(1,)"]),
    ).map("".join),
    st.tuples(st.sampled_from(sorted(flatten(imdb_tiny.get_config()))), TEXT).map(
        lambda x: f"--config.{x[0]}={x[1]}"
    ),
)


@fuzz
@given(st.lists(ARGUMENTS.filter(lambda x: "flagfile" not in x), max_size=3))
def test_any_command_line_is_understood_or_refused(arguments):
    try:
        config, workdir = run.parse(["run", *arguments])
    except flags.Error as error:
        assert str(error)
        return
    assert isinstance(workdir, Path) and flatten(config)


# --- run folders ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tiny_run):
    return json.loads((tiny_run / "result.json").read_text())


@fuzz
@given(st.data())
def test_any_result_is_shown_or_refused(folder, result, data):
    value = changed(result, data.draw) if data.draw(st.booleans()) else data.draw(JSON)
    (folder / "result.json").write_text(json.dumps(value))
    used_or_refused(show_finished, Console(file=io.StringIO()), folder)
    (folder / "data.json").write_text(json.dumps({"data set": value}))
    used_or_refused(_read_label_names, folder)


@fuzz
@given(st.data())
def test_any_config_file_is_compared_or_refused(folder, data):
    config = imdb_tiny.get_config()
    value = changed(config.to_dict(), data.draw) if data.draw(st.booleans()) else data.draw(JSON)
    text = json.dumps(value)
    # No fixture's folder: a file of an earlier case would say that the run has begun.
    with tempfile.TemporaryDirectory(dir=folder) as name:
        (Path(name) / "config.json").write_text(text)

        def open_it():
            with open_workdir(name, parse_config(config).model_dump()):
                pass

        used_or_refused(open_it)
        (Path(name) / "config.json").write_text(text)
        found = used_or_refused(read_config, Path(name))
        if found is not None:
            lengths = list(found.bucket_lengths)
            assert lengths == sorted(set(lengths)) and lengths[-1] <= 1_000_000


METRICS = st.one_of(
    st.binary(max_size=20),
    JSON.map(lambda x: json.dumps({"step": x}).encode()),
    st.just(b'{"step": 3}'),
)


@fuzz
@given(st.lists(METRICS, max_size=5), st.integers(0, 5))
def test_any_metrics_file_is_continued_or_refused(folder, lines, step):
    with tempfile.TemporaryDirectory(dir=folder) as name:
        file = Path(name) / "metrics.jsonl"
        file.write_bytes(b"\n".join(lines))

        def resume():
            with MetricWriter(
                name, total_steps=9, resume_step=step, console=Console(file=io.StringIO())
            ):
                return file.read_bytes().splitlines()

        kept = used_or_refused(resume)
        assert all(json.loads(line)["step"] <= step for line in kept or ())


@fuzz
@given(
    st.lists(
        st.one_of(st.binary(max_size=20), JSON.map(lambda x: json.dumps(x).encode())), max_size=4
    )
)
def test_any_predictions_are_read_or_refused(folder, lines):
    good = {"split": "test", "id": "a", "label": 1, "probabilities": [0.25, 0.75]}
    (folder / "predictions.jsonl").write_bytes(b"\n".join([json.dumps(good).encode(), *lines]))
    found = used_or_refused(read_predictions, folder)
    assert found is None or (found.probabilities.shape[1] == 2 and found.labels.max() <= 1)
    assert found is None or (0 <= found.probabilities).all() and (found.probabilities <= 1).all()


@fuzz
@given(st.data())
def test_any_changed_prediction_is_read_or_refused(folder, data):
    good = {"split": "test", "id": "a", "label": 1, "probabilities": [0.25, 0.75], "words": 3}
    (folder / "predictions.jsonl").write_text(json.dumps(changed(good, data.draw)) + "\n")
    found = used_or_refused(read_predictions, folder)
    assert found is None or (0 <= found.probabilities).all() and (found.probabilities <= 1).all()
    assert found is None or found.words is None or found.words.dtype == np.int64


@fuzz
@given(st.data())
def test_any_progress_of_a_checkpoint_is_taken_or_refused(data):
    progress = Progress(skipped_steps=1)
    progress.compare({"step": 3, "epoch": 1, "loss": 0.5, "accuracy": 0.75, "n": 4})
    good = progress.to_json() | {"pending": [[1.0, 2.0, 3.0]]}
    assert Progress.from_json(3, copy.deepcopy(good), "x").to_json() == good
    value = changed(good, data.draw) if data.draw(st.booleans()) else data.draw(JSON)
    found = used_or_refused(Progress.from_json, 3, value, "checkpoints/3")
    if found is not None:
        json.dumps(found.to_json(), allow_nan=False)
        found.clock.lap()
        str(found.clock)


@fuzz
@given(st.data())
def test_any_kept_data_digest_is_compared_or_refused(folder, data):
    good = {"train": {"reviews": 2, "sha256": "0" * 64}, "vocabulary": {"words": 3, "sha256": "1"}}
    value = changed(good, data.draw) if data.draw(st.booleans()) else data.draw(JSON)
    (folder / "data.json").write_text(json.dumps(value))
    used_or_refused(fingerprints.keep_or_compare, folder / "data.json", good, begun=True)


@fuzz
@given(
    st.one_of(
        st.binary(max_size=40),
        TEXT.map(lambda x: x.encode("utf-8", "surrogatepass")),
        JSON.map(lambda x: json.dumps(x).encode()),
    )
)
def test_json_is_parsed_or_a_value_error_and_comes_back(folder, data):
    try:
        value = parse_json(data)
    except ValueError:
        return
    write_json(folder / "again.json", value)
    assert parse_json((folder / "again.json").read_bytes()) == value
